"""The client against real TLS servers: what it sends, what it makes of what comes back, what it leaves."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from compass_sidecar import __version__
from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.connector import OPERATIONS, Connector, Observation
from compass_sidecar.adapters.diagnosis import Circumstances, Step, translate
from compass_sidecar.core.credential import Credential
from compass_sidecar.core.door import ClientPair, Door
from compass_sidecar.core.token import Fate, fate_after
from compass_sidecar.core.url import parse_https
from compass_sidecar.errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    NotRecognised,
    SidecarError,
    StoreDamaged,
    UnexpectedFailure,
)
from tests.support.authority import NOW, Authority, key_pem, rsa_key
from tests.support.scripted_server import (
    ConnectProxy,
    Handler,
    ScriptedServer,
    SilentListener,
    alert,
    cut_short,
    dripping,
    endless,
    graphql,
    hang_up,
    reply,
    reset,
    server_context,
    silent,
)

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
DATE = datetime(2026, 11, 24, 10, tzinfo=UTC)
SERVERS = Authority.create("Server CA")  # as in production, another one than
CLIENTS = Authority.create("Compass CA")
TOKEN = base64.urlsafe_b64encode(bytes(64)).decode()
BOTH_VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS1.2", "TLS1.3"]
)
PLANE = {"directorURL": "https://mtls.example.org/director", "certificateSecuredConnectorURL": None}
CONFIGURATION = {"certificateSigningRequestInfo": {"subject": "CN=x"}, "managementPlaneInfo": PLANE}
OK = graphql("Query")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: they raise different errors for the same trouble, and production runs on uvloop."""
    return "asyncio", {"use_uvloop": request.param}


def told(times: Iterator[datetime | Exception]) -> datetime:
    time = next(times)
    if isinstance(time, Exception):
        raise time
    return time


