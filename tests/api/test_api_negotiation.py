"""What clients say that they want, in the words of RFC 9110 and RFC 7240."""

import string
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.api.negotiation import (
    JSON,
    MEDIA_TYPES,
    PEM_CHAIN,
    PEM_FILE,
    choose,
    entity_tags,
    gather,
    matches,
    parse_prefer,
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"", JSON),
        (b"   ", JSON),
        (b"*/*", JSON),
        (b"application/*", JSON),
        (b"application/json", JSON),
        (b"APPLICATION/JSON", JSON),
        (b"application/json; charset=utf-8", JSON),
        (b"application/pem-certificate-chain", PEM_CHAIN),
        (b"application/x-pem-file", PEM_FILE),
        (b"application/x-pem-file, application/pem-certificate-chain", PEM_CHAIN),
        (b"application/json;q=0.5, application/x-pem-file", PEM_FILE),
        (b"application/json;q=0.5, */*;q=0.1", JSON),
        (b"application/json;q=0, */*", PEM_CHAIN),
        (b"application/json;q=0.0, application/pem-certificate-chain;q=0, */*;q=0.001", PEM_FILE),
        (b"application/*;q=0.2, application/x-pem-file;q=0.3", PEM_FILE),
        (b"text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (b"application/json ; q=0.1 , application/x-pem-file ; q=0.2", PEM_FILE),
        (b"application/json;q=1.5, application/x-pem-file;q=0.1", PEM_FILE),  # not a weight: passed over
        (b"text/plain", None),
        (b"text/*", None),
        (b"*/*;q=0", None),
        (b"application/json;q=0", None),
        (b"nonsense", None),
        (b",,;;,=", None),
    ],
)
def test_accept_chooses_the_form_the_client_likes_best(accept: bytes, chosen: str | None) -> None:
    assert choose(accept) == chosen


WEIGHTS = st.integers(0, 1000)
RANGES = st.sampled_from([*MEDIA_TYPES, "application/*", "*/*", "text/plain"])


@given(st.dictionaries(RANGES, WEIGHTS, min_size=1), st.randoms())
def test_the_most_specific_range_decides_whatever_the_order(weights: dict[str, int], random: object) -> None:
    items = [f"{name};q={weight / 1000:.3f}" for name, weight in weights.items()]
    random.shuffle(items)  # type: ignore[attr-defined]

    def wanted(media_type: str) -> int:
        return next((weights[name] for name in (media_type, "application/*", "*/*") if name in weights), 0)

    chosen = choose(", ".join(items).encode())
    best = max(map(wanted, MEDIA_TYPES))
    assert chosen == next((name for name in MEDIA_TYPES if wanted(name) == best > 0), None)


@given(st.binary(max_size=2000))
def test_no_bytes_in_a_header_are_a_mistake_of_ours(value: bytes) -> None:
    assert choose(value) in {*MEDIA_TYPES, None}
    assert isinstance(matches(b'"x"', value), bool)
    assert timedelta(0) <= parse_prefer(value).patience <= timedelta(seconds=300)


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (None, False),
        (b"", False),
        (b'"a"', True),
        (b'W/"a"', True),
        (b'"b", "a"', True),
        (b'"b","a","c"', True),
        (b'"b" , W/"a"', True),
        (b"*", True),
        (b" * ", True),
        (b'"b"', False),
        (b"a", False),
        (b'"a', False),
        (b'"aa"', False),
        (b'"b", *', False),
        (b'"A"', False),
    ],
)
def test_if_none_match_is_a_list_or_a_star_and_compares_weakly(header: bytes | None, same: bool) -> None:
    assert matches(b'"a"', header) is same


ETAGS = st.text(string.ascii_letters + string.digits + "!#-.,:;", max_size=12)


@given(st.lists(st.tuples(ETAGS, st.booleans()), max_size=8))
def test_every_tag_of_a_list_is_found(tags: list[tuple[str, bool]]) -> None:
    header = ", ".join(f'{"W/" if weak else ""}"{tag}"' for tag, weak in tags).encode()
    assert entity_tags(header) == {f'"{tag}"'.encode() for tag, _ in tags}


@pytest.mark.parametrize(
    ("prefer", "seconds", "applied"),
    [
        (b"", 60, ""),
        (b"respond-async", 0, "respond-async"),
        (b"Respond-Async", 0, "respond-async"),
        (b"wait=10", 10, "wait=10"),
        (b'wait="10"', 10, "wait=10"),
        (b"wait = 10", 10, "wait=10"),
        (b"WAIT=10; foo=bar", 10, "wait=10"),
        (b"wait=301", 300, "wait=300"),
        (b"wait=99999999", 300, "wait=300"),
        (b"wait=0", 0, "wait=0"),
        (b"respond-async, wait=5", 5, "respond-async, wait=5"),
        (b"wait=5, wait=7", 5, "wait=5"),
        (b"wait=-1", 60, ""),
        (b"wait=soon", 60, ""),
        (b"wait", 60, ""),
        (b"respond-async=no", 60, ""),
        (b"return=minimal, handling=lenient", 60, ""),
    ],
)
def test_prefer_says_how_long_to_wait(prefer: bytes, seconds: int, applied: str) -> None:
    preference = parse_prefer(prefer)
    assert (preference.patience, preference.applied) == (timedelta(seconds=seconds), applied)


@given(st.integers(0, 10**12), st.booleans(), st.sampled_from(["", ";x=y", " "]))
def test_any_number_of_seconds_is_cut_to_five_minutes(seconds: int, asynchronous: bool, rest: str) -> None:
    prefix = "respond-async, " if asynchronous else ""
    preference = parse_prefer(f"{prefix}wait={seconds}{rest}".encode())
    if seconds < 10**9:
        assert preference.patience == timedelta(seconds=min(seconds, 300))
    else:  # too many digits to be meant
        assert preference.patience == timedelta(seconds=0 if asynchronous else 60)


def test_fields_that_come_twice_are_joined() -> None:
    headers = [(b"accept", b"a/b"), (b"x-other", b"1"), (b"accept", b"c/d")]
    assert gather({"headers": headers}) == {b"accept": b"a/b, c/d"}
