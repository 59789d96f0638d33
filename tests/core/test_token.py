"""A one-time token is taken in each of its forms, and nothing of a token is shown."""

import base64
import hashlib
import json
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.core.token import OneTimeToken, parse_token
from compass_sidecar.errors import RequestRefused

URL = "https://compass-gateway.example.com/connector/graphql"
LEGACY = "https://adapter-gateway.example.com/v1/applications/signingRequests/info"
OTHER = "https://other.example.com/connector/graphql"
VALUE = base64.urlsafe_b64encode(bytes(range(64))).decode()
VISIBLE = string.digits + string.ascii_letters + string.punctuation


def as_json(*, alphabet: str = "+/", **content: object) -> str:
    return base64.b64encode(json.dumps(content).encode(), altchars=alphabet.encode()).decode()


def refusal(text: str, url: str | None = URL) -> str:
    with pytest.raises(RequestRefused) as caught:
        parse_token(text, url)
    return caught.value.detail


# --- the forms

# What the Director answers in `raw`.
RAW = json.dumps({"token": VALUE, "connectorURL": URL, "used": False, "scenario_groups": ["Büro »1« ???>>>"]})
JSON_FORM = as_json(token=VALUE, connectorURL=URL)
MARKED = as_json(token=VALUE, connectorURL=URL, note="»»»???>>>")  # has `+` and `/`


@pytest.mark.parametrize(
    ("text", "url", "used"),
    [
        (VALUE, URL, URL),
        (f"  {VALUE}\r\n", URL, URL),
        (JSON_FORM, None, URL),
        (JSON_FORM.rstrip("="), None, URL),
        (MARKED, None, URL),
        (MARKED.replace("+", "-").replace("/", "_"), None, URL),
        ("\n".join(JSON_FORM[at : at + 76] for at in range(0, len(JSON_FORM), 76)), None, URL),
        (JSON_FORM, OTHER, OTHER),
        (as_json(token=VALUE), URL, URL),
        (as_json(token=VALUE, connectorURL=None), URL, URL),
        (as_json(token=VALUE, connectorURL="", further=[1]), URL, URL),
        (f"{URL}?token={VALUE}", None, URL),
        (f"{URL}?token={VALUE}".replace("=", "%3D").replace("token%3D", "token="), None, URL),
        (f"{URL}?a=b&token={VALUE}&c=d#fragment", None, URL),
        (f"{URL}?token={VALUE}", OTHER, OTHER),
        (VALUE, f"{URL}?token=another#fragment", URL),
        (RAW, None, URL),
        (f"\ufeff{RAW}\r\n", None, URL),
        (json.dumps(json.loads(RAW), indent=2, ensure_ascii=False), OTHER, OTHER),
        (f"\ufeff{VALUE}\n", URL, URL),
        (f"{LEGACY}?token={VALUE}", URL, URL),
    ],
)
def test_a_token_is_read_in_each_of_its_forms(text: str, url: str | None, used: str) -> None:
    assert parse_token(text, url) == OneTimeToken(VALUE, used)


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "abc.def-ghi_jkl~",
        base64.b64encode(b"not JSON").decode(),
        base64.b64encode(b"[1, 2]").decode(),
        base64.b64encode(b'"text"').decode(),
        base64.b64encode(b"[" * 9000).decode()[:4096],
        base64.b64encode(b"9" * 3000).decode()[:4096],
        base64.b64encode(bytes(range(128, 256))).decode(),
        "=" * 8,
        "http:/no-url",
        "x" * 4096,
    ],
)
def test_what_is_no_json_and_no_url_is_a_token_as_it_is(value: str) -> None:
    assert parse_token(value, URL) == OneTimeToken(value, URL)


@given(st.text(VISIBLE, min_size=1, max_size=200).filter(lambda value: "://" not in value))
def test_every_visible_token_is_the_same_in_json_and_alone(value: str) -> None:
    assert parse_token(as_json(token=value, connectorURL=URL), None) == OneTimeToken(value, URL)


