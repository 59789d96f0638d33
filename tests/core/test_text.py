"""Foreign text becomes fit to be shown; durations are read and written as people do."""

import base64
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.core.csr import make_csr, parse_subject
from compass_sidecar.core.text import format_duration, parse_duration, printable
from tests.support.authority import Authority, key_pem, rsa_key

TOKEN = base64.urlsafe_b64encode(bytes(range(64))).decode()
CHAIN_PEM = Authority.create().credential().chain.pem
ENCODED = base64.b64encode(CHAIN_PEM).decode()
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("24h", timedelta(days=1)),
        ("10m", timedelta(minutes=10)),
        ("30s", timedelta(seconds=30)),
        ("500ms", timedelta(milliseconds=500)),
        ("30", timedelta(seconds=30)),
        ("0.25", timedelta(milliseconds=250)),
        (".5", timedelta(milliseconds=500)),
        ("1.5h", timedelta(minutes=90)),
        ("0", timedelta(0)),
        (" 30s\n", timedelta(seconds=30)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_a_number_with_a_unit_or_of_seconds(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1", "-1s", "+1", "nan", "inf", "Infinity", "1e3", "1_000", "0x10"),
        *("1w", "30S", "h", "1h30m", "1 h", "1.", "1.2.3s"),
        *("\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}s"),
    ],
)
def test_anything_else_is_refused_with_examples_of_what_is_right(text: str) -> None:
    with pytest.raises(ValueError, match="90d, 24h, 10m, 30s, 500ms or a number of seconds"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["36501d", "36500.1d", "999999999999d", "9" * 400, "9" * 400 + "ms", "1" * 9999]
)
def test_more_than_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longest duration is 36500d"):
        parse_duration(text)


@given(st.integers(0, 36_500), st.sampled_from(sorted(UNITS)))
def test_every_whole_number_of_a_unit_is_exact(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == timedelta(milliseconds=round(number * UNITS[unit] * 1000))


@given(st.text() | st.from_regex(r"[-+]?[0-9]*\.?[0-9]*(ms|s|m|h|d)?", fullmatch=True))
def test_every_text_is_a_duration_that_dates_can_bear_or_a_value_error(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert duration >= timedelta(0)
    assert datetime(2026, 1, 1, tzinfo=UTC) + duration


@pytest.mark.parametrize("text", ["s3cr3t", "s3cr3t\n", "9s3cr3t", "9" * 400])
def test_a_refusal_does_not_repeat_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is ") as caught:
        parse_duration(text)
    assert text.strip() not in str(caught.value)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=2, hours=3, minutes=59), "2d 3h"),
        (timedelta(days=2, minutes=59), "2d"),
        (timedelta(days=90), "90d"),
        (timedelta(hours=1, minutes=1, seconds=1), "1h 1m"),
        (timedelta(minutes=10), "10m"),
        (timedelta(minutes=59, seconds=59.999), "59m 59s"),
        (timedelta(seconds=1.5), "1s 500ms"),
        (timedelta(milliseconds=7), "7ms"),
        (timedelta(microseconds=7), "0s"),
        (timedelta(0), "0s"),
        (timedelta(hours=-3), "-3h"),
        (timedelta(microseconds=-7), "0s"),
    ],
)
def test_a_duration_is_written_in_its_two_largest_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=36_500)))
def test_what_is_written_is_rounded_down_by_less_than_the_second_unit(duration: timedelta) -> None:
    parts = format_duration(duration).split()
    written = sum((parse_duration(part) for part in parts), timedelta(0))
    second = {"d": "1h", "h": "1m", "m": "1s", "s": "1ms", "ms": "1ms"}[parts[0].lstrip("0123456789")]
    assert timedelta(0) <= duration - written < parse_duration(second)


@given(st.timedeltas())
def test_every_duration_can_be_written(duration: timedelta) -> None:
    text = format_duration(duration)
    assert format_duration(abs(duration)) == text.removeprefix("-")
    assert text.startswith("-") == (duration <= timedelta(milliseconds=-1))


@given(st.integers(1, 999), st.sampled_from(["ms", "d"]))
def test_a_single_unit_that_is_written_can_be_read_again(number: int, unit: str) -> None:
    duration = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(duration)) == duration


# --- foreign text


def test_controls_and_direction_marks_are_escaped() -> None:
    assert printable("a\nb\x1b[31m\u202ec\u2066\ufeff\ud800") == (
        "a\\u000ab\\u001b[31m\\u202ec\\u2066\\ufeff\\ud800"
    )
    assert printable("\U000e0001") == "\\U000e0001"


def test_ordinary_text_stays_as_it_is() -> None:
    assert (
        printable("CSR: Invalid common name provided (Zürich).")
        == "CSR: Invalid common name provided (Zürich)."
    )


def test_text_is_cut_at_256_characters() -> None:
    assert printable("a b " * 64) == "a b " * 63 + "a b"
    assert printable("a b " * 65) == "a b " * 63 + "a b…"
    assert len(printable("\u202e " * 1000)) <= 256


@pytest.mark.parametrize("separator", [" ", "\n", '"', "."])
def test_base64_of_60_characters_is_removed_and_of_59_not(separator: str) -> None:
    assert printable(f"x{separator}{'A' * 60}{separator}y") == printable(
        f"x{separator}[base64 removed]{separator}y"
    )
    assert "A" * 59 in printable(f"x{separator}{'A' * 59}{separator}y")


@pytest.mark.parametrize("text", [TOKEN, ENCODED, CHAIN_PEM.decode(), ENCODED.replace("/", "\\/")])
def test_tokens_and_certificates_do_not_come_through(text: str) -> None:
    assert "[base64 removed]" in printable(f"before {text}")
    assert text[8:30] not in printable(text).removeprefix("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\\n"])
@pytest.mark.parametrize("traditional", [True, False])
def test_a_private_key_does_not_come_through(newline: str, *, traditional: bool) -> None:
    pem = key_pem(rsa_key(), traditional=traditional).decode().strip().replace("\n", newline)
    assert printable(f"a {pem} b") == "a [private key removed] b"
    assert printable(f"a {pem[:300]}") == "a [private key removed]"


def test_a_signing_request_does_not_come_through() -> None:
    pem = make_csr(rsa_key(), parse_subject("CN=1e5d8a2c")).decode().strip()
    assert printable(f"a {pem} b") == "a [certificate request removed] b"


@given(st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"])))
def test_any_text_becomes_short_and_visible(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 256
    assert shown.isprintable()


@given(st.text(" x."), st.text(string.ascii_letters + string.digits + "+/=_-", min_size=60), st.text(" y."))
def test_no_run_survives(before: str, run: str, after: str) -> None:
    assert run not in printable(before + run + after)
