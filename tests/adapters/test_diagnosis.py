"""Each alert, each fault of a server certificate and each refusal of a proxy has true words."""

import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.connector import Connector
from compass_sidecar.core.door import ClientPair, Door
from compass_sidecar.errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
)
from tests.support.authority import NOW, Authority, PrivateKey, ec_key, key_pem, name, rsa_key
from tests.support.scripted_server import ConnectProxy, ScriptedServer, alert, graphql, reply

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
CLIENTS = Authority.create("Compass CA")
U, P, A = ConnectorUnauthenticated, ConnectorProtocol, ConnectorUnavailable


@dataclass(frozen=True)
class Caller:
    """A connector with a client pair; `trusted` is its CA file."""

    folder: Path
    pair: ClientPair

    async def error(
        self, url: str, *, trusted: bytes = CLIENTS.pem, proxy: str | None = None, operation: str = "confirm"
    ) -> ConnectorError:
        """What a call raises with the pair, or without for `configuration`."""
        ca_file = self.folder / "ca.crt"
        ca_file.write_bytes(trusted)
        connector = Connector(
            anchors=Anchors("COMPASS_CONNECTOR_CA_FILE", ca_file),
            proxy_for=lambda _url: proxy,
            timeout=timedelta(seconds=10),
            observe=lambda _: None,
            now=lambda: NOW,
        )
        pair = None if operation == "configuration" else self.pair
        try:
            with pytest.raises(ConnectorError) as caught:
                await getattr(connector, operation)(Door(url, "id", pair))
        finally:
            await connector.aclose()
        return caught.value


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    credential = CLIENTS.credential()
    pair = ClientPair(credential.chain.fingerprint, tmp_path / "tls.crt", tmp_path / "tls.key")
    pair.certificate_file.write_bytes(credential.chain.pem)
    pair.key_file.write_bytes(credential.key_pem)
    return Caller(tmp_path, pair)


# --- alerts

ALERTS: dict[int, tuple[type[ConnectorError], str]] = {
    10: (P, "`unexpected message`: the two TLS libraries do not understand each other"),
    20: (P, "`bad record mac`: the data was damaged on the way"),
    21: (P, "`decryption failed`: the data was damaged on the way"),
    22: (P, "`record overflow`: the data was damaged on the way"),
    30: (P, "`decompression failure`: the data was damaged on the way"),
    40: (
        U,
        "`handshake failure`: it probably requires a client certificate, and does not accept our certificate",
    ),
    41: (U, "`no certificate`: it requires a client certificate"),
    42: (U, "`bad certificate`: it does not accept our certificate, which may not be valid yet by its clock"),
    43: (U, "`unsupported certificate`: it does not accept certificates of this kind"),
    44: (U, "`certificate revoked`: it regards our certificate as revoked"),
    45: (U, "`certificate expired`: it regards our certificate as expired"),
    46: (U, "`certificate unknown`: it does not accept our certificate, for a reason that it does not give"),
    47: (P, "`illegal parameter`: the two TLS libraries do not understand each other"),
    48: (U, "`unknown ca`: it does not know the CA of our certificate"),
    49: (U, "`access denied`: it recognises our certificate and denies it access"),
    50: (P, "`decode error`: the two TLS libraries do not understand each other"),
    51: (U, "`decrypt error`: it could not verify the signature made with the key of our certificate"),
    60: (P, "`export restriction`: it allows only ciphers that are too weak"),
    70: (P, "`protocol version`: there is no common TLS version"),
    71: (P, "`insufficient security`: it demands stronger ciphers or keys"),
    80: (A, "`internal error`: it failed inside"),
    86: (P, "`inappropriate fallback`: the two TLS libraries do not understand each other"),
    90: (A, "`user cancelled`: it cancelled the handshake"),
    100: (P, "`no renegotiation`: the two TLS libraries do not understand each other"),
    109: (P, "`missing extension`: the two TLS libraries do not understand each other"),
    110: (P, "`unsupported extension`: the two TLS libraries do not understand each other"),
    111: (U, "`certificate unobtainable`: it could not obtain our certificate"),
    112: (P, "`unrecognized name`: it serves no host of this name; check the host in the URL"),
    113: (P, "`bad certificate status response`: only clients have a reason to send this alert"),
    114: (P, "`bad certificate hash value`: only clients have a reason to send this alert"),
    115: (A, "`unknown psk identity`: it no longer knows the session"),
    116: (U, "`certificate required`: it requires a client certificate"),
    120: (P, "`no application protocol`: it does not serve HTTP/1.1"),
}
UNASSIGNED = (P, "ended TLS for a reason without a name, such as an alert of an unassigned number")