@dataclass
class World:
    """A folder with a CA file and client pairs, and connectors that report into `observed`."""

    folder: Path
    observed: list[Observation] = field(default_factory=list)
    connectors: list[Connector] = field(default_factory=list)
    trusted: bytes = SERVERS.pem

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    def connector(
        self,
        *,
        ca_file: Path | None = None,
        proxy: str | None = None,
        timeout: float = 5,
        now: Callable[[], datetime] = lambda: NOW,
    ) -> Connector:
        if ca_file is None:
            ca_file = self.ca_file
            ca_file.write_bytes(self.trusted)
        connector = Connector(
            anchors=Anchors("COMPASS_CONNECTOR_CA_FILE", ca_file),
            proxy_for=lambda _url: proxy,
            timeout=timedelta(seconds=timeout),
            observe=self.observed.append,
            now=now,
        )
        self.connectors.append(connector)
        return connector

    def pair(self, credential: Credential) -> ClientPair:
        fingerprint = credential.chain.fingerprint
        certificate_file, key_file = self.folder / f"{fingerprint}.crt", self.folder / f"{fingerprint}.key"
        certificate_file.write_bytes(credential.chain.pem)
        key_file.write_bytes(credential.key_pem)
        return ClientPair(fingerprint, certificate_file, key_file)


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    world = World(tmp_path)
    yield world
    for connector in world.connectors:
        await connector.aclose()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Without client certificates; answers everything well."""
    with ScriptedServer(server_context(SERVERS, HOST), OK) as server:
        yield server


@pytest.fixture
def mutual() -> Iterator[ScriptedServer]:
    with ScriptedServer(server_context(SERVERS, HOST, clients=CLIENTS), OK) as server:
        yield server


def door(
    server: ScriptedServer, *, host: str = HOST, pair: ClientPair | None = None, token: str | None = None
) -> Door:
    return Door(server.url_of(host), "sidecar_1", pair, token)


async def failure(call: Any) -> SidecarError:
    with pytest.raises(SidecarError) as caught:
        await call
    return caught.value


async def idle(server: ScriptedServer | ConnectProxy) -> bool:
    return await asyncio.to_thread(server.idle)


# --- the empty 400


EMPTY_400 = {
    "the certificate may be revoked": ("configuration", "sign", "confirm", "revoke"),
    "the new certificate may not be accepted yet": ("probe",),
    "the one-time token may be unknown, used or expired": ("configuration with a token", "sign with a token"),
}


@pytest.mark.parametrize("operation", [each for operations in EMPTY_400.values() for each in operations])
async def test_an_empty_400_has_the_possible_causes_of_what_was_presented(
    world: World, mutual: ScriptedServer, server: ScriptedServer, operation: str
) -> None:
    connector, (name, _, token) = world.connector(), operation.partition(" ")
    at = door(server, token=TOKEN) if token else door(mutual, pair=world.pair(CLIENTS.credential()))
    server.answers = mutual.answers = [reply(status=400)]
    error = await failure(getattr(connector, name)(at, *([b"csr"] if name == "sign" else [])))
    assert isinstance(error, NotRecognised)
    assert "or the Director behind the Connector may have failed" in error.detail
    for cause, operations in EMPTY_400.items():
        assert (cause in error.detail) is (operation in operations)
    assert ("revoked" in error.detail) is (operation in EMPTY_400["the certificate may be revoked"])


# --- what is known of a token after a failed call


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (reply(status=307, headers={"Location": "https://portal.example/"}), Fate.LEFT),
        (reply(b"<html>log in</html>"), Fate.LEFT),
        (reply(b"RBAC: access denied", status=403), Fate.LEFT),
        (reply(b'{"error":{"code":404}}', status=404), Fate.LEFT),
        (reply(status=429), Fate.LEFT),
        (reply(b"upstream connect error", status=503), Fate.LEFT),
        (reply(status=400), Fate.UNKNOWN),
        (reply(b'{"error":{"code":500}}', status=500), Fate.UNKNOWN),
        (reply(b"upstream request timeout", status=504), Fate.UNKNOWN),
        (reset, Fate.UNKNOWN),
        (hang_up, Fate.UNKNOWN),
        (cut_short, Fate.UNKNOWN),
        (silent, Fate.UNKNOWN),
        (reply(b'{"errors":[{"message":"transport not supported"}]}', status=400), Fate.SPENT),
        (reply(b"Method Not Allowed", status=405), Fate.SPENT),
        (reply(b"GET requests only allow query operations", status=406), Fate.SPENT),
        (reply(b'{"errors":[{"message":"Unknown field"}]}', status=422), Fate.SPENT),
        (reply(status=502), Fate.SPENT),
        (reply(b'{"Message":"operation has timed out"}', status=503), Fate.SPENT),
        (reply(b'{"errors":[{"message":"Failed to get one-time token"}]}'), Fate.SPENT),
        (reply(b'{"errors":[{"message":"Failed to authenticate request"}]}'), Fate.SPENT),
        (reply(b'{"data":null}'), Fate.SPENT),
        (graphql({"certificateSigningRequestInfo": None}), Fate.SPENT),
    ],
)
async def test_an_answer_tells_what_became_of_the_token(
    world: World, answer: bytes | Handler, fate: Fate, version: ssl.TLSVersion
) -> None:
    with ScriptedServer(server_context(SERVERS, HOST, version=version), answer) as server:
        error = await failure(world.connector(timeout=0.5).configuration(door(server, token=TOKEN)))
    assert fate_after(error) is fate


@pytest.mark.parametrize("greet", [hang_up, reset, silent, alert(40), alert(80)])
async def test_a_token_is_left_by_a_connection_that_came_to_no_call(world: World, greet: Handler) -> None:
    with ScriptedServer(None, greet=greet) as server:
        error = await failure(world.connector(timeout=0.5).configuration(door(server, token=TOKEN)))
    assert fate_after(error) is Fate.LEFT


async def test_a_token_is_left_by_every_failure_of_tls(world: World, mutual: ScriptedServer) -> None:
    wrong_door = await failure(world.connector().configuration(door(mutual, token=TOKEN)))
    with ScriptedServer(server_context(CLIENTS, HOST), OK) as stranger:
        untrusted = await failure(world.connector().configuration(door(stranger, token=TOKEN)))
    assert [fate_after(each) for each in (wrong_door, untrusted)] == [Fate.LEFT] * 2


async def test_a_token_is_left_where_nothing_listens(world: World, server: ScriptedServer) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    nowhere = Door(f"https://{HOST}:{port}/g", "x", token=TOKEN)
    proxied = world.connector(proxy=f"http://{HOST}:{port}").configuration(door(server, token=TOKEN))
    for call in (world.connector().configuration(nowhere), proxied):
        assert fate_after(await failure(call)) is Fate.LEFT


# --- what is sent


async def test_configuration_asks_for_no_token_on_the_certificate_secured_door(
    world: World, mutual: ScriptedServer
) -> None:
    mutual.answers = [graphql(CONFIGURATION)]
    pair = world.pair(CLIENTS.credential())
    read = await world.connector().configuration(door(mutual, pair=pair))
    assert (read.subject, read.director_url, read.connector_url) == ("CN=x", PLANE["directorURL"], None)
    assert (read.token, read.date) == (None, DATE)
    assert mutual.requests[0].json == {
        "query": "query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } "
        "managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }",
        "variables": {},
    }
    assert "connector-token" not in mutual.requests[0].headers


async def test_configuration_with_a_token_asks_for_the_next_one(world: World, server: ScriptedServer) -> None:
    server.answers = [graphql({**CONFIGURATION, "token": {"token": "next"}})]
    read = await world.connector().configuration(door(server, token=TOKEN))
    assert read.token == "next"
    assert server.requests[0].headers["connector-token"] == TOKEN
    assert "configuration { token { token } certificateSigningRequestInfo" in server.requests[0].json["query"]


async def test_sign_sends_the_csr_as_one_line_of_base64(world: World, server: ScriptedServer) -> None:
    chain = CLIENTS.credential().chain
    leaf = chain.leaf.public_bytes(Encoding.PEM)
    fields = {"certificateChain": chain.pem, "caCertificate": CLIENTS.pem, "clientCertificate": leaf}
    server.answers = [graphql({name: base64.b64encode(pem).decode() for name, pem in fields.items()})]
    csr = b"-----BEGIN CERTIFICATE REQUEST-----\n" + b"x" * 4000
    signed = await world.connector().sign(door(server, token=TOKEN), csr)
    assert (signed.leaf_pem, signed.chain_pem, signed.ca_pem) == (leaf, chain.pem, CLIENTS.pem)
    assert signed.date == DATE
    sent = server.requests[0].json
    assert sent["query"] == (
        "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) "
        "{ certificateChain caCertificate clientCertificate } }"
    )
    assert sent["variables"] == {"csr": base64.b64encode(csr).decode()}


async def test_probe_runs_no_resolver_and_returns_the_date(world: World, server: ScriptedServer) -> None:
    assert await world.connector().probe(door(server)) == DATE
    assert server.requests[0].json["query"] == "query { __typename }"


async def test_revoke_is_a_mutation_that_is_confirmed(world: World, server: ScriptedServer) -> None:
    server.answers = [graphql(True), graphql(False)]
    connector = world.connector()
    await connector.revoke(door(server))
    assert server.requests[0].json["query"] == "mutation { result: revokeCertificate }"
    assert isinstance(await failure(connector.revoke(door(server))), ConnectorProtocol)


async def test_the_headers_are_these_and_no_others(world: World, server: ScriptedServer) -> None:
    server.answers = [reply(b'{"data":{"result":1}}', headers={"Set-Cookie": "a=b; Path=/"}), OK]
    connector = world.connector()
    await connector.probe(door(server))
    await connector.probe(door(server))
    for request in server.requests:
        assert (request.method, request.target) == ("POST", "/g")
        assert dict(request.headers) == {
            "host": f"{HOST}:{server.port}",
            "accept": "application/json",
            "accept-encoding": "identity",
            "connection": "keep-alive",
            "user-agent": f"compass-sidecar/{__version__}",
            "content-type": "application/json",
            "content-length": str(len(request.body)),
            "x-request-id": "sidecar_1",
            "x-correlation-id": "sidecar_1",
        }


# --- connections


async def test_calls_with_one_identity_share_a_connection(world: World, mutual: ScriptedServer) -> None:
    connector, pair = world.connector(), world.pair(CLIENTS.credential())
    for _ in range(3):
        await connector.probe(door(mutual, pair=pair))
    assert mutual.connections == 1


@BOTH_VERSIONS
async def test_after_a_renewal_the_new_certificate_is_presented(
    world: World, version: ssl.TLSVersion
) -> None:
    old, new = CLIENTS.credential(number=1), CLIENTS.credential(number=2)
    connector = world.connector()
    with ScriptedServer(server_context(SERVERS, HOST, clients=CLIENTS, version=version), OK) as server:
        for credential in (old, new, old, new):
            await connector.probe(door(server, pair=world.pair(credential)))
        presented = [request.certificate for request in server.requests]
        assert presented == [c.chain.leaf.public_bytes(Encoding.DER) for c in (old, new, old, new)]
        assert server.connections == 2


async def test_retire_closes_all_but_what_is_kept(
    world: World, mutual: ScriptedServer, server: ScriptedServer
) -> None:
    connector = world.connector()
    old, new = (world.pair(CLIENTS.credential(number=number)) for number in (1, 2))
    await connector.probe(door(server))
    await connector.probe(door(mutual, pair=old))
    await connector.retire(frozenset({old.fingerprint}))
    assert await idle(server)
    await connector.probe(door(mutual, pair=new))
    await connector.retire(frozenset({new.fingerprint}))
    await connector.probe(door(mutual, pair=new))
    assert mutual.connections == 2
    await connector.aclose()
    assert await idle(mutual)


async def test_retire_lets_a_call_under_way_end(world: World, server: ScriptedServer) -> None:
    connector = world.connector()
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def late(connection: socket.socket) -> None:
        loop.call_soon_threadsafe(arrived.set)
        connection.recv(0)
        connection.sendall(OK)

    server.answers = [late]
    probe = asyncio.create_task(connector.probe(door(server)))
    await arrived.wait()
    await connector.retire(frozenset())
    assert await probe == DATE
    assert await idle(server)


async def test_a_server_that_closed_meanwhile_costs_nothing(world: World, server: ScriptedServer) -> None:
    def answer_and_close(connection: socket.socket) -> None:
        connection.sendall(OK)

    server.answers = [answer_and_close, OK]
    connector = world.connector()
    await connector.probe(door(server))
    assert await idle(server)
    await connector.probe(door(server))
    assert server.connections == 2


async def test_simultaneous_calls_build_one_pool(world: World, server: ScriptedServer) -> None:
    connector = world.connector()
    await asyncio.gather(*(connector.probe(door(server)) for _ in range(5)))
    assert len(connector._transport._pools) == 1


# --- trust in the server


async def test_a_server_by_another_authority_is_untrusted(world: World, server: ScriptedServer) -> None:
    world.trusted = CLIENTS.pem
    error = await failure(world.connector().probe(door(server)))
    assert isinstance(error, ConnectorUntrusted)
    assert "unable to get local issuer certificate" in error.detail
    assert f"none of the authorities in COMPASS_CONNECTOR_CA_FILE ({world.ca_file})" in error.detail
    assert server.requests == []


async def test_without_a_ca_file_the_system_decides(world: World, server: ScriptedServer) -> None:
    connector = Connector(
        anchors=Anchors("COMPASS_CONNECTOR_CA_FILE", None),
        proxy_for=lambda _url: None,
        timeout=timedelta(seconds=5),
        observe=world.observed.append,
        now=lambda: NOW,
    )
    error = await failure(connector.probe(door(server)))
    assert isinstance(error, ConnectorUntrusted)
    assert "none of the authorities that this system trusts" in error.detail
    await connector.aclose()


@pytest.mark.parametrize(
    ("context", "host", "reason"),
    [
        (partial(server_context, SERVERS, "elsewhere.example.org"), HOST, "IP address mismatch"),
        (partial(server_context, SERVERS, HOST), "localhost", "Hostname mismatch"),
        (partial(server_context, SERVERS, HOST, lifetime=timedelta(minutes=1)), HOST, "expired"),
        (partial(server_context, SERVERS, HOST, not_before=NOW + timedelta(days=1)), HOST, "not yet valid"),
    ],
)
@BOTH_VERSIONS
async def test_a_wrong_server_certificate_is_untrusted(
    world: World, context: Callable[..., ssl.SSLContext], host: str, reason: str, version: ssl.TLSVersion
) -> None:
    with ScriptedServer(context(version=version), OK) as server:
        error = await failure(world.connector().probe(door(server, host=host, token=TOKEN)))
        assert isinstance(error, ConnectorUntrusted)
        assert reason in error.detail
        assert server.requests == []


async def test_an_intermediate_or_the_server_s_own_certificate_is_an_anchor_too(world: World) -> None:
    intermediate = SERVERS.intermediate()
    world.trusted = intermediate.pem
    with ScriptedServer(server_context(intermediate, HOST), OK) as server:
        await world.connector().probe(door(server))


async def test_a_ca_file_replaced_while_running_counts_at_once(world: World, server: ScriptedServer) -> None:
    connector = world.connector()
    await connector.probe(door(server))
    replacement = world.folder / "ca.new"
    replacement.write_bytes(CLIENTS.pem)
    replacement.replace(world.ca_file)
    assert isinstance(await failure(connector.probe(door(server))), ConnectorUntrusted)
    assert await idle(server)
    world.ca_file.write_bytes(CLIENTS.pem + SERVERS.pem)
    await connector.probe(door(server))


def indented(pem: bytes) -> bytes:
    return b"".join(b"    " + line for line in pem.splitlines(keepends=True))


CA_FILES: dict[str, bytes] = {
    "indented": indented(SERVERS.pem),
    "joined": CLIENTS.pem.rstrip() + SERVERS.pem.rstrip(),
    "with Windows line ends": SERVERS.pem.replace(b"\n", b"\r\n"),
    "with a byte order mark": b"\xef\xbb\xbf" + SERVERS.pem,
    "in UTF-16": SERVERS.pem.decode().encode("utf-16"),
    "with comments": b"# G\xc3\xbcltig\n\n" + SERVERS.pem + b"\n# end\n",
    "in base64": base64.b64encode(SERVERS.pem),
    "with escaped line ends": SERVERS.pem.replace(b"\n", b"\\n"),
    "in DER": SERVERS.certificate.public_bytes(Encoding.DER),
    "twice": SERVERS.pem * 2,
    "beside a damaged one": CLIENTS.pem[:100] + b"\n-----END CERTIFICATE-----\n" + SERVERS.pem,
}


@pytest.mark.parametrize("form", CA_FILES)
async def test_a_ca_file_is_read_as_kindly_as_a_credential(
    world: World, server: ScriptedServer, form: str
) -> None:
    world.trusted = CA_FILES[form]
    await world.connector().probe(door(server))


@pytest.mark.parametrize("broken", ["missing", "empty", "a folder"])
async def test_a_ca_file_that_breaks_while_running_leaves_the_last_anchors_in_use(
    world: World, server: ScriptedServer, broken: str
) -> None:
    connector = world.connector()
    await connector.probe(door(server))
    world.ca_file.unlink()
    if broken == "empty":
        world.ca_file.touch()
    elif broken == "a folder":
        world.ca_file.mkdir()
    await connector.probe(door(server))


@pytest.mark.parametrize("content", [b"", b"no PEM", key_pem(rsa_key()), SERVERS.pem[:200]])
async def test_a_ca_file_without_a_certificate_is_named(
    world: World, server: ScriptedServer, content: bytes
) -> None:
    world.trusted = content
    error = await failure(world.connector().probe(door(server)))
    assert isinstance(error, ConnectorUntrusted)
    assert f"COMPASS_CONNECTOR_CA_FILE: {world.ca_file} cannot be used: " in error.detail


async def test_a_missing_ca_file_is_named(world: World, server: ScriptedServer) -> None:
    error = await failure(world.connector(ca_file=world.folder / "nowhere").probe(door(server)))
    assert isinstance(error, ConnectorUntrusted)
    assert "nowhere cannot be used: no such file or directory" in error.detail
    assert isinstance(
        await failure(world.connector(ca_file=world.folder).probe(door(server))), ConnectorUntrusted
    )


# --- our certificate


STRANGERS = Authority.create("Stranger CA")
REFUSED = {
    "certificate required": None,
    "certificate expired": CLIENTS.credential(not_before=NOW - timedelta(days=100)),
    "bad certificate": CLIENTS.credential(not_before=NOW + timedelta(days=1)),
    "unknown ca": STRANGERS.credential(),
}


@BOTH_VERSIONS
@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_certificate_is_told_by_its_alert(
    world: World, version: ssl.TLSVersion, name: str
) -> None:
    credential = REFUSED[name]
    pair = world.pair(credential) if credential else None
    with ScriptedServer(server_context(SERVERS, HOST, clients=CLIENTS, version=version), OK) as server:
        error = await failure(world.connector().probe(door(server, pair=pair)))
        assert server.requests == []
        assert await idle(server)
    if pair is None and version is ssl.TLSVersion.TLSv1_2:
        assert isinstance(error, ConnectorProtocol)
        assert "alert `handshake failure`" in error.detail
    else:
        assert isinstance(error, ConnectorUnauthenticated)
        assert f"alert `{name}`" in error.detail


ALERTS = {
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    48: "unknown ca",
    49: "access denied",
    51: "decrypt error",
    116: "certificate required",
}


@pytest.mark.parametrize("code", ALERTS)
async def test_each_alert_on_our_certificate_is_named(world: World, code: int) -> None:
    with ScriptedServer(None, greet=alert(code)) as server:
        pair = world.pair(CLIENTS.credential())
        error = await failure(world.connector().probe(door(server, pair=pair)))
        assert isinstance(error, ConnectorUnauthenticated)
        assert f"alert `{ALERTS[code]}`: " in error.detail


@pytest.mark.parametrize(
    ("code", "kind"), [(70, ConnectorProtocol), (80, ConnectorUnavailable), (112, ConnectorProtocol)]
)
async def test_other_alerts_are_not_about_our_certificate(
    world: World, code: int, kind: type[ConnectorError]
) -> None:
    with ScriptedServer(None, greet=alert(code)) as server:
        assert type(await failure(world.connector().probe(door(server)))) is kind


@pytest.mark.parametrize("broken", ["missing", "empty", "foreign key", "encrypted key"])
async def test_a_pair_that_cannot_be_loaded_is_damage_to_the_store(
    world: World, mutual: ScriptedServer, broken: str
) -> None:
    pair = world.pair(CLIENTS.credential())
    contents = {
        "empty": b"",
        "foreign key": key_pem(rsa_key(7)),
        "encrypted key": key_pem(rsa_key(), passphrase=b"secret"),
    }
    if broken == "missing":
        pair.key_file.unlink()
    else:
        pair.key_file.write_bytes(contents[broken])
    error = await failure(world.connector().probe(door(mutual, pair=pair)))
    assert isinstance(error, StoreDamaged)
    assert str(pair.key_file) in error.detail
    assert world.observed[0].outcome == "store-damaged"


# --- trouble on the way


async def test_a_name_that_does_not_resolve_is_named(world: World) -> None:
    error = await failure(world.connector().probe(Door("https://nowhere.invalid/g", "x")))
    assert isinstance(error, ConnectorUnavailable)
    assert "no answer from nowhere.invalid: its name cannot be resolved" in error.detail


@pytest.mark.parametrize("host", [HOST, "localhost"])
async def test_a_refused_connection_is_unavailable(world: World, host: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    error = await failure(world.connector().probe(Door(f"https://{host}:{port}/g", "x")))
    assert isinstance(error, ConnectorUnavailable)
    assert f"no answer from {host}:{port}: Connection refused: nothing listens there" in error.detail
    assert world.observed[0].step is Step.CONNECT


def plain_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    silent(connection)


@pytest.mark.parametrize(
    ("greet", "kind"),
    [(plain_http, ConnectorProtocol), (hang_up, ConnectorUnavailable), (reset, ConnectorUnavailable)],
)
async def test_a_port_without_tls(world: World, greet: Handler, kind: type[ConnectorError]) -> None:
    with ScriptedServer(None, greet=greet) as server:
        assert type(await failure(world.connector().probe(door(server)))) is kind


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (hang_up, ConnectorUnavailable),
        (reset, ConnectorUnavailable),
        (cut_short, ConnectorUnavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ConnectorProtocol),
        (reply(headers={"Content-Length": "-1"}), ConnectorProtocol),
        (reply(headers={"X": "y" * 200_000}), ConnectorProtocol),
        (reply(status=302, headers={"Location": "https://127.0.0.1/"}), ConnectorProtocol),
        (reply(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), ConnectorProtocol),
        (reply(status=400), NotRecognised),
        (reply(status=503, headers={"Retry-After": "7"}), ConnectorUnavailable),
        (endless, ConnectorProtocol),
    ],
)
async def test_a_bad_answer_is_an_error_of_the_tree(
    world: World, answer: bytes | Handler, kind: type[ConnectorError], version: ssl.TLSVersion
) -> None:
    with ScriptedServer(server_context(SERVERS, HOST, version=version), answer) as server:
        connector = world.connector()
        assert type(await failure(connector.probe(door(server)))) is kind
        assert len(server.requests) == 1
        await connector.aclose()
        assert await idle(server)


async def test_retry_after_comes_through(world: World, server: ScriptedServer) -> None:
    server.answers = [reply(status=429, headers={"Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT"})]
    error = await failure(world.connector().probe(door(server)))
    assert isinstance(error, ConnectorUnavailable)
    assert error.retry_after == timedelta(seconds=30)


async def test_a_body_of_a_mebibyte_is_read_and_no_more(world: World, server: ScriptedServer) -> None:
    body = b'{"data":{"result":"Query"}}'
    server.answers = [reply(body.ljust(1024 * 1024)), reply(body.ljust(1024 * 1024 + 1))]
    connector = world.connector()
    await connector.probe(door(server))
    assert "longer than 1048576 bytes" in (await failure(connector.probe(door(server)))).detail


async def test_an_answer_in_chunks_is_read(world: World, server: ScriptedServer) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"data":{"result":1}}') + b"0\r\n\r\n"
    server.answers = [reply(headers={"Content-Length": "", "Transfer-Encoding": "chunked"}) + chunks]
    await world.connector().probe(door(server))


@pytest.mark.parametrize(
    ("greet", "answer"), [(silent, OK), (None, silent), (None, dripping)], ids=["handshake", "header", "body"]
)
async def test_one_limit_holds_for_the_whole_call(
    world: World, greet: Handler | None, answer: bytes | Handler
) -> None:
    with ScriptedServer(server_context(SERVERS, HOST), answer, greet=greet) as server:
        error = await failure(world.connector(timeout=0.2).probe(door(server)))
        assert isinstance(error, ConnectorTimeout)
        assert f"{HOST}:{server.port}" in error.detail
        assert 0.15 < world.observed[0].seconds < 2
        assert await idle(server)


SLOW = {
    Step.CONNECT: "no connection to",
    Step.PROXY: "no tunnel to",
    Step.TLS: "no TLS with",
    Step.CALL: "no complete answer from",
}


@pytest.mark.parametrize("step", SLOW)
@pytest.mark.parametrize("tunnelled", [False, True])
async def test_a_timeout_says_what_was_waited_for(world: World, step: Step, *, tunnelled: bool) -> None:
    with (
        ScriptedServer(
            server_context(SERVERS, HOST), silent, greet=silent if step is Step.TLS else None
        ) as server,
        ConnectProxy() as proxy,
        SilentListener(full=step is Step.CONNECT) as mute,
    ):
        if step is Step.PROXY or (tunnelled and step is Step.CONNECT):
            through = f"http://{HOST}:{mute.port}"
        else:
            through = f"http://{HOST}:{proxy.port}" if tunnelled else None
        target = door(server)
        if step is Step.CONNECT and not tunnelled:
            target = Door(f"https://{HOST}:{mute.port}/g", "x")
        error = await failure(world.connector(timeout=0.3, proxy=through).probe(target))
    assert isinstance(error, ConnectorTimeout)
    assert error.detail.startswith(SLOW[step])
    assert "within 0.3 s" in error.detail
    assert world.observed[0].step is step


async def test_a_connection_that_is_used_again_is_past_its_proxy(
    world: World, server: ScriptedServer
) -> None:
    server.answers = [OK, reply(status=503)]
    with ConnectProxy() as proxy:
        connector = world.connector(proxy=f"http://{HOST}:{proxy.port}")
        await connector.probe(door(server))
        await failure(connector.probe(door(server)))
    assert [observed.step for observed in world.observed] == [Step.CALL, Step.CALL]


@pytest.mark.parametrize(
    ("greet", "answer"), [(silent, OK), (None, silent), (None, dripping)], ids=["handshake", "header", "body"]
)
@pytest.mark.parametrize("tunnelled", [False, True])
async def test_a_cancelled_call_leaves_no_connection(
    world: World, greet: Handler | None, answer: bytes | Handler, *, tunnelled: bool
) -> None:
    with (
        ScriptedServer(server_context(SERVERS, HOST), answer, greet=greet) as server,
        ConnectProxy() as proxy,
    ):
        connector = world.connector(proxy=f"http://{HOST}:{proxy.port}" if tunnelled else None)
        call = asyncio.create_task(connector.probe(door(server)))
        while not (server.connections if greet else server.requests):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not await asyncio.to_thread(server.idle, within=0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await idle(server)
        assert await idle(proxy)
        assert connector._transport._pools == []
        assert world.observed == []


async def test_a_call_after_a_failed_one_is_good(world: World, server: ScriptedServer) -> None:
    server.answers = [reset, hang_up, endless, OK]
    connector = world.connector()
    for _ in range(3):
        await failure(connector.probe(door(server)))
    await connector.probe(door(server))


async def test_nothing_is_sent_twice(world: World, server: ScriptedServer) -> None:
    server.answers = [OK, hang_up, OK]
    connector = world.connector()
    await connector.probe(door(server, token=TOKEN))
    assert isinstance(await failure(connector.sign(door(server, token=TOKEN), b"csr")), ConnectorUnavailable)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/g",
        "https://user:hunter2@127.0.0.1:{port}/g",
        "https://",
        "https://[::1/g",
        "//127.0.0.1:{port}/g",
        "https://127.0.0.1:{port}/\n",
        "https://" + "x" * 70_000,
    ],
)
async def test_a_url_that_must_not_be_called_is_not(world: World, server: ScriptedServer, url: str) -> None:
    error = await failure(world.connector().probe(Door(url.replace("{port}", str(server.port)), "x")))
    assert isinstance(error, ConnectorProtocol)
    assert "hunter2" not in error.detail
    assert server.connections == 0


@pytest.mark.parametrize("host", ["x" * 64 + ".example.org", "a..b", "ü" * 70])
async def test_a_host_name_that_cannot_be_is_an_error_of_the_tree(world: World, host: str) -> None:
    assert isinstance(await failure(world.connector().probe(Door(f"https://{host}/", "x"))), ConnectorError)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ü"])
async def test_a_token_that_is_none_is_not_sent_and_not_shown(
    world: World, server: ScriptedServer, token: str
) -> None:
    error = await failure(world.connector().configuration(door(server, token=token)))
    assert isinstance(error, ConnectorRejected)
    assert server.connections == 0
    assert error.__cause__ is None


# --- proxies


async def test_a_proxy_tunnels_tls_from_end_to_end(world: World, mutual: ScriptedServer) -> None:
    pair = world.pair(CLIENTS.credential())
    with ConnectProxy() as proxy:
        connector = world.connector(proxy=f"http://me:hunter2@{HOST}:{proxy.port}")
        await connector.probe(door(mutual, pair=pair))
        await connector.probe(door(mutual, pair=pair))
        assert [request.target for request in proxy.requests] == [f"{HOST}:{mutual.port}"]
        basic = base64.b64encode(b"me:hunter2").decode()
        assert proxy.requests[0].headers["proxy-authorization"] == f"Basic {basic}"
        assert "x-request-id" not in proxy.requests[0].headers
        assert "proxy-authorization" not in mutual.requests[0].headers
        assert mutual.requests[0].certificate is not None
        await connector.aclose()
        assert await idle(proxy)


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_is_named_without_its_password(
    world: World, server: ScriptedServer, status: int
) -> None:
    with ConnectProxy(refusal=reply(status=status)) as proxy:
        connector = world.connector(proxy=f"http://me:hunter2@{HOST}:{proxy.port}")
        error = await failure(connector.probe(door(server)))
        assert isinstance(error, ConnectorUnavailable)
        assert f"through the proxy {HOST}:{proxy.port}" in error.detail
        assert f"the proxy answered {status} Scripted: " in error.detail
        assert world.observed[0].step is Step.PROXY
        assert "hunter2" not in everything(error)
        assert await idle(proxy)


async def test_a_refusal_of_our_certificate_behind_a_proxy_is_told_by_its_alert(
    world: World, mutual: ScriptedServer
) -> None:
    with ConnectProxy() as proxy:
        connector = world.connector(proxy=f"http://{HOST}:{proxy.port}")
        pair = world.pair(STRANGERS.credential())
        error = await failure(connector.probe(door(mutual, pair=pair)))
        assert isinstance(error, ConnectorUnauthenticated)
        assert await idle(proxy)


@pytest.mark.parametrize(
    "proxy", ["socks5://me:hunter2@x:1", "ftp://me:hunter2@x", "x:1", "http://me:hunter2@", "http://["]
)
async def test_a_proxy_url_that_cannot_be_used_is_said_without_its_password(
    world: World, server: ScriptedServer, proxy: str
) -> None:
    error = await failure(world.connector(proxy=proxy).probe(door(server)))
    assert isinstance(error, ConnectorUnavailable)
    assert "proxy" in error.detail
    assert "hunter2" not in everything(error)


async def test_a_dead_proxy_is_unavailable(world: World, server: ScriptedServer) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    error = await failure(world.connector(proxy=f"http://me:hunter2@{HOST}:{port}").probe(door(server)))
    assert isinstance(error, ConnectorUnavailable)
    assert f"no answer from the proxy {HOST}:{port} on the way to" in error.detail
    assert "Connection refused" in error.detail
    assert "hunter2" not in everything(error)


async def test_an_https_proxy_gets_neither_our_trust_nor_our_certificate(
    world: World, mutual: ScriptedServer
) -> None:
    pair = world.pair(CLIENTS.credential())
    proxy = f"https://{HOST}:{mutual.port}"
    error = await failure(world.connector(proxy=proxy).probe(door(mutual, pair=pair)))
    assert isinstance(error, ConnectorUntrusted)
    assert mutual.requests == []


def everything(error: BaseException | None) -> str:
    """What a traceback would show."""
    if error is None:
        return ""
    return f"{error!r} {error} {everything(error.__cause__)} {everything(error.__context__)}"


# --- observations


async def test_a_good_call_is_observed(world: World, server: ScriptedServer) -> None:
    await world.connector().probe(door(server))
    (observed,) = world.observed
    assert (observed.operation, observed.outcome) == ("probe", "ok")
    assert (observed.date, observed.at) == (DATE, NOW)
    assert 0 < observed.seconds < 5


@pytest.mark.parametrize(
    ("answer", "outcome", "date"),
    [
        (reply(status=400), "connector-unauthenticated", DATE),
        (reply(status=503, headers={"Date": ""}), "connector-unavailable", None),
        (reply(b"no JSON"), "connector-protocol", DATE),
        (reply(b'{"errors":[{"message":"CSR: No country provided."}]}'), "connector-rejected", DATE),
        (hang_up, "connector-unavailable", None),
    ],
)
async def test_a_failed_call_is_observed_with_the_answer_s_date(
    world: World, server: ScriptedServer, answer: bytes | Handler, outcome: str, date: datetime | None
) -> None:
    server.answers = [answer]
    await failure(world.connector().sign(door(server), b"csr"))
    (observed,) = world.observed
    assert (observed.operation, observed.outcome, observed.date) == ("sign", outcome, date)


async def test_each_operation_is_observed_under_its_name(world: World, server: ScriptedServer) -> None:
    connector, here = world.connector(), door(server)
    for call in (connector.configuration(here), connector.sign(here, b"csr"), connector.revoke(here)):
        await failure(call)
    await connector.probe(here)
    await connector.confirm(here)
    assert sorted(observed.operation for observed in world.observed) == sorted(OPERATIONS)


# --- the border


KINDS: dict[type[Exception], type[ConnectorError]] = {
    httpx.ConnectTimeout: ConnectorTimeout,
    httpx.ReadTimeout: ConnectorTimeout,
    httpx.WriteTimeout: ConnectorTimeout,
    httpx.PoolTimeout: ConnectorTimeout,
    httpx.ConnectError: ConnectorUnavailable,
    httpx.ReadError: ConnectorUnavailable,
    httpx.WriteError: ConnectorUnavailable,
    httpx.CloseError: ConnectorUnavailable,
    httpx.ProxyError: ConnectorUnavailable,
    httpx.LocalProtocolError: ConnectorProtocol,
    httpx.RemoteProtocolError: ConnectorProtocol,
    httpx.UnsupportedProtocol: ConnectorProtocol,
    httpx.DecodingError: ConnectorProtocol,
    httpx.TooManyRedirects: ConnectorProtocol,
    httpx.InvalidURL: ConnectorProtocol,
    httpx.StreamError: UnexpectedFailure,
    ConnectionResetError: ConnectorUnavailable,
    ssl.SSLError: ConnectorProtocol,
    ssl.SSLCertVerificationError: ConnectorUntrusted,
    ssl.SSLEOFError: ConnectorUnavailable,
    TimeoutError: ConnectorTimeout,
    UnicodeError: ConnectorProtocol,
    MemoryError: ConnectorUnavailable,
    ValueError: UnexpectedFailure,
    KeyError: UnexpectedFailure,
    RuntimeError: UnexpectedFailure,
}


def leaves(kind: type[Exception]) -> set[type[Exception]]:
    below = kind.__subclasses__()
    return {leaf for each in below for leaf in leaves(each)} if below else {kind}


async def test_every_error_of_httpx_is_mapped() -> None:
    assert leaves(httpx.RequestError) | {httpx.InvalidURL} <= KINDS.keys()


def circumstances(**changes: Any) -> Circumstances:
    usual = {"proxy": None, "step": Step.CALL, "limit": timedelta(seconds=5), "now": NOW}
    return Circumstances(**{"target": parse_https("https://host/g"), **usual, **changes})


@pytest.mark.parametrize("kind", KINDS)
async def test_any_exception_becomes_an_error_of_the_tree_and_shows_no_header(kind: type[Exception]) -> None:
    error = translate(kind("Connector-Token: hunter2"), circumstances())
    assert type(error) is KINDS[kind]
    said_by_the_peer = (ssl.SSLError, httpx.ProxyError, httpx.RemoteProtocolError)
    assert "hunter2" not in error.detail or issubclass(kind, said_by_the_peer)


async def test_an_exception_that_is_not_known_is_one_error_with_a_traceback_in_the_log(
    world: World, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    connector = world.connector(now=partial(told, chain([ValueError("a bug")], repeat(NOW))))
    error = await failure(connector.confirm(door(server)))
    assert isinstance(error, UnexpectedFailure)
    assert error.code == "internal-error"
    assert error.detail == f"the call to {HOST}:{server.port} failed: ValueError"
    assert "ValueError: a bug" in caplog.text
    await connector.confirm(door(server))


async def test_a_thread_that_cannot_be_started_is_a_failure_that_passes() -> None:
    error = translate(RuntimeError("can't start new thread"), circumstances())
    assert type(error) is ConnectorUnavailable
    assert "no memory or no thread left" in error.detail


async def test_what_the_caller_was_handling_is_not_part_of_a_call(world: World) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    try:
        raise ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1006)")
    except ssl.SSLError:
        error = await failure(world.connector().probe(Door(f"https://{HOST}:{port}/g", "x")))
    assert type(error) is ConnectorUnavailable