# --- what is refused


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\ufeff",
        "x\0y",
        "\x1b[31m",
        "tökén",
        "\ud800",
        "\N{ZERO WIDTH SPACE}x",
        "x" * 4097,
        "x" * 16385,
    ]
    + [as_json(token=value, connectorURL=URL) for value in ("", " ", "a b", "a\nb", "a\x00b", "é", "\ud800")]
    + [f"{URL}?token={value}" for value in ("a+b", "a%20b", "a%0d%0aX:y", "a%00b", "%ff", "%C3%A9")],
    ids=ascii,
)
def test_a_token_that_no_header_can_carry_is_refused(text: str) -> None:
    assert "empty, too long or not" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        URL,
        f"{URL}?",
        f"{URL}?token=",
        f"{URL}?token",
        f"{URL}?Token={VALUE}",
        f"{URL}#token={VALUE}",
        f"{URL}?token={VALUE}&token={VALUE}",
        "://",
    ],
)
def test_a_url_without_one_token_is_refused(text: str) -> None:
    assert refusal(text, None) == refusal(text) == "the token is a URL without one `token` in its query"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"connectorURL": URL},
        {"token": None, "connectorURL": URL},
        {"token": 12345678, "connectorURL": URL},
        {"token": [VALUE], "connectorURL": URL},
        {"token": VALUE, "connectorURL": [URL]},
        {"token": VALUE, "connectorURL": 1},
    ],
)
def test_json_with_something_else_in_it_is_refused(content: dict[str, object]) -> None:
    refused = "the token is JSON without `token` and `connectorURL`"
    assert refusal(as_json(**content)) == refusal(json.dumps(content)) == refused


@pytest.mark.parametrize("text", ["{", f"{{{VALUE}}}", RAW[:-1], RAW + RAW, '{"token":' * 1500])
def test_what_begins_like_json_and_is_none_is_never_sent(text: str) -> None:
    assert refusal(text) == "the token is JSON without `token` and `connectorURL`"


@pytest.mark.parametrize("text", [f'"{VALUE}"', f"'{VALUE}'\n", f"'{RAW}'", f'"{URL}?token={VALUE}"'])
def test_a_token_in_quotes_is_refused_saying_so(text: str) -> None:
    assert "quotation mark" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        as_json(token=VALUE),
        as_json(token=VALUE, connectorURL=""),
        f"{LEGACY}?token={VALUE}",
        f"https://adapter.example/V1/Applications/signingRequests/info/?token={VALUE}",
    ],
)
@pytest.mark.parametrize("url", [None, ""])
def test_a_token_that_brings_no_url_needs_one(text: str, url: str | None) -> None:
    assert "set COMPASS_TOKEN_CONNECTOR_URL" in refusal(text, url)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (VALUE, LEGACY),
        (RAW, f"{LEGACY}?token={VALUE}"),
        (json.dumps({"token": VALUE, "connectorURL": LEGACY}), None),
        (as_json(token=VALUE, connectorURL=LEGACY), None),
    ],
)
def test_the_rest_adapter_is_no_connector(text: str, url: str | None) -> None:
    assert "REST adapter" in refusal(text, url)


