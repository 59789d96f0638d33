"""What the real Connector answered, asked of the emulator again.

`recording.jsonl` has one request and its answer a line; the first line has what they share. In a request
`query`, `csr` and `request` (the DER of a CSR) stand for the usual body around them; `before` is how often it
was sent before. In an answer `<CN>` is the client id, `<TOKEN>` a one-time token, `<PEM>` base64 of PEM, and
`https://HOST` any origin; of the certificates a row names what differs from the first line. What is absent is
the default. No gateway stood before the recorded Connector; test_emulator_wire.py has what it refuses.
"""

import base64
import hashlib
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from compass_emulator import Emulator, EmulatorOptions
from tests.emulator.talking import SIGN, client_context, exchange, own_credential

pytestmark = pytest.mark.anyio
COMMON, *ROWS = [
    json.loads(line) for line in (Path(__file__).with_name("recording.jsonl")).read_text("utf-8").splitlines()
]
DOCUMENT = Path(__file__).parents[2] / "docs" / "emulator.md"
JSON = ["Content-Type", "application/json"]
SIGNED = (
    '{"data":{"result":{"certificateChain":"<PEM>","caCertificate":"<PEM>","clientCertificate":"<PEM>"}}}'
)
NOT_RECORDED = ("date", "server", "content-length", "transfer-encoding")


def body_of(row: dict[str, Any]) -> bytes:
    if "request" in row:
        lines = "".join(f"{line}\n" for line in re.findall(".{1,64}", row["request"]))
        pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"
        return signing(base64.b64encode(pem.encode()).decode())
    if "csr" in row:
        return signing(row["csr"])
    if "query" in row:
        return json.dumps({"query": row["query"]}).encode()
    return base64.b64decode(row["base64"]) if "base64" in row else str(row.get("body", "")).encode()


def signing(csr: str) -> bytes:
    return json.dumps({"query": SIGN, "variables": {"csr": csr}}).encode()


def request_of(row: dict[str, Any], token: str) -> bytes:
    method, body = row.get("method", "POST"), body_of(row)
    path = row.get("path", "/connector/graphql").replace("<TOKEN>", quote(token))
    headers = [("Host", "localhost"), *row.get("headers", [JSON])]
    if body or method != "GET":
        headers.append(("Content-Length", str(len(body))))
    lines = [f"{name}: {value.replace('<TOKEN>', token)}\r\n" for name, value in headers]
    return f"{method} {path} HTTP/{row.get('http', '1.1')}\r\n{''.join(lines)}\r\n".encode() + body


def told(raw: bytes) -> dict[str, Any]:
    """An answer in the form of a row."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    chunked = headers.get("transfer-encoding") == "chunked"
    text = (unchunked(body) if chunked else body).decode()
    return {
        "status": int(status.split()[1]),
        "answer headers": {name: value for name, value in headers.items() if name not in NOT_RECORDED},
        "chunked": chunked,
        "answer": normal(text),
        "certificate": facts(text) if '"LS0t' in text else None,
    }


def recorded(row: dict[str, Any]) -> dict[str, Any]:
    certificate = None
    if "certificate" in row:
        certificate = COMMON["certificate"] | row["certificate"]
        missing = set(COMMON["certificate"]) & PEMS - set(row.get("fields", PEMS))
        certificate = {name: value for name, value in certificate.items() if name not in missing}
    return {
        "status": row.get("status", 200),
        "answer headers": row.get("answer headers", {"content-type": "application/json"}),
        "chunked": row.get("chunked", False),
        "answer": row.get("answer", SIGNED),
        "certificate": certificate,
    }


PEMS = {"certificateChain", "caCertificate", "clientCertificate"}


def unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def normal(text: str) -> str:
    text = re.sub(r'"LS0t[A-Za-z0-9+/=]{200,}"', '"<PEM>"', text)
    text = re.sub(r"[\w-]{86}==", "<TOKEN>", text)
    return re.sub(r"https://[\w.:-]+(?=/)", "https://HOST", text).replace(COMMON["client_id"], "<CN>")


def elements(der: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Of each element in it: tag, whole, content."""
    while der:
        long = der[1] & 0x7F if der[1] & 0x80 else 0
        begin = 2 + long
        end = begin + (int.from_bytes(der[2:begin], "big") if long else der[1])
        yield der[0], der[:end], der[begin:end]
        der = der[end:]


