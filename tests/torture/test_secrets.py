"""Everything that the sidecar does, at debug level and against a Connector that provokes it; then a search
for keys, tokens, passphrases and the like wherever they must not be."""

import base64
import json
import re
import signal
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.processes import wait_until
from tests.torture.forge import Forged
from tests.torture.scenarios import Lab

# Those of `configuration` first: with a CSR under way a renewal does not ask for it.
HOSTILE = (
    *("redirect@configuration", "html-200@configuration", "deep-json@configuration"),
    *("empty-400@configuration", "subject-control-characters@configuration", "error-pem-key@sign"),
    *("error-long-base64@sign", "error-control-characters@sign", "error-very-long@sign", "wrong-key@sign"),
    *("private-key-in-pem@sign", "wrong-subject@sign", "broken-pem@sign", "forged-signature@sign"),
    *("csr-bad-pem@sign", "reset-after-acting@sign"),
)
SECRETS = {
    "api token": "the-api-token-0123456789+/=",
    "passphrase": "passphrase of the key: ä+/=",
    "webhook secret": "webhook-secret-0123456789+/=",
    "bundle password": "bundle-password-0123456789",
    "wrong api token": "a-wrong-api-token-0123456789",
    "wrong token": "wrong-one-time-token-0123456789-0123456789-0123456789-0123456789",
}


class Places:
    """Where secrets must not be, with what is there."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def answer(self, response: httpx.Response) -> None:
        """An answer of the local API other than `bundle.*`, headers and all."""
        response.read()
        if not response.request.url.path.startswith("/certificate/bundle.") or response.is_error:
            head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
            name = f"answer {len(self.texts)}: {response.request.method} {response.request.url.path}"
            self.texts[name] = head.encode() + b"\n\n" + response.content

    def process(self, sidecar: Forged) -> None:
        """What every user of the machine sees of the process, and what an image's inspection would."""
        for name in ("cmdline", "environ"):
            self.texts[f"{name} of {sidecar.pid}"] = Path(f"/proc/{sidecar.pid}/{name}").read_bytes()

    def files(self, folder: Path, *, but: set[Path]) -> None:
        """All files below the folder, and their names."""
        for path in folder.rglob("*"):
            if path.is_file() and not any(path.is_relative_to(each) for each in but):
                self.texts[str(path)] = path.name.encode() + b"\n" + path.read_bytes()


def forms(secret: bytes) -> set[bytes]:
    """As it is, in base64, for a URL, in JSON."""
    text = secret.decode()
    return {
        secret,
        base64.b64encode(secret),
        base64.urlsafe_b64encode(secret),
        urllib.parse.quote(text).encode(),
        urllib.parse.quote(text, safe="").encode(),
        urllib.parse.quote_plus(text).encode(),
        json.dumps(text)[1:-1].encode(),
    }


@cache
def key_forms(pem: bytes) -> set[bytes]:
    """Any line of its PEM; the beginning of its numbers, in hex and decimal."""
    key = serialization.load_pem_private_key(pem, None)
    numbers = key.private_numbers()
    lines = [line for line in pem.split(b"\n")[2:-2] if len(line) == 64]
    parts = [getattr(numbers, name) for name in ("p", "q", "d")]
    return {
        *lines,
        *(f"{part:x}"[:40].encode() for part in parts),
        *(str(part)[:40].encode() for part in parts),
    }


class Keys:
    """Every private key that was ever in the store, and every token B and CSR."""

    def __init__(self) -> None:
        self.found: dict[str, set[bytes]] = {}

    def look(self, store: Path) -> None:
        for path in store.rglob("tls.key"):
            pem = path.read_bytes()
            self.found[f"key {pem[100:110]!r}"] = key_forms(pem)
        for path in store.rglob("pending.json"):
            pending = json.loads(path.read_bytes())
            pem = pending["key_pem"].encode()
            self.found[f"key {pem[100:110]!r}"] = key_forms(pem)
            self.found[f"CSR {len(self.found)}"] = set(pending["csr_pem"].encode().split(b"\n")[1:-2])
            if token := pending["token"]:
                self.found[f"token B {token[:6]}"] = forms(token.encode())