BAD_URLS = [
    "http://compass.example.com/graphql",
    "ftp://compass.example.com/",
    "compass.example.com/graphql",
    "//compass.example.com/",
    "https://",
    "https:///graphql",
    "https://:443/",
    "https://compass.example.com:0/",
    "https://compass.example.com:65536/",
    "https://compass.example.com:x/",
    "https://[::1/",
    f"https://[::1?token={VALUE}",
    "https://xn--a/",
    "https://user@compass.example.com/",
    "https://user:secret@compass.example.com/",
    "https://@compass.example.com/",
    "https://compass.example.com\\@evil.example/",
    "https://compass.example.com\\evil/",
    "https://compass.example.com/ x",
    "https://compass.example.com/\n",
    " https://compass.example.com/",
    "https://compass.example.com/\x00",
    "https://compass.exam\tple.com/",
    "https://compass.example.com/\N{NO-BREAK SPACE}",
    "https://\ud800.example.com/",
    "https://a\N{CARE OF}b.example.com/",  # becomes `a/b` when normalised
    "javascript:alert(1)",
]


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_a_url_must_be_https_with_a_host_and_without_a_user(url: str) -> None:
    why = refusal(VALUE, url)
    assert why.startswith("the Token-Secured Connector URL ")
    assert refusal(as_json(token=VALUE, connectorURL=url), None) == why
    assert "secret" not in why


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("https://c", "https://c"),
        ("HTTPS://C:8443/Path/", "https://C:8443/Path/"),
        ("https://[::1]:8443/graphql", "https://[::1]:8443/graphql"),
        ("https://127.0.0.1/graphql?q#f", "https://127.0.0.1/graphql"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_good_url_is_kept_without_query_and_fragment(url: str, used: str) -> None:
    assert parse_token(VALUE, url).url == used


HOSTILE = st.text() | st.text(VISIBLE + " \n") | st.text("htps:/[]@?#&=token%0a.é\\ ")


@given(
    HOSTILE
    | st.builds(lambda token, url: as_json(token=token, connectorURL=url), HOSTILE, HOSTILE)
    | st.builds(lambda token, url: json.dumps({"token": token, "connectorURL": url}), HOSTILE, HOSTILE)
    | st.builds("{}?token={}".format, st.just(URL) | st.just(LEGACY) | HOSTILE, HOSTILE)
    | st.binary().map(lambda data: base64.b64encode(data).decode()),
    st.none() | st.just(URL) | HOSTILE,
)
def test_every_text_is_refused_or_a_token_that_can_be_sent(text: str, url: str | None) -> None:
    try:
        token = parse_token(text, url)
    except RequestRefused:
        return
    assert set(token.value) <= set(VISIBLE)
    assert token.value
    assert token.url.startswith("https://")
    assert not set("?#@\\ \n") & set(token.url.partition("://")[2].partition("/")[0])
    assert len(token.digest) == 64


# --- what is shown


def test_the_digest_is_that_of_the_token_alone() -> None:
    digest = hashlib.sha256(VALUE.encode()).hexdigest()
    assert parse_token(VALUE, URL).digest == digest
    assert parse_token(f"{OTHER}?token={VALUE}", None).digest == digest
    assert parse_token(JSON_FORM, None).digest == digest
    assert parse_token(VALUE + "x", URL).digest != digest


@pytest.mark.parametrize("text", [VALUE, RAW, JSON_FORM, f"{URL}?token={VALUE}"])
def test_no_repr_shows_the_token_in_any_form(text: str) -> None:
    token = parse_token(text, URL)
    assert token.value == VALUE
    for shown in (repr(token), str(token), f"{token}", repr([token]), repr({token: 1})):
        assert VALUE not in shown
        assert text not in shown


def test_the_url_of_a_token_does_not_carry_it() -> None:
    assert VALUE not in parse_token(f"{URL}?token={VALUE}", None).url
    assert VALUE not in parse_token(VALUE, f"{URL}?token={VALUE}").url


@pytest.mark.parametrize(
    "text",
    [
        f"{VALUE} é",
        f'"{VALUE}"',
        RAW[:-1],
        f"{LEGACY}?token={VALUE}",
        f"{URL}?token={VALUE}&token={VALUE}",
        f"http://c?token={VALUE}",
        f"https://[{VALUE}",
        f"https://{VALUE}@c/?token={VALUE}",
        f"https://c℅{VALUE}/?token={VALUE}",
        as_json(token=VALUE, connectorURL="http://c"),
        as_json(token=[VALUE], connectorURL=URL),
    ],
    ids=[
        "not ASCII",
        "quoted",
        "half JSON",
        "adapter",
        "twice",
        "http",
        "brackets",
        "user",
        "normalised",
        "JSON with http",
        "JSON list",
    ],
)
def test_no_refusal_repeats_the_token(text: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse_token(text, None)
    for shown in (str(caught.value), repr(caught.value), repr(pickle.dumps(caught.value.args))):
        assert VALUE not in shown
