"""How the tests talk to an emulator: GraphQL through httpx, and bytes through a bare TLS socket."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from compass_emulator import Emulator

CONFIGURATION = (
    "query { result: configuration { token { token }"
    " certificateSigningRequestInfo { subject keyAlgorithm }"
    " managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"
)
SIGN = (
    "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr)"
    " { certificateChain caCertificate clientCertificate } }"
)
REVOKE = "mutation { result: revokeCertificate }"
PROBE = "query { __typename }"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STANDARD = {
    NameOID.ORGANIZATION_NAME: "Org",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OrgUnit",
    NameOID.LOCALITY_NAME: "locality",
    NameOID.STATE_OR_PROVINCE_NAME: "province",
    NameOID.COUNTRY_NAME: "DE",
}


@dataclass(frozen=True)
class Credential:
    """Files of a client certificate and its key."""

    certificate: Path
    key: Path

    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


def own_credential(emulator: Emulator) -> Credential:
    at = emulator.endpoints
    return Credential(Path(at.client_certificate_file), Path(at.client_key_file))


def client_context(emulator: Emulator, credential: Credential | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=emulator.endpoints.ca_file)
    if credential is not None:
        context.load_cert_chain(credential.certificate, credential.key)
    return context


async def ask(
    emulator: Emulator,
    document: str,
    variables: dict[str, Any] | None = None,
    *,
    token: str | None = None,
    credential: Credential | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """One GraphQL call: with a token, or else with a certificate (the emulator's own by default)."""
    content = {"query": document, "variables": variables or {}}
    return await call(emulator, token=token, credential=credential, headers=headers, json=content)


async def call(
    emulator: Emulator,
    method: str = "POST",
    path: str = "",
    *,
    token: str | None = None,
    credential: Credential | None = None,
    headers: dict[str, str] | None = None,
    **content: Any,
) -> httpx.Response:
    """Any HTTP request at one of the listeners, on a connection of its own."""
    at = emulator.endpoints
    url = at.connector_url if token is None else at.token_connector_url
    given = dict(headers or {}) | ({"Connector-Token": token} if token else {})
    context = client_context(emulator, (credential or own_credential(emulator)) if token is None else None)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=10) as client:
        return await client.request(method, url + path, headers=given, **content)


def message(answer: httpx.Response) -> str:
    """The message of the only GraphQL error."""
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(b'{"errors":[{"message":')
    [error] = answer.json()["errors"]
    assert set(error) == {"message", "path"}
    assert answer.json()["data"] is None
    return str(error["message"])


def first_client_id(emulator: Emulator) -> str:
    leaf = own_credential(emulator).leaf()
    return str(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def make_csr(
    client_id: str, *, key: Any = KEY, changes: dict[Any, str | None] | None = None, **sign: Any
) -> str:
    """A request as a client sends it; `changes` replaces or (None) drops attributes."""
    wanted = STANDARD | {NameOID.COMMON_NAME: client_id} | (changes or {})
    subject = [x509.NameAttribute(oid, value) for oid, value in wanted.items() if value is not None]
    algorithm = sign.pop("algorithm", hashes.SHA256())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    return encode(request.sign(key, algorithm, **sign).public_bytes(serialization.Encoding.PEM))


def encode(text: bytes) -> str:
    return base64.b64encode(text).decode()


def fields(answer: httpx.Response) -> dict[str, bytes]:
    """The three fields of a signature, decoded."""
    result = answer.json()["data"]["result"]
    return {name: base64.b64decode(value) for name, value in result.items()}


def chain(answer: httpx.Response) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(fields(answer)["certificateChain"])


async def obtain(emulator: Emulator, folder: Path) -> Credential:
    """A further credential for the same client, renewed as a client does it."""
    answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
    return save(folder, fields(answer)["certificateChain"])


def save(folder: Path, certificates: bytes, key: Any = KEY) -> Credential:
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(certificates)
    encryption = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    return Credential(folder / "tls.crt", folder / "tls.key")


def request_bytes(document: str = PROBE) -> bytes:
    body = f'{{"query":"{document}"}}'.encode()
    head = "POST /connector/graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(
    emulator: Emulator,
    context: ssl.SSLContext,
    *,
    request: bytes | None = None,
    listener: str = "mtls",
    patience: float = 3.0,
    ends: Callable[[bytes], bool] = lambda _received: False,
) -> bytes:
    """What a bare TLS client reads until the end, or until it has enough; raises what the socket raised."""
    at = emulator.endpoints
    url = urlsplit(at.connector_url if listener == "mtls" else at.token_connector_url)

    def talk() -> bytes:
        received = bytearray()
        with (
            socket.create_connection((url.hostname or "", url.port or 0), timeout=patience) as plain,
            context.wrap_socket(plain, server_hostname=url.hostname) as line,
        ):
            line.sendall(request_bytes() if request is None else request)
            while not ends(bytes(received)) and (data := line.recv(65_536)):
                received += data
        return bytes(received)

    return await asyncio.to_thread(talk)


async def refusal(emulator: Emulator, context: ssl.SSLContext, *, listener: str = "mtls") -> str:
    """OpenSSL's name of the alert with which the listener refuses this client."""
    try:
        answer = await exchange(emulator, context, listener=listener)
    except ssl.SSLError as error:
        return str(error.reason)
    raise AssertionError(f"the listener let the client in, and said {answer[:100]!r}")
