"""Pairs as operators have them, in the real process: taken over whole, or refused with the right words."""

import base64
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID

from compass_sidecar.core.credential import render
from tests.e2e.conftest import Start
from tests.support.authority import NOW, Authority, ec_key, key_pem, rsa_key
from tests.support.odd_certificates import Edit, replaced, signed_again, signed_with_sha1, version_1
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ROOT = Authority.create("Example CA", key=ec_key(1))
ISSUING = ROOT.intermediate("Issuing CA", key=ec_key(2))
OLD = Authority.create("Old Root", key=ec_key(3), not_before=NOW - 9 * DAY, lifetime=8 * DAY)
CROSSED = OLD.intermediate("Example CA", key=ec_key(1)).certificate
LEAF = ISSUING.issue(not_before=NOW - HOUR)
CHAIN = (LEAF, *ISSUING.chain)
PEM, KEY = render(CHAIN), key_pem(rsa_key())
PASSPHRASE = b"correct horse"


@dataclass(frozen=True)
class Pair:
    """What an operator hands over; without a key the certificate file has it."""

    certificate: bytes
    key: bytes | None = KEY
    passphrase: bytes | None = None

    def put(self, folder: Path) -> dict[str, str]:
        """The settings for it."""
        files = {"client_certificate_file": self.certificate, "client_key_file": self.key}
        for name, content in files.items():
            if content is not None:
                (folder / name).write_bytes(content)
        given = {name: str(folder / name) if content is not None else "" for name, content in files.items()}
        return {**given, "client_key_passphrase": (self.passphrase or b"").decode()}


def as_pkcs12() -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"x", rsa_key(), LEAF, CHAIN[1:], BestAvailableEncryption(PASSPHRASE)
    )


GOOD = {
    "indented": Pair(b"".join(b"    " + line for line in PEM.splitlines(keepends=True))),
    "blank lines inside": Pair(PEM.replace(b"\n", b"\n\n")),
    "one line": Pair(PEM.replace(b"\n", b" "), KEY.replace(b"\n", b" ")),
    "base64": Pair(base64.b64encode(PEM), base64.b64encode(KEY)),
    "escaped": Pair(PEM.replace(b"\n", rb"\n"), KEY.replace(b"\n", rb"\n")),
    "UTF-16": Pair(PEM.decode().encode("utf-16"), KEY.decode().encode("utf-16")),
    "PKCS#12": Pair(as_pkcs12(), None, PASSPHRASE),
    "PKCS#12 beside its key": Pair(as_pkcs12(), KEY, PASSPHRASE),
    "key and chain in one file": Pair(PEM + key_pem(rsa_key(), passphrase=PASSPHRASE), None, PASSPHRASE),
    "PKCS#8 under the label of PKCS#1": Pair(PEM, KEY.replace(b"PRIVATE", b"RSA PRIVATE")),
    "key in DER": Pair(PEM, ssl.PEM_cert_to_DER_cert(KEY.decode().replace("PRIVATE KEY", "CERTIFICATE"))),
    "old label": Pair(PEM.replace(b"CERTIFICATE", b"X509 CERTIFICATE")),
    "cross-signed": Pair(render([CROSSED, OLD.certificate, ROOT.certificate, LEAF, ISSUING.certificate])),
    "older leaf beside": Pair(render([ISSUING.issue(not_before=NOW - DAY), *CHAIN])),
}


@pytest.mark.parametrize("form", GOOD)
def test_a_pair_in_any_form_is_taken_over_and_served_as_openssl_reads_it(
    form: str, start: Start, tmp_path: Path
) -> None:
    sidecar = start(**GOOD[form].put(tmp_path)).ready()
    assert sidecar.client.get("/certificate/chain.pem").content == PEM
    assert sidecar.client.get("/certificate/ca.pem").content == render(CHAIN[1:])
    assert "expired" not in sidecar.status()["state"]
    published = tmp_path / "published"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(published / "tls.crt", published / "tls.key")


