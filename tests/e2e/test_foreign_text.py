"""Whatever the Connector puts into a certificate, a message or a URL, nobody sees it raw."""

import base64
import json
import secrets
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from compass_sidecar.core.csr import make_csr, parse_subject
from tests.e2e.conftest import Start
from tests.support.authority import Authority, rsa_key
from tests.support.processes import SidecarProcess, wait_until
from tests.support.scripted_server import ScriptedServer, reply, server_context

TOKEN = secrets.token_urlsafe(66)
CSR = make_csr(rsa_key(), parse_subject("CN=1e5d8a2c")).decode()
HOSTILE = {
    "token": TOKEN,
    "signing request": CSR + base64.b64encode(CSR.encode()).decode(),
    "60 KB": "long name " * 6000,
    "control": "\u202egnp.exe\u2066\u200f \x1b[2J\x9b31m\r\nforged line",
}
# Of each of the first two a part is enough; the last one has characters that nothing may have.
SECRETS = [TOKEN[-40:], CSR.splitlines()[3], HOSTILE["signing request"][-40:]]
LONGEST = 2000  # one of our sentences with two foreign texts of 256 characters in it
PEM_FIELDS = {"leaf", "chain", "ca"}


def certificate_name(text: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, "1e5d8a2c")])


def strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, each in value.items():
                yield key
                yield from strings(each)
        case list():
            for each in value:
                yield from strings(each)


def assert_clean(text: str, where: str) -> None:
    for secret in SECRETS:
        assert secret not in text, where
    assert text.replace("\n", "").isprintable(), f"{where}: {text!r}"
    assert max(map(len, text.split("\n"))) <= LONGEST, where


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    heard: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", heard
    server.shutdown()
    server.server_close()


def hostile_answers(text: str) -> list[bytes]:
    """One for each field of an answer that a person may get to see."""
    plane = {"directorURL": f"https://d.example/{TOKEN}", "certificateSecuredConnectorURL": None}
    info = {"subject": f"O={text}", "keyAlgorithm": "rsa2048"}
    configuration = {"result": {"certificateSigningRequestInfo": info, "managementPlaneInfo": plane}}
    return [
        reply(json.dumps({"data": configuration}).encode()),
        reply(json.dumps({"errors": [{"message": text}], "data": None}).encode()),
        reply(text.encode(), status=502),
        reply(text.encode()),
        reply(b"{}", headers={"Content-Encoding": base64.b64encode(text.encode())[:4000].decode()}),
    ]


def seen_of(sidecar: SidecarProcess) -> Iterator[tuple[str, str]]:
    """Everything that a person or a program is shown, by where it is shown."""
    certificate = sidecar.client.get("/certificate").json()
    shown = {name: value for name, value in certificate.items() if name not in PEM_FIELDS}
    yield "/certificate", "\n".join(strings(shown))
    yield "/status", "\n".join(strings(sidecar.status()))
    yield "/metrics", sidecar.client.get("/metrics").text
    for command in ("status", "check"):
        done = sidecar.command(command)
        yield command, done.stdout + done.stderr
    store = Path(sidecar.environment["COMPASS_STORE_DIR"])
    for line in (*sidecar.log.read_text().splitlines(), *(store / "journal.jsonl").read_text().splitlines()):
        yield "log or journal", "\n".join(strings(json.loads(line)))


@pytest.mark.parametrize("kind", HOSTILE)
def test_foreign_text_is_cleaned_wherever_it_is_shown(
    kind: str, start: Start, tmp_path: Path, webhook: tuple[str, list[Any]]
) -> None:
    text, ca = HOSTILE[kind], Authority.create()
    issuer = Authority.create(subject=certificate_name(text))
    credential = issuer.credential(subject=certificate_name(text))
    (tmp_path / "hostile.crt").write_bytes(credential.chain.pem)
    (tmp_path / "hostile.key").write_bytes(credential.key_pem)
    (tmp_path / "server-ca.crt").write_bytes(ca.pem)
    with ScriptedServer(server_context(ca, "127.0.0.1"), *hostile_answers(text)) as connector:
        sidecar = start(
            client_certificate_file=str(tmp_path / "hostile.crt"),
            client_key_file=str(tmp_path / "hostile.key"),
            connector_url=connector.url,
            connector_ca_file=str(tmp_path / "server-ca.crt"),
            notify_webhook=webhook[0],
            log_level="debug",
        ).ready()
        for _ in connector.answers[:]:
            problem = sidecar.client.post("/renew").json()
            assert_clean("\n".join(strings(problem)), "/renew")
        for where, said in seen_of(sidecar):
            assert_clean(said, where)
        page = sidecar.client.get("/").text
        assert not any(secret in page for secret in SECRETS)
        assert len(page) < 100_000
        assert page.replace("\n", "").isprintable()
        wait_until(lambda: webhook[1], "a webhook")
        for body in webhook[1]:
            assert_clean("\n".join(strings(body)), "webhook")
        assert sidecar.status()["certificate"]["subject"].startswith("CN=1e5d8a2c,")


def test_a_serial_number_of_any_length_is_shown(start: Start, tmp_path: Path) -> None:
    """Python refuses to write numbers of more than 4,300 digits."""
    files = (str(tmp_path / "long.key"), str(tmp_path / "long.crt"))
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=long", "-days", "9")
    command = [*request, "-set_serial", "0x7f" + "ab" * 3000, "-keyout", files[0], "-out", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    sidecar = start(client_key_file=files[0], client_certificate_file=files[1]).ready()
    shown = [sidecar.status()["certificate"], sidecar.client.get("/certificate").json()]
    assert [each["serial_number"] for each in shown] == ["0x7f" + "ab" * 18 + "…"] * 2
