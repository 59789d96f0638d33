"""One parser decides what can be called, and httpx agrees with it."""

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compass_sidecar.core.url import URL, parse_host, parse_https, parse_proxy, parse_public, parse_url

GOOD = {
    "https://host": ("host", 443, "host"),
    "https://Host.Example:443/p": ("host.example", 443, "host.example"),
    "HTTPS://host.:8443/a?b=c#d": ("host", 8443, "host:8443"),
    "https://[0:0::1]:8443/": ("::1", 8443, "[::1]:8443"),
    "https://127.0.0.1:1/": ("127.0.0.1", 1, "127.0.0.1:1"),
    "https://under_score.example/": ("under_score.example", 443, "under_score.example"),
    "https://xn--bcher-kva.example/": ("xn--bcher-kva.example", 443, "xn--bcher-kva.example"),
    # Not in IDNA 2003, and not in IDNA 2008: a name server may know them all the same.
    "https://xn--strae-oqa.example/": ("xn--strae-oqa.example", 443, "xn--strae-oqa.example"),
    "https://xn--ls8h.example/": ("xn--ls8h.example", 443, "xn--ls8h.example"),
}
NEVER_CALLED = {
    "": "ASCII URL",
    "https://a b/": "spaces",
    "https://a\tb/": "control characters",
    " https://host/": "spaces",
    "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/": "ASCII URL",
    "https://good.example\\@evil.example/": "backslashes",
    "https://host/" + "x" * 2048: "longer than 2048 characters",
    "https://[::1/": "brackets and port",
    "https://host:65536/": "brackets and port",
    "https://host:-1/": "brackets and port",
    "http://host/": "should begin with https://",
    "host.example/path": "should begin with https://",
    "//host/": "should begin with https://",
    "https://host:0/": "should name a host",
    "https:///path": "should name a host",
    "https://:443/": "should name a host",
    "https://a..b/": "should name a host",
    "https://-a/": "should name a host",
    f"https://{'x' * 64}.example/": "should name a host",
    f"https://{'x.' * 127}example/": "should name a host",
    "https://10.0.0.256/": "should name a host",
    "https://10.0.1/": "should name a host",
    "https://[fe80::1%25eth0]/": "should name a host",
    "https://xn--a/": "should name a host",
    "https://xn--/": "should name a host",
    "https://xn--a-/": "should name a host",
    "https://xn--99999999999/": "should name a host",
    "https://gateway.xn--a.example/": "should name a host",
    "https://me:hunter2@host/": "user information",
    "https://@host/": "user information",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_url_that_can_be_called_has_host_and_port(text: str) -> None:
    url = parse_https(text)
    assert (url.scheme, (url.host, url.port, url.where)) == ("https", GOOD[text])


@pytest.mark.parametrize("text", NEVER_CALLED, ids=ascii)
def test_what_can_never_be_called_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=NEVER_CALLED[text]) as caught:
        parse_https(text)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 120


def test_the_bare_url_has_neither_query_nor_fragment() -> None:
    assert parse_https("https://host/path?token=a#b?c").bare == "https://host/path"
    assert parse_https("https://host?a").bare == "https://host"


def test_a_query_is_not_part_of_the_repr() -> None:
    assert "hunter2" not in repr(parse_https("https://host/?token=hunter2"))
    assert "hunter2" not in repr(parse_proxy("me:hunter2@proxy:3128"))


def test_other_schemes_are_for_those_who_name_them() -> None:
    assert parse_public("http://app:8000/hook", "https", "http").port == 8000
    with pytest.raises(ValueError, match="should begin with https:// or http://"):
        parse_public("ftp://app/", "https", "http")


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("proxy:3128", "http://proxy:3128"),
        (" https://proxy/ ", "https://proxy/"),
        ("http://me:p%40w@proxy:3128", "http://me:p%40w@proxy:3128"),
    ],
)
def test_a_proxy_is_written_as_for_curl(text: str, used: str) -> None:
    assert parse_proxy(text).text == used


@pytest.mark.parametrize(
    "text",
    ["", "socks5://proxy:1080", '"http://proxy:3128"', "http://proxy/pac", "http://proxy?x", "http://me:pw@"],
)
def test_a_proxy_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should"):
        parse_proxy(text)


LABELS = st.text("abxn-0_\N{LATIN SMALL LETTER U WITH DIAERESIS}", max_size=9)
AUTHORITIES = st.lists(LABELS | st.just("xn--").flatmap(lambda a: LABELS.map(a.__add__)), max_size=3).map(
    ".".join
) | st.text("0123456789abcdef.:[]%", max_size=20)


@given(
    AUTHORITIES | st.text(),
    st.sampled_from(["", ":", ":0", ":443", ":70000"]),
    st.text("/?#%a\N{SNOWMAN}\\", max_size=4),
)
@example("xn--a", "", "")
@example("xn--ls8h", "", "")
def test_httpx_calls_whatever_is_not_refused(authority: str, port: str, rest: str) -> None:
    try:
        url = parse_url(f"https://{authority}{port}/{rest}", "https")
    except ValueError:
        return
    theirs = httpx.URL(url.text)
    assert (theirs.raw_host.decode().removesuffix("."), theirs.port or 443) in {
        (url.host, url.port),
        (url.parts.hostname, url.port),
    }
    assert parse_host(url.host) == url.host
    assert isinstance(url, URL)