def inside(der: bytes) -> list[tuple[int, bytes, bytes]]:
    return list(elements(next(elements(der))[2]))


def facts(text: str) -> dict[str, Any]:
    """What the recording says of certificates: everything but keys, names of CAs and moments."""
    [result] = json.loads(text)["data"].values()
    found: dict[str, Any] = {"field order": list(result)}
    for name, value in result.items():
        pem = base64.b64decode(value)
        made = x509.load_pem_x509_certificates(pem)
        canonical = b"".join(one.public_bytes(Encoding.PEM) for one in made) == pem
        found[name] = f"{len(made)} certs, canonical {canonical}"
    leaf = x509.load_pem_x509_certificate(base64.b64decode(result["clientCertificate"]))
    (_, tbs, _), (_, algorithm, _), _ = inside(leaf.public_bytes(Encoding.DER))
    version, serial, signature, _, validity, subject, key, extensions = inside(tbs)
    client_id = str(COMMON["client_id"]).encode().hex()
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return found | {
        "tbs order": [tag for tag, _, _ in inside(tbs)],
        "version/serial": [version[1].hex(), serial[1].hex()],
        "sigalg": signature[1].hex(),
        "subject der": subject[1].hex().replace(client_id, "<CN>"),
        "outer algid": algorithm.hex(),
        "validity tags": [tag for tag, _, _ in inside(validity[1])],
        "validity": lifetime.total_seconds(),
        "spki": hashlib.sha256(key[1]).hexdigest()[:8],
        "extensions": [
            re.sub(r"(?<=^301f0603551d23041830168014).{40}$", "<aki>", whole.hex())
            for _, whole, _ in inside(extensions[2])
        ],
    }


def listed() -> set[str]:
    """The rows that the document says are different."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("### Recorded answers that differ")[2]
    return set(re.findall(r"^\| `([^`]+)` \| ", text.partition("\n#")[0], re.MULTILINE))


async def test_every_recorded_answer_is_given_again_but_those_that_the_document_lists(folder: Path) -> None:
    options = EmulatorOptions(dir=folder, client_id=COMMON["client_id"], gateway=False)
    different = {}
    async with Emulator.start(options) as emulator:
        contexts = {
            "cert": client_context(emulator, own_credential(emulator)),
            "token": client_context(emulator),
        }
        for row in ROWS:
            wanted, given = recorded(row), told(await answer(emulator, contexts, row))
            if wanted != given:
                different[row["name"]] = [
                    (name, value, given[name]) for name, value in wanted.items() if value != given[name]
                ]
    assert {name: what for name, what in different.items() if name not in listed()} == {}
    assert set(different) == listed(), "the document lists a row that is equal"


async def answer(emulator: Emulator, contexts: dict[str, ssl.SSLContext], row: dict[str, Any]) -> bytes:
    door = row.get("door", "cert")
    request = request_of(row, emulator.token().token)
    for _ in range(row.get("before", 0) + 1):
        raw = await exchange(
            emulator,
            contexts[door],
            request=request,
            listener="mtls" if door == "cert" else "token",
            ends=lambda received: complete(received, head=row.get("method") == "HEAD"),
        )
    return raw


def complete(received: bytes, *, head: bool) -> bool:
    """Whether an answer has arrived: connections are kept open after it."""
    begin, separator, body = received.partition(b"\r\n\r\n")
    if not separator or head:
        return bool(separator)
    length = re.search(rb"content-length: (\d+)", begin)
    return len(body) >= int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n")


async def test_the_recording_has_every_row_once() -> None:
    assert len({row["name"] for row in ROWS}) == len(ROWS) > 200
