"""Posts to a server that is not the Connector, as a webhook needs them."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.transport import Request, Transport
from compass_sidecar.errors import ConnectorError, ConnectorUnavailable, ConnectorUntrusted, UnusableURL
from tests.support.authority import NOW, Authority
from tests.support.scripted_server import ConnectProxy, ScriptedServer, endless, reply, server_context

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
AUTHORITY = Authority.create("Webhook CA")
Make = Callable[..., Transport]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made = []

    def transport(*, trusted: bytes = AUTHORITY.pem, proxy: str | None = None) -> Transport:
        ca_file = tmp_path / "ca.crt"
        ca_file.write_bytes(trusted)
        made.append(
            Transport(
                anchors=Anchors("COMPASS_NOTIFY_WEBHOOK_CA_FILE", ca_file),
                proxy_for=lambda _url: proxy,
                timeout=timedelta(seconds=5),
                now=lambda: NOW,
                schemes=("https", "http"),
            )
        )
        return made[-1]

    yield transport
    for each in made:
        await each.aclose()


async def failure(transport: Transport, url: str) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await transport.deliver(Request(url, b"{}"))
    return caught.value


@pytest.mark.parametrize(
    "answer", [reply(status=204), reply(b"\x1f", headers={"Content-Encoding": "gzip"}), endless]
)
async def test_any_2xx_is_a_delivery_whatever_its_body(make: Make, answer: bytes) -> None:
    with ScriptedServer(server_context(AUTHORITY, HOST), answer) as server:
        await make().deliver(Request(server.url, b'{"event":1}', headers={"Compass-Signature": "sha256=0"}))
        (request,) = server.requests
        assert request.json == {"event": 1}
        assert request.headers["compass-signature"] == "sha256=0"


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_any_other_status_is_named(make: Make, status: int) -> None:
    with ScriptedServer(server_context(AUTHORITY, HOST), reply(status=status)) as server:
        error = await failure(make(), server.url)
        assert error.detail == f"{HOST}:{server.port} answered with status {status}"


async def test_an_untrusted_server_is_told_with_the_variable_of_this_transport(make: Make) -> None:
    with ScriptedServer(server_context(AUTHORITY, HOST), reply()) as server:
        error = await failure(make(trusted=Authority.create("Other CA").pem), server.url)
    assert isinstance(error, ConnectorUntrusted)
    assert "none of the authorities in COMPASS_NOTIFY_WEBHOOK_CA_FILE (" in error.detail


async def test_a_url_that_can_never_be_called_is_told_as_such(make: Make) -> None:
    assert isinstance(await failure(make(), "http://xn--a/hook?secret"), UnusableURL)


async def test_a_name_that_is_not_known_is_told_without_the_rest_of_the_url(make: Make) -> None:
    error = await failure(make(), "http://nowhere.invalid/hook?hunter2")
    assert isinstance(error, ConnectorUnavailable)
    assert "no answer from nowhere.invalid: its name cannot be resolved" in error.detail
    assert "hunter2" not in error.detail


async def test_a_post_goes_through_the_proxy(make: Make) -> None:
    with ConnectProxy() as proxy, ScriptedServer(server_context(AUTHORITY, HOST), reply()) as server:
        await make(proxy=f"http://{HOST}:{proxy.port}").deliver(Request(server.url, b"{}"))
        assert [request.target for request in proxy.requests] == [f"{HOST}:{server.port}"]


async def test_a_plain_post_is_forwarded_by_the_proxy(make: Make) -> None:
    with ConnectProxy(refusal=reply(status=204)) as proxy:
        await make(proxy=f"http://{HOST}:{proxy.port}").deliver(Request("http://app.test/hook", b"{}"))
        assert [request.target for request in proxy.requests] == ["http://app.test/hook"]
