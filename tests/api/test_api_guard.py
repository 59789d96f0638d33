"""Who is refused, over real sockets: section 4 of the interface."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.api.application import create_api
from compass_sidecar.api.guard import Access, Guard, is_loopback
from compass_sidecar.api.problems import Refusal
from compass_sidecar.api.server import listen_unix
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import BEARER, TOKEN, Running, Wire, ask, client_for, local_client, serving, serving_on

pytestmark = pytest.mark.anyio
OPEN = Access(allowed_hosts=("compass.example.org",), hostname="Box")
LOCKED = Access(api_token=TOKEN, expose_private_key=True)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Running]:
    async with serving(FakeSidecar(generation()), OPEN, metrics=lambda: b"metric 1\n") as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: localhost"], 200),
        (["Host: localhost:8080"], 200),
        (["Host: LOCALHOST.:1"], 200),
        (["Host: 127.0.0.1:8080"], 200),
        (["Host: 10.1.2.3"], 200),
        (["Host: 127.0.0.1.:8080"], 200),
        (["Host: [::1]:8080"], 200),
        (["Host: [::ffff:10.1.2.3]"], 200),
        (["Host: box"], 200),
        (["Host: compass.EXAMPLE.org.:99"], 200),
        (["Host: evil.example.org"], 421),
        (["Host: localhost.evil.example.org"], 421),
        (["Host: localhost.."], 421),
        (["Host: 127.0.0.1.nip.io"], 421),
        (["Host: 0x7f.1"], 421),
        ([], 400),
        (["Host:"], 400),
        (["Host: ::1"], 400),
        (["Host: [127.0.0.1]"], 400),
        (["Host: [localhost]"], 400),
        (["Host: localhost, localhost"], 400),
        (["Host: user@localhost"], 400),
        (["Host: localhost:80:80"], 400),
        (["Host: localhost/x"], 400),
        (["Host: localhost", "Host: localhost"], 400),
        (["Host: localhost", "Host: evil.example.org"], 400),
    ],
)
async def test_host_must_be_an_address_or_a_name_of_ours(
    server: Running, headers: list[str], status: int
) -> None:
    for path in ("/status", "/certificate", "/certificate/chain.pem", "/nothing"):
        reply = await ask(server.port, f"GET {path} HTTP/1.1", *headers)
        assert reply.status == (404 if status == 200 and path == "/nothing" else status)
        if status != 200:
            assert reply.json()["code"] == {400: "bad-request", 421: "misdirected"}[status]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Origin: http://localhost:8080"], 200),
        (["Origin: HTTP://LocalHost:8080"], 200),
        (["Sec-Fetch-Site: same-origin", "Origin: http://localhost:8080"], 200),
        (["Sec-Fetch-Site: none"], 200),
        (["Origin: https://localhost:8080"], 403),
        (["Origin: http://localhost"], 403),
        (["Origin: http://localhost:8081"], 403),
        (["Origin: http://evil.example.org"], 403),
        (["Origin: null"], 403),
        (["Origin:"], 403),
        (["Origin: http://localhost:8080", "Origin: null"], 403),
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: Cross-Site", "Origin: http://localhost:8080"], 403),
        (["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"], 403),
    ],
)
async def test_other_sites_are_refused(server: Running, headers: list[str], status: int) -> None:
    for start in ("GET /status", "POST /renew", "GET /certificate"):
        reply = await ask(server.port, f"{start} HTTP/1.1", "Host: localhost:8080", *headers)
        assert reply.status == status
        assert status == 200 or reply.json()["code"] == "cross-origin"


NAVIGATION = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_link_on_another_site_leads_to_the_pages_and_to_nothing_else(
    server: Running, site: str
) -> None:
    async def status(start: str, *headers: str) -> int:
        lines = ("Host: localhost", f"Sec-Fetch-Site: {site}", *headers)
        return (await ask(server.port, f"{start} HTTP/1.1", *lines)).status

    assert await status("GET /", *NAVIGATION) == 200
    for path in ("/status", "/certificate", "/certificate/chain.pem", "/openapi.json", "/nothing"):
        assert await status(f"GET {path}", *NAVIGATION) == 403
    for start in ("POST /", "HEAD /", "POST /renew"):
        assert await status(start, *NAVIGATION) == 403
    for other in (
        NAVIGATION[:1],
        NAVIGATION[1:],
        ["Sec-Fetch-Mode: cors", NAVIGATION[1]],
        ["Sec-Fetch-Mode: no-cors", NAVIGATION[1]],
        [NAVIGATION[0], "Sec-Fetch-Dest: iframe"],
        [NAVIGATION[0], "Sec-Fetch-Dest: object"],
        [*NAVIGATION, "Sec-Fetch-Dest: iframe"],
        [*NAVIGATION, "Origin: http://evil.example.org"],
    ):
        assert await status("GET /", *other) == 403


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics", "/readyz?verbose"])
async def test_health_and_metrics_answer_whoever_asks_by_whatever_name(server: Running, path: str) -> None:
    for port in (server.port, server.health_port):
        for headers in (["Host: 10.244.0.7:9090"], ["Host: pod.example.org"], [], ["Host: a", "Host: b"]):
            assert (await ask(port, f"GET {path} HTTP/1.1", *headers)).status == 200


@pytest.mark.parametrize(
    "start", ["GET /status", "GET /certificate", "POST /renew", "GET /", "GET /openapi.json"]
)
async def test_the_second_listener_has_nothing_else(server: Running, start: str) -> None:
    reply = await ask(server.health_port, f"{start} HTTP/1.1", "Host: localhost")
    assert (reply.status, reply.json()["code"]) == (404, "not-found")


async def test_a_body_of_64_kib_is_read_and_a_byte_more_is_not(server: Running) -> None:
    for size, status in ((65_536, 200), (65_537, 413)):
        head = ("POST /renew HTTP/1.1", "Host: localhost")
        plain = await ask(server.port, *head, f"Content-Length: {size}", body=b"x" * size)
        pieces = b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(size // 4096))
        rest = b"%x\r\n%b\r\n" % (size % 4096, b"x" * (size % 4096)) if size % 4096 else b""
        chunked = await ask(
            server.port, *head, "Transfer-Encoding: chunked", body=pieces + rest + b"0\r\n\r\n"
        )
        assert [plain.status, chunked.status] == [status, status]
        assert status == 200 or chunked.json()["code"] == "too-large"


@pytest.mark.parametrize("start", ["GET /livez", "GET /metrics", "GET /status", "GET /", "POST /nothing"])
async def test_no_path_takes_a_larger_body(server: Running, start: str) -> None:
    for length in (f"Content-Length: {65_537}", "Transfer-Encoding: chunked"):
        body = b"10001\r\n" + b"x" * 65_537 + b"\r\n0\r\n\r\n" if "chunked" in length else b""
        reply = await ask(server.port, f"{start} HTTP/1.1", "Host: localhost", length, body=body)
        assert (reply.status, reply.json()["code"]) == (413, "too-large")


async def test_a_body_that_is_only_promised_is_refused_at_once(server: Running) -> None:
    wire = await Wire.open(server.port)
    reply = await wire.ask("POST /connect HTTP/1.1", "Host: localhost", "Content-Length: 70000")
    assert reply.status == 413
    await wire.close()


async def test_no_answer_carries_a_banner_and_each_forbids_sniffing(server: Running) -> None:
    for path in ("/livez", "/status", "/certificate", "/nothing", "/metrics", "/openapi.json"):
        reply = await ask(server.port, f"GET {path} HTTP/1.1", "Host: localhost")
        assert "server" not in reply.headers
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "date" in reply.headers


HOST_CHARACTERS = "abcLOCALHOST019.-_:[]@/%, "


@given(st.text(HOST_CHARACTERS, max_size=30))
def test_no_host_but_ours_is_ever_served(host: str) -> None:
    names = {"localhost", "box", "compass.example.org"}
    scope = {"path": "/status", "method": "GET", "server": ("127.0.0.1", 80), "headers": []}
    with suppress(Refusal):
        Guard(OPEN).check(scope, {b"host": host.encode()})
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        numeric = set(name) <= set("0123456789abcABC.:[]")
        assert name.lower().removesuffix(".") in names or numeric


# --- the token, loopback and the Unix socket -----------------------------------------------------

GUARDED = [
    ("POST", "/renew", None),
    ("POST", "/connect", {"token": "t", "connector_url": "https://c.example.org"}),
    ("POST", "/revoke", {"confirm": generation().chain.fingerprint}),
    ("GET", "/certificate/bundle.pem", None),
    ("GET", "/certificate/bundle.p12", None),
]


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
    ],
)
async def test_without_the_right_token_nothing_happens(
    method: str, path: str, body: object, headers: dict[str, str]
) -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar, LOCKED) as client:
        reply = await client.request(method, path, headers=headers, json=body)
    assert (reply.status_code, reply.json()["code"]) == (401, "token-invalid")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in reply.text
    assert (sidecar.attempts, sidecar.connections, sidecar.revoked) == (0, [], [])


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_right_token_opens(method: str, path: str, body: object, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}", "Compass-Bundle-Password": "secret"}
    async with local_client(FakeSidecar(generation()), LOCKED) as client:
        assert (await client.request(method, path, headers=headers, json=body)).status_code == 200


@pytest.mark.parametrize("path", ["/connect", "/revoke"])
async def test_without_a_configured_token_changes_are_not_for_tcp(path: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        reply = await client.post(path, json={})
    assert (reply.status_code, reply.json()["code"]) == (403, "token-required")
    assert "COMPASS_API_TOKEN" in reply.json()["detail"]


STRANGE = [
    {"Forwarded": "for=192.0.2.1"},
    {"X-Forwarded-For": "192.0.2.1"},
    {"X-Forwarded-Proto": "http"},
    {"x-envoy-external-address": "192.0.2.1"},
    {"Via": "1.1 proxy"},
]


@pytest.mark.parametrize("headers", STRANGE)
async def test_what_a_proxy_relays_is_not_from_loopback(server: Running, headers: dict[str, str]) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    reply = await ask(server.port, "POST /renew HTTP/1.1", "Host: localhost", *lines)
    assert (reply.status, reply.json()["code"]) == (403, "token-required")
    async with local_client(FakeSidecar(generation()), LOCKED) as client:
        bundle = await client.get("/certificate/bundle.pem", headers=BEARER | headers)
    assert (bundle.status_code, bundle.json()["code"]) == (403, "loopback-required")


@pytest.mark.parametrize(
    ("client", "server", "near"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.5", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("127.0.0.1", "192.0.2.2", False),
        ("192.0.2.1", "127.0.0.1", False),
        ("::ffff:192.0.2.1", "::1", False),
        ("localhost", "localhost", False),
    ],
)
def test_loopback_is_both_ends(client: str, server: str, near: bool) -> None:
    assert is_loopback({"client": (client, 1), "server": (server, 2), "headers": []}) is near


def test_an_end_that_is_not_known_is_not_loopback() -> None:
    assert not is_loopback({"client": None, "server": ("127.0.0.1", 1), "headers": []})
    assert not is_loopback({"client": ("127.0.0.1", 1), "server": None, "headers": []})


async def test_renewing_needs_no_token_from_loopback_and_does_from_a_network() -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar) as near:
        assert (await near.post("/renew")).status_code == 200
    async with client_for(create_api(sidecar, Access()), peer="192.0.2.7", base_url="http://10.1.1.1") as far:
        reply = await far.post("/renew")
        assert (reply.status_code, reply.json()["code"]) == (403, "token-required")
        assert (await far.get("/certificate")).status_code == 200
        assert (await far.get("/status")).status_code == 200
    async with client_for(create_api(sidecar, LOCKED), peer="192.0.2.7", base_url="http://10.1.1.1") as far:
        assert (await far.post("/renew", headers=BEARER)).status_code == 200


async def test_a_private_key_never_leaves_over_a_network_even_with_the_token() -> None:
    api = create_api(FakeSidecar(generation()), LOCKED)
    async with client_for(api, peer="192.0.2.7", base_url="http://10.1.1.1") as far:
        for path in ("/certificate/bundle.pem", "/certificate/bundle.p12"):
            reply = await far.get(path, headers=BEARER | {"Compass-Bundle-Password": "x"})
            assert (reply.status_code, reply.json()["code"]) == (403, "loopback-required")
            assert b"PRIVATE KEY" not in reply.content


async def test_bundles_are_not_there_unless_they_are_exposed() -> None:
    async with local_client(FakeSidecar(generation()), Access(api_token=TOKEN)) as client:
        for path in ("/certificate/bundle.pem", "/certificate/bundle.p12"):
            assert (await client.get(path, headers=BEARER)).json()["code"] == "not-found"


def body_of(content: object) -> bytes:
    return json.dumps(content).encode() if content is not None else b""


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_the_unix_socket_opens_all_where_no_token_is_set(tmp_path: Path, token: str | None) -> None:
    """Reading the key needs the socket or the token; changing something needs the token if one is set."""
    sidecar, path = FakeSidecar(generation()), tmp_path / "socket"
    access = Access(api_token=token, unix_socket=True, expose_private_key=True)
    changing = 200 if token is None else 401
    with listen_unix(path) as sockets:
        async with serving_on(sockets, sidecar, access):

            async def status(start: str, content: object = None, *headers: str) -> int:
                body, wire = body_of(content), Wire(*await asyncio.open_unix_connection(path))
                lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
                # No Host at all: it says nothing here.
                reply = await wire.ask(f"{start} HTTP/1.1", *lines, body=body)
                await wire.close()
                return reply.status

            assert await status("GET /status") == 200
            assert await status("GET /status", None, "Host: evil.example.org") == 200
            assert await status("GET /status", None, "Host: a", "Origin: http://b") == 403
            assert await status("GET /certificate/bundle.pem") == 200
            revocation = {"confirm": generation().chain.fingerprint}
            for start, content in (
                ("POST /connect", {"token": "t"}),
                ("POST /revoke", revocation),
                ("POST /renew", None),
            ):
                before = (sidecar.attempts, list(sidecar.revoked))
                assert await status(start, content, "Authorization: Bearer wrong") == changing
                assert (before == (sidecar.attempts, sidecar.revoked)) == (changing == 401)
                sidecar.use(generation())
            if token is not None:
                with_token = f"Authorization: Bearer {token}"
                assert await status("POST /revoke", revocation, with_token) == 200


async def test_the_log_says_who_asked_for_a_connection_or_a_revocation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compass_sidecar.api")
    calls = [("/connect", {"token": "secret-one-time-token"}), ("/revoke", {"confirm": "0" * 64})]
    sidecar, path = FakeSidecar(generation()), tmp_path / "socket"
    with listen_unix(path) as sockets:
        async with serving_on(sockets, sidecar, Access(unix_socket=True)):
            wire = Wire(*await asyncio.open_unix_connection(path))
            for start, content in calls:
                body = body_of(content)
                lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
                await wire.ask(f"POST {start} HTTP/1.1", *lines, body=body)
            await wire.close()
    async with local_client(sidecar, LOCKED) as client:
        for start, content in calls:
            await client.post(start, json=content, headers=BEARER)
            await client.post(start, json=content)  # refused: nothing was asked for
    lines_ = [vars(record) for record in caplog.records if record.msg.endswith("-requested")]
    assert [line["msg"] for line in lines_] == ["connect-requested", "revoke-requested"] * 2
    for line in lines_[:2]:
        assert line["by"] == f"unix socket, pid {os.getpid()}, uid {os.getuid()}, gid {os.getgid()}"
    assert {line["by"] for line in lines_[2:]} == {"127.0.0.1, with the token"}
    assert lines_[1]["fingerprint"] == "0" * 64
    assert "secret-one-time-token" not in str(lines_)


async def test_tcp_is_not_taken_for_the_unix_socket() -> None:
    access = Access(unix_socket=True, expose_private_key=True)
    async with local_client(FakeSidecar(generation()), access) as client:
        assert (await client.get("/certificate/bundle.pem")).json()["code"] == "token-required"


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/jsonp", "multipart/form-data"])
async def test_json_comes_as_json(content_type: str) -> None:
    async with local_client(FakeSidecar(generation()), LOCKED) as client:
        headers = BEARER | {"Content-Type": content_type}
        reply = await client.post("/connect", headers=headers, content=b'{"token": "t"}')
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported-media-type")


def test_the_token_is_not_in_the_repr() -> None:
    assert TOKEN not in repr(LOCKED)