def weak_key() -> Pair:
    leaf = ROOT.issue(key=rsa_key(bits=1024).public_key())
    return Pair(render([leaf, ROOT.certificate]), key_pem(rsa_key(bits=1024)))


def weak_signature() -> Pair:
    issuer = Authority.create(key=rsa_key(3))
    leaf = x509.load_der_x509_certificate(signed_with_sha1(issuer.issue(), issuer))
    return Pair(render([leaf]))


def camellia() -> Pair:
    command = ("openssl", "rsa", "-traditional", "-camellia128", "-passout", "pass:correct horse")
    key = subprocess.run(command, input=KEY, capture_output=True, check=True).stdout
    return Pair(PEM, key, PASSPHRASE)


CHAIN_FILE, KEY_FILE = "COMPASS_CLIENT_CERTIFICATE_FILE: ", "COMPASS_CLIENT_KEY_FILE: "
BAD: dict[str, tuple[Callable[[], Pair], str, str]] = {
    "key of 1024 bits": (weak_key, CHAIN_FILE, "is refused by OpenSSL: ee key too small (RSA-1024"),
    "SHA-1": (weak_signature, CHAIN_FILE, "is refused by OpenSSL: ca md too weak (RSA-2048 "),
    "junk as key": (lambda: Pair(PEM, b"junk"), KEY_FILE, "is not PEM"),
    "certificate as key": (lambda: Pair(PEM, PEM), KEY_FILE, "has no PEM block PRIVATE KEY, only"),
    "key as certificate": (lambda: Pair(KEY), CHAIN_FILE, "has no PEM block CERTIFICATE, only"),
    "no key": (lambda: Pair(PEM, None), CHAIN_FILE, "COMPASS_CLIENT_KEY_FILE is not set"),
    "another key": (
        lambda: Pair(PEM, key_pem(rsa_key(1))), CHAIN_FILE, "has no certificate for the key in"
    ),
    "unknown cipher": (camellia, KEY_FILE, "is encrypted with an algorithm that is not supported"),
    "no passphrase": (
        lambda: Pair(PEM, key_pem(rsa_key(), passphrase=PASSPHRASE)), KEY_FILE, "is encrypted and no"
    ),
    "wrong password": (
        lambda: Pair(as_pkcs12(), None, b"wrong"), CHAIN_FILE, "cannot be decrypted: wrong passphrase?"
    ),
    "Java keystore": (lambda: Pair(b"\xfe\xed\xfe\xed\0\0\0\2"), CHAIN_FILE, "is a Java keystore"),
    "no CA for it": (
        lambda: Pair(render([LEAF, OLD.certificate])), CHAIN_FILE, "was signed by none of the other 1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_pair_that_cannot_be_used_stops_the_start_and_is_named_with_its_variable(
    fault: str, importing: dict[str, str], tmp_path: Path
) -> None:
    make, variable, why = BAD[fault]
    settings = {f"COMPASS_{name.upper()}": value for name, value in make().put(tmp_path).items()}
    sidecar = SidecarProcess({**importing, **settings}, log=tmp_path / "log")
    try:
        assert sidecar.process.wait(60) == 2
        (line,) = [
            line for line in sidecar.log.read_text().splitlines() if line.startswith("compass-sidecar: ")
        ]
        assert line.startswith(f"compass-sidecar: {variable}{tmp_path}/client_")
        assert why in line
    finally:
        sidecar.close()


def test_a_wrong_pair_is_a_warning_where_the_store_holds_a_good_one(start: Start, tmp_path: Path) -> None:
    assert start().ready().stop() == 0
    sidecar = start(**weak_key().put(tmp_path)).ready()
    assert "import-rejected" in sidecar.status()["reasons"]
    assert sidecar.status()["state"] == "connected"


# --- odd certificates


def odd(edit: Edit, certificate: x509.Certificate) -> bytes:
    return ssl.DER_cert_to_PEM_cert(signed_again(certificate, ROOT, edit)).encode()


def teletex() -> Pair:
    """An umlaut in Latin-1, in a string type that the library reads as UTF-8."""
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "M*ller AG", _ASN1Type.T61String)
    authority = Authority.create(subject=x509.Name([organization]), key=ec_key(1))
    edit = replaced(b"M*ller", b"M\xfcller")
    return Pair(odd(edit, authority.issue()) + odd(edit, authority.certificate))


