"""Whatever a client writes into its request: an answer of the API, never a mistake of ours."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from compass_sidecar.api.application import create_api
from compass_sidecar.api.guard import Access
from compass_sidecar.core.catalogue import CODES
from tests.api.fakes import FakeSidecar, generation
from tests.fuzz.mutations import mutated

SIDECAR = FakeSidecar(generation())
API = create_api(SIDECAR, Access(hostname="box", allowed_hosts=("sidecar.example",)))
STATUSES = {200, 202, 304, *(kind.status for kind in CODES.values())} - {500}
PATHS = (
    "/certificate",
    "/certificate/chain.pem",
    "/status",
    "/readyz",
    "/",
    "/openapi.json",
    "/certificate/",
)
HEADERS = {
    b"host": (b"localhost:8080", b"[::1]:8080", b"127.0.0.1", b"sidecar.example."),
    b"accept": (b"application/pem-certificate-chain;q=0.5, */*;q=0.1", b"application/json"),
    b"if-none-match": (b'"' + b"a" * 64 + b'", W/"b"', b"*"),
    b"prefer": (b"respond-async, wait=0", b'wait="0"; x=y'),
    b"origin": (b"http://localhost:8080", b"null"),
    b"sec-fetch-site": (b"same-origin", b"cross-site"),
    b"authorization": (b"Bearer 0123456789abcdef",),
    b"content-length": (b"0",),
    b"content-type": (b"application/json; charset=utf-8",),
}


def fields() -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """Header fields such as a server passes on: no line breaks, no NUL."""
    one = st.sampled_from(sorted(HEADERS)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.sampled_from(HEADERS[name]).flatmap(lambda v: mutated(v, edits=3))
        )
    )
    return st.lists(one, max_size=5).map(
        lambda found: [(n, v.replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")) for n, v in found]
    )


async def ask(
    method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[int, dict[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 4711),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    await API(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"])


@settings(deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    st.sampled_from(PATHS),
    mutated(b"wait=0s&verbose", edits=3).filter(
        lambda query: not query.startswith(b"wait=") or b"=0" in query
    ),
    st.booleans(),
    fields(),
)
def test_every_request_gets_an_answer_of_the_api(
    method: str, path: str, query: bytes, with_host: bool, headers: list[tuple[bytes, bytes]]
) -> None:
    if with_host:
        headers = [(b"host", b"localhost"), *(each for each in headers if each[0] != b"host")]
    status, answered = asyncio.run(ask(method, path, query, headers))
    assert status in STATUSES
    if status >= 400:
        assert answered[b"content-type"] == b"application/problem+json"


@settings(deadline=None)
@given(fields())
def test_a_strange_host_never_gets_a_chain(headers: list[tuple[bytes, bytes]]) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    status, _ = asyncio.run(ask("GET", "/certificate/chain.pem", b"", headers))
    if len(hosts) != 1:
        assert status == 400
    elif status in (200, 304):
        bare = hosts[0].rpartition(b":")[0] if b":" in hosts[0] and not hosts[0].endswith(b"]") else hosts[0]
        name = bare.lower().removesuffix(b".")
        assert name in (b"localhost", b"box", b"sidecar.example") or set(name) <= set(b"0123456789abcdef.:[]")