@pytest.mark.parametrize("number", [*ALERTS, 99, 119, 255])
async def test_an_alert_of_any_number_has_a_kind_and_a_meaning(caller: Caller, number: int) -> None:
    with ScriptedServer(None, greet=alert(number)) as server:
        error = await caller.error(server.url)
    kind, words = ALERTS.get(number, UNASSIGNED)
    assert type(error) is kind, error.detail
    assert words in error.detail


@pytest.mark.parametrize("number", [number for number, (kind, _) in ALERTS.items() if kind is U])
async def test_an_alert_on_a_new_certificate_says_nothing_of_ours(caller: Caller, number: int) -> None:
    with ScriptedServer(None, greet=alert(number)) as server:
        error = await caller.error(server.url, operation="probe")
    assert "our certificate" not in error.detail


@pytest.mark.parametrize("number", [41, 42, 44, 48, 116])
async def test_without_a_certificate_an_alert_means_the_wrong_connector(caller: Caller, number: int) -> None:
    with ScriptedServer(None, greet=alert(number)) as server:
        error = await caller.error(server.url, operation="configuration")
    assert isinstance(error, ConnectorUnauthenticated)
    assert "it requires a client certificate" in error.detail


# --- server certificates


ROOT = Authority.create("Server CA")
OTHER = Authority.create("Other CA")
HERE = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
ELSEWHERE = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
LOOPBACK = [x509.IPAddress(ip_network("127.0.0.0/8"))]
PRIVATE = [x509.IPAddress(ip_network("10.0.0.0/8"))]