def with_extension(oid: x509.ObjectIdentifier, value: str) -> Pair:
    extension = x509.UnrecognizedExtension(oid, bytes.fromhex(value))
    return Pair(render([ROOT.issue(extensions=[(extension, False)]), ROOT.certificate]))


def beginning(year: bytes) -> Pair:
    late = NOW.replace(year=2050, month=1, day=1)
    root = Authority.create("Example CA", key=ec_key(1), not_before=late)
    edit = replaced(b"%04d0101" % 2050, year + b"0101")
    return Pair(odd(edit, ROOT.issue(not_before=late)) + odd(edit, root.certificate))


def one_letter() -> x509.Name:
    country = x509.NameAttribute(NameOID.COUNTRY_NAME, "D", _validate=False)
    return x509.Name([country, x509.NameAttribute(NameOID.COMMON_NAME, "1e5d8a2c")])


def serial_0(elements: list[bytes]) -> list[bytes]:
    return [*elements[:1], b"\x02\x01\x00", *elements[2:]]


def without_end() -> Pair:
    leaf = ROOT.issue(lifetime=NOW.replace(year=9999, month=12, day=31) - NOW)
    return Pair(render([leaf]))


ODD: Mapping[str, Callable[[], Pair]] = {
    "umlaut in a T61String": teletex,
    "CA of version 1": lambda: Pair(render([ROOT.issue()]) + odd(version_1, ROOT.certificate)),
    "default written out": lambda: with_extension(ExtensionOID.BASIC_CONSTRAINTS, "3003010100"),
    "odd policy notice": lambda: with_extension(ExtensionOID.CERTIFICATE_POLICIES, "3005300306012a0500"),
    "serial number 0": lambda: Pair(odd(serial_0, ROOT.issue()) + ROOT.pem),
    "country of one letter": lambda: Pair(render([ROOT.issue(subject=one_letter()), ROOT.certificate])),
    "year 0": lambda: beginning(b"0000"),
    "year 1": lambda: beginning(b"0001"),
    "year 9999": without_end,
}


@pytest.mark.filterwarnings("ignore:Attribute", "ignore:Parsed a serial number")
@pytest.mark.parametrize("kind", ODD)
def test_a_certificate_that_the_library_reads_only_in_part_works_everywhere(
    kind: str, start: Start, tmp_path: Path
) -> None:
    pair = ODD[kind]()
    sidecar = start(
        **pair.put(tmp_path), api_token="0123456789abcdef", expose_private_key="true", log_level="debug"
    ).ready()
    for path in (
        "/status",
        "/certificate",
        "/metrics",
        "/",
        "/readyz?verbose",
        "/certificate/leaf.pem",
        "/events",
    ):
        assert sidecar.client.get(path).status_code in (200, 404), path
    assert sidecar.client.get("/certificate/chain.pem").content == pair.certificate
    certificate = sidecar.status()["certificate"]
    assert len(certificate["not_before"]) == len(certificate["effective_not_after"]) == 20
    headers = {"Authorization": "Bearer 0123456789abcdef", "Compass-Bundle-Password": "secret"}
    bundle = sidecar.client.get("/certificate/bundle.p12", headers=headers)
    assert pkcs12.load_pkcs12(bundle.content, b"secret").cert
    for command in ("status", "check"):
        done = sidecar.command(command)
        assert "Traceback" not in done.stdout + done.stderr
    assert sidecar.process.poll() is None
    for line in sidecar.log.read_text().splitlines():
        assert json.loads(line)["event"] != "internal-error", line
    assert sidecar.stop() == 0
    assert start(**pair.put(tmp_path)).ready().fingerprint() == certificate["fingerprint_sha256"]
    if kind == "umlaut in a T61String":
        assert certificate["issuer"] == "O=#14094dfc6c6c6572204147"