@contextmanager
def webhook(places: Places) -> Iterator[tuple[str, list[str]]]:
    """A receiver, and which events it was told."""
    events: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Compass-Signature"].startswith("sha256=")
            places.texts[f"webhook {len(places.texts)}"] = str(self.headers).encode() + body
            events.append(json.loads(body)["event"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", events
    server.shutdown()
    thread.join()
    server.server_close()


def written(folder: Path, **contents: str) -> dict[str, str]:
    """Each secret in a file, and the variable that names the file."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {f"COMPASS_{name.upper()}_FILE": str(folder / name) for name in contents}


def test_no_secret_is_anywhere_but_in_the_store_and_where_it_is_published(lab: Lab, tmp_path: Path) -> None:
    places, keys = Places(), Keys()
    inputs, home, disk = tmp_path / "inputs", tmp_path / "home", tmp_path / "disk"
    home.mkdir()
    disk.mkdir()
    secrets = dict(SECRETS)
    with webhook(places) as (hook, events):
        given = written(
            inputs,
            api_token=secrets["api token"],
            notify_webhook_secret=secrets["webhook secret"],
            client_key_passphrase=secrets["passphrase"],
        )
        environment = {
            **lab.environment(disk),
            "COMPASS_LOG_LEVEL": "debug",
            "COMPASS_EXPOSE_PRIVATE_KEY": "true",
            "COMPASS_NOTIFY_WEBHOOK": hook,
            "COMPASS_ON_RENEW_COMMAND": f"sh -c 'env; cat /proc/$PPID/cmdline; id' >{home}/command",
            "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
            "COMPASS_REVOKE_SUPERSEDED_AFTER": "1s",
            "HOME": str(home),
            "TMPDIR": str(home),
            **given,
        }
        del environment["COMPASS_API_TOKEN"], environment["COMPASS_CLIENT_KEY_PASSPHRASE_FILE"]
        with lab.forge.start(environment, tmp_path / "log") as sidecar:
            sidecar.client.event_hooks["response"] = [places.answer]
            live(lab, sidecar.answers("/livez", 200), disk / "store", keys, secrets)
            places.process(sidecar)
            wait_until(lambda: {"connected", "renewed"} <= set(events), "the webhook")
            assert sidecar.stop() == 0
        importing = imports(lab, inputs, keys)
        environment |= importing | {
            "COMPASS_CLIENT_KEY_PASSPHRASE_FILE": str(inputs / "client_key_passphrase")
        }
        environment["COMPASS_STORE_DIR"] = str(disk / "other")
        with lab.forge.start(environment, tmp_path / "log") as sidecar:
            sidecar.client.event_hooks["response"] = [places.answer]
            sidecar.answers("/readyz", 200)
            keys.look(disk / "other")
            places.process(sidecar)
            (inputs / "client_key_passphrase").write_text("another passphrase 0123456789")
        with lab.forge.start(
            environment | {"COMPASS_STORE_DIR": str(disk / "third")}, tmp_path / "log"
        ) as wrong:
            assert wrong.ended() == 2
    stores = {
        path
        for name in ("store", "other", "third")
        for path in (disk / name / "generations", disk / name / "pending")
    }
    places.files(tmp_path, but={inputs, disk / "published", *stores})
    search(places, {**keys.found, **{name: forms(secret.encode()) for name, secret in secrets.items()}})


def live(lab: Lab, sidecar: Forged, store: Path, keys: Keys, secrets: dict[str, str]) -> None:
    """Everything that can be asked of it, rightly and wrongly."""
    client = sidecar.client
    bearer = {"Authorization": f"Bearer {secrets['api token']}"}
    wrong = {"Authorization": f"Bearer {secrets['wrong api token']}"}
    url = lab.emulator.endpoints["token_connector_url"]

    def connect(token: str, headers: dict[str, str] = bearer, **others: Any) -> httpx.Response:
        return client.post("/connect", json={"token": token, "connector_url": url, **others}, headers=headers)

    def token(name: str) -> str:
        secrets[name] = lab.emulator.control("POST", "/tokens", {})["token"]
        return secrets[name]

    assert connect(token("token 1"), wrong).status_code == 401
    assert connect(secrets["wrong token"]).status_code == 502
    assert connect(secrets["wrong token"], unknown=secrets["wrong token"]).status_code >= 400
    assert client.post("/connect", content=secrets["wrong token"], headers=bearer).status_code == 415
    odd = {"token": token("token 2"), "connector_url": f"https://{secrets['wrong token']}@localhost/"}
    assert client.post("/connect", json=odd, headers=bearer).status_code >= 400
    for name, fault in (
        ("token 3", "503-text@sign"),
        ("token 4", "error-text:{}@sign"),
        ("token 5", "empty-400@sign"),
    ):
        one = token(name)
        lab.emulator.fault(fault.replace("{}", one))
        assert connect(one).status_code >= 400
        keys.look(store)
        lab.emulator.heal()
    assert connect(token("token 6")).status_code == 200
    assert connect(token("token 7"), connector_url=f"{url}?token={secrets['token 6']}").status_code == 200
    keys.look(store)
    for fault in HOSTILE:
        lab.emulator.fault(fault)
        assert client.post("/renew", headers=bearer).status_code >= 500, fault
        keys.look(store)
        lab.emulator.heal()
    assert client.post("/renew", headers=wrong).status_code == 401
    assert client.post("/renew", headers=bearer).status_code == 200
    keys.look(store)
    for form in ("pem", "p12"):
        password = {"Compass-Bundle-Password": secrets["bundle password"]}
        assert client.get(f"/certificate/bundle.{form}", headers=bearer | password).status_code == 200
        assert client.get(f"/certificate/bundle.{form}", headers=wrong | password).status_code == 401
    for path in ("/status", "/certificate", "/metrics", "/", "/openapi.json", f"/{secrets['api token']}"):
        client.get(path, headers=bearer)
        client.get(f"{path}?token={secrets['wrong token']}")
    assert client.post("/revoke", json={"confirm": sidecar.fingerprint()}, headers=bearer).is_success
    keys.look(store)


def imports(lab: Lab, inputs: Path, keys: Keys) -> dict[str, str]:
    """The variables of an import whose key has a passphrase."""
    endpoints = lab.emulator.endpoints
    pem = Path(endpoints["client_key_file"]).read_bytes()
    keys.found["imported key"] = key_forms(pem)
    encrypted = serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRETS["passphrase"].encode()),
    )
    (inputs / "encrypted.key").write_bytes(encrypted)
    return {**lab.importing(), "COMPASS_CLIENT_KEY_FILE": str(inputs / "encrypted.key")}


def search(places: Places, secrets: dict[str, set[bytes]]) -> None:
    """Fail with what was found, and where."""
    assert len(places.texts) > 50
    assert sum(name.startswith("key ") for name in secrets) >= 3
    assert any(name.startswith("token B") for name in secrets)
    found = [
        f"{secret} in {place}: {text[max(0, text.index(form) - 200) :][:300]!r}"
        for place, text in places.texts.items()
        for secret, each in secrets.items()
        for form in each
        if form in text
    ]
    assert not found, "\n".join(found)
    for place, text in places.texts.items():
        assert b"PRIVATE KEY-----\nM" not in text, place
        assert (
            not re.search(rb"[A-Za-z0-9+/]{400}", text.replace(b"\\n", b"")) or b"BEGIN CERTIFICATE" in text
        ), place


def test_a_crash_dumps_no_core(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with lab.forge.start(lab.environment(tmp_path / "disk"), tmp_path / "log") as sidecar:
        sidecar.answers("/livez", 200)
        limits = Path(f"/proc/{sidecar.pid}/limits").read_text()
        assert re.search(r"Max core file size +1 +1 ", limits), limits
        sidecar._signal(signal.SIGSEGV)
        assert sidecar.ended() == -signal.SIGSEGV


def test_the_search_finds_what_is_there() -> None:
    places = Places()
    places.texts = {str(number): b"" for number in range(60)} | {"here": base64.b64encode(b"the secret")}
    secrets = {f"key {number}": {b"never"} for number in range(3)} | {"token B": forms(b"the secret")}
    with pytest.raises(AssertionError, match="token B in here"):
        search(places, secrets)