@dataclass(frozen=True)
class Chain:
    """What a server sends, leaf first, and its key."""

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey = field(default_factory=ec_key)

    def context(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # a weak key is the client's affair
        context.minimum_version = context.maximum_version = version
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(pem + key_pem(self.key))
            context.load_cert_chain(file.name)
        return context


def issued(
    issuer: Authority = ROOT,
    *above: Authority,
    key: PrivateKey | None = None,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    names: x509.SubjectAlternativeName = HERE,
    critical: tuple[x509.ExtensionType, ...] = (),
    **dates: Any,
) -> Chain:
    key = key or ec_key()
    extensions = [(names, False), *((extension, True) for extension in critical)]
    leaf = issuer.issue(key=key.public_key(), purposes=(purpose,), extensions=extensions, **dates)
    return Chain((leaf, *(each.certificate for each in above)), key)


def authority(*extensions: x509.ExtensionType) -> Authority:
    """One below ROOT with these critical extensions, and no key identifiers."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=ROOT.certificate.subject,
        subject_name=name("Constrained CA"),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return Authority(builder.sign(ROOT.key, hashes.SHA256()), key, ROOT)


def below(issuer: Authority, **changes: Any) -> Chain:
    return issued(issuer, issuer, **changes)


def self_signed() -> Chain:
    key = ec.generate_private_key(ec.SECP256R1())
    itself = Authority.create("Itself", key=key)
    return Chain((issued(itself, key=key, subject=itself.certificate.subject).certificates[0],), key)


def namesake() -> Chain:
    """By a CA of the same name with another key, and without the identifier that would tell them apart."""
    builder = x509.CertificateBuilder(
        issuer_name=ROOT.certificate.subject,
        subject_name=name("Server"),
        public_key=ec_key().public_key(),
        serial_number=9,
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    ).add_extension(HERE, critical=False)
    return Chain((builder.sign(OTHER.key, hashes.SHA256()),))


CA = x509.BasicConstraints(ca=True, path_length=None)
SHALLOW = authority(x509.BasicConstraints(ca=True, path_length=0))
DEEPER = SHALLOW.intermediate()
PAST = {"not_before": NOW - timedelta(days=9), "lifetime": timedelta(days=1)}
FUTURE = {"not_before": NOW + timedelta(days=1)}
CLOCK = f"this machine's clock says {NOW:%Y-%m-%dT%H:%M:%SZ}; if that is right, the certificate or a CA in"
NONE_OF = "is signed by none of the authorities in COMPASS_CONNECTOR_CA_FILE ("
SERVER_CERTIFICATES: dict[str, tuple[Chain, str]] = {
    "another CA": (issued(OTHER), NONE_OF),
    "no intermediate": (issued(ROOT.intermediate()), NONE_OF),
    "another root": (issued(OTHER, OTHER), "the root of its chain is none of the authorities in"),
    "self-signed": (self_signed(), "it is self-signed, and it is none of the authorities in"),
    "namesake": (namesake(), "was replaced under the same name"),
    "expired": (issued(**PAST), CLOCK),
    "expired CA": (below(ROOT.intermediate(**PAST)), CLOCK),
    "not yet valid": (issued(**FUTURE), CLOCK),
    "CA not yet valid": (below(ROOT.intermediate(**FUTURE)), CLOCK),
    "another host": (issued(names=ELSEWHERE), "it is for another host; check the host in the URL"),
    "purpose": (issued(purpose=ExtendedKeyUsageOID.CLIENT_AUTH), "is not issued for this purpose"),
    "critical extension": (
        issued(critical=(UNKNOWN,)),
        "has a critical extension that OpenSSL does not know",
    ),
    "critical extension of a CA": (below(authority(CA, UNKNOWN)), "has a critical extension"),
    "weak key": (issued(key=rsa_key(9, bits=1024)), "its key is too weak"),
    "weak key of a CA": (below(ROOT.intermediate(key=rsa_key(9, bits=1024))), "has a key that is too weak"),
    "host not permitted": (
        below(authority(CA, x509.NameConstraints(permitted_subtrees=PRIVATE, excluded_subtrees=None))),
        "does not allow this host name (name constraints)",
    ),
    "host excluded": (
        below(authority(CA, x509.NameConstraints(permitted_subtrees=None, excluded_subtrees=LOOPBACK))),
        "excludes this host name (name constraints)",
    ),
    "path length": (issued(DEEPER, DEEPER, SHALLOW), "may not issue such a chain (path length)"),
    "no CA": (below(authority()), "it was issued by a certificate that is not one of a CA"),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", SERVER_CERTIFICATES)
async def test_each_reason_not_to_trust_a_server_has_its_own_sentence(
    caller: Caller, case: str, version: ssl.TLSVersion
) -> None:
    chain, words = SERVER_CERTIFICATES[case]
    with ScriptedServer(chain.context(version), graphql("Query")) as server:
        error = await caller.error(server.url, trusted=ROOT.pem)
        assert server.requests == []
    assert isinstance(error, ConnectorUntrusted)
    assert words in error.detail, error.detail
    assert (NONE_OF in error.detail) is (words == NONE_OF)


# --- proxies

PASSWORD = "me:hunter2@"
PROXIES = {
    ("407", "", "Basic realm=x"): "it requires a user name and a password: COMPASS_CONNECTOR_PROXY=",
    ("407", "", ""): "it requires a user name and a password: COMPASS_CONNECTOR_PROXY=",
    ("407", PASSWORD, "Basic realm=x"): "it does not accept the user name and the password",
    ("407", "", "NTLM"): "it accepts only ntlm, and the sidecar knows only Basic",
    ("407", PASSWORD, "Negotiate"): "it accepts only negotiate, and the sidecar knows only Basic",
    ("407", "", "Digest realm=x, nonce=y"): "it accepts only digest, and the sidecar knows only Basic",
    ("407", "", "NTLM, Basic realm=x"): "it requires a user name and a password",
    ("403", "", ""): "it does not allow this host",
    ("502", "", ""): "the proxy cannot reach this host either",
}


@pytest.mark.parametrize("case", PROXIES, ids=" ".join)
async def test_a_refusal_of_a_proxy_says_what_helps(caller: Caller, case: tuple[str, str, str]) -> None:
    status, user, challenge = case
    refusal = reply(status=int(status), headers={"Proxy-Authenticate": challenge})
    with ConnectProxy(refusal=refusal) as proxy:
        error = await caller.error("https://host.example/", proxy=f"http://{user}{HOST}:{proxy.port}")
    assert isinstance(error, ConnectorUnavailable)
    way = f"no way to host.example through the proxy {HOST}:{proxy.port}: the proxy answered {status}"
    assert error.detail.startswith(way)
    assert PROXIES[case] in error.detail
    assert "hunter2" not in error.detail


async def test_an_https_proxy_that_is_not_trusted_is_the_one_that_is_named(caller: Caller) -> None:
    with ScriptedServer(issued().context(ssl.TLSVersion.TLSv1_3), graphql("Query")) as server:
        error = await caller.error("https://host.example/", proxy=f"https://{HOST}:{server.port}")
    assert isinstance(error, ConnectorUntrusted)
    assert f"the server certificate of the proxy {HOST}:{server.port} does not verify" in error.detail
    assert error.detail.endswith("; add the right one to the system's trust store")