# --- while it runs


def look(sidecar: SidecarProcess) -> None:
    os.kill(sidecar.process.pid, signal.SIGHUP)


def events(sidecar: SidecarProcess, name: str) -> list[Any]:
    return [each for each in sidecar.status()["events"] if each["event"] == name]


def test_a_leaf_alone_has_no_ca_until_its_chain_is_mounted(start: Start, tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = f"sh -c 'echo $COMPASS_EVENT >> {told}'"
    sidecar = start(**Pair(render([LEAF])).put(tmp_path), on_renew_command=command).ready()
    assert sidecar.client.get("/certificate").json()["ca"] is None
    assert sidecar.client.get("/certificate/ca.pem").status_code == 404
    assert sidecar.status()["certificate"]["chain_length"] == 1
    wait_until(told.exists, "the command")
    etags = [sidecar.client.get(path).headers["ETag"] for path in ("/certificate", "/certificate/chain.pem")]
    Pair(PEM).put(tmp_path)
    look(sidecar)
    waited = sidecar.client.get("/certificate?wait=60s", headers={"If-None-Match": etags[0]}, timeout=90)
    assert waited.status_code == 200
    assert waited.json()["ca"] == render(CHAIN[1:]).decode()
    assert sidecar.client.get("/certificate/chain.pem").headers["ETag"] != etags[1]
    assert sidecar.client.get("/certificate/ca.pem").content == render(CHAIN[1:])
    assert sidecar.status()["certificate"]["chain_length"] == 3
    wait_until(lambda: told.read_text().split() == ["imported", "imported"], "the second command")


def test_a_pair_that_is_not_taken_over_is_named_once(start: Start, tmp_path: Path) -> None:
    sidecar = start(**Pair(PEM).put(tmp_path)).ready()
    before = sidecar.fingerprint()
    older = ISSUING.issue(key=rsa_key(4).public_key(), not_before=NOW - 2 * HOUR)
    Pair(render([older, *ISSUING.chain]), key_pem(rsa_key(4))).put(tmp_path)
    look(sidecar)
    wait_until(lambda: events(sidecar, "import-ignored"), "a look at the files", patience=60)
    (said,) = events(sidecar, "import-ignored")
    assert "is not later than the beginning of the one in use" in said["detail"]
    assert sidecar.fingerprint() == before
    assert "import-rejected" not in sidecar.status()["reasons"]


# --- what the Connector answers, and its CA file


@pytest.mark.parametrize("fault", ["ca-1024-bits", "ca-sha1", "leaf-sha1"])
def test_an_answer_that_openssl_does_not_load_is_refused_and_the_next_one_is_not(
    fault: str, start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    emulator.fault(fault)
    problem = sidecar.client.post("/renew").json()
    assert problem["code"] == "connector-protocol"
    assert "is refused by OpenSSL: " in problem["detail"]
    assert sidecar.fingerprint() == before
    emulator.heal()
    assert sidecar.client.post("/renew").status_code == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: b"".join(b"    " + line for line in pem.splitlines(keepends=True)),
        lambda pem: render([OLD.certificate]).rstrip() + pem,
        lambda pem: pem.replace(b"\n", b" "),
        base64.b64encode,
        lambda pem: ssl.PEM_cert_to_DER_cert(pem.decode()),
    ],
    ids=["indented", "no newline between", "one line", "base64", "DER"],
)
def test_trust_anchors_for_the_connector_are_read_as_kindly(
    spoil: Callable[[bytes], bytes], start: Start, importing: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ca").write_bytes(spoil(Path(importing["COMPASS_CONNECTOR_CA_FILE"]).read_bytes()))
    sidecar = start(connector_ca_file=str(tmp_path / "ca")).ready()
    assert sidecar.client.post("/renew").status_code == 200
