"""What OpenSSL would refuse later is refused before it counts, and nothing of it stays behind."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from compass_sidecar.adapters.tls import fit_for_tls
from compass_sidecar.core.certificate import load
from compass_sidecar.core.credential import Chain, Credential
from compass_sidecar.errors import MalformedCredential
from tests.support.authority import Authority, key_pem, rsa_key
from tests.support.odd_certificates import signed_with_sha1

CA = Authority.create()
BELOW = CA.intermediate()
GOOD = BELOW.credential()


def loads(credential: Credential, folder: Path) -> bool:
    """Whether a TLS context takes the files as a consumer has them."""
    (folder / "tls.crt").write_bytes(credential.chain.pem)
    (folder / "tls.key").write_bytes(credential.key_pem)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except ssl.SSLError:
        return False
    return True


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: pem,
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: pem.replace(b"-----\n-----", b"-----\n\n-----"),
        lambda pem: b"\n" + pem + b"\n\n",
    ],
)
def test_what_openssl_reads_is_kept_as_it_is(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    chain = replace(GOOD.chain, pem=spoil(GOOD.chain.pem), ca_pem=spoil(GOOD.chain.ca_pem or b""))
    fit = fit_for_tls(replace(GOOD, chain=chain))
    assert fit.chain == chain
    assert loads(fit, tmp_path)


def indented(pem: bytes) -> bytes:
    return pem.replace(b"\n", b"\n    ")


@pytest.mark.parametrize("field", ["pem", "ca_pem"])
@pytest.mark.parametrize(
    "spoil",
    [
        indented,
        lambda pem: pem.replace(b"\n", b" "),
        lambda pem: pem.replace(b"\n", b"\n \n"),
        lambda pem: pem[:100] + pem[100:].replace(b"-----BEGIN", b" -----BEGIN"),
        lambda pem: pem.replace(b"-----\n-----", b"----------"),
        lambda pem: b"\xff" + pem,
    ],
    ids=["indented", "one line", "blank lines", "the second indented", "joined", "not ASCII"],
)
def test_what_openssl_does_not_read_is_rendered_anew(
    field: str, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    chain = replace(GOOD.chain, **{field: spoil(getattr(GOOD.chain, field))})
    fit = fit_for_tls(replace(GOOD, chain=chain))
    assert fit == GOOD
    assert loads(fit, tmp_path)


def weak_key() -> Credential:
    leaf = CA.issue(key=rsa_key(bits=1024).public_key())
    return Credential(Chain.of([leaf, CA.certificate]), key_pem(rsa_key(bits=1024)))


def weak_ca() -> Credential:
    weak = Authority.create(key=rsa_key(7, bits=1024))
    return weak.credential()


def weak_signature() -> Credential:
    issuer = Authority.create(key=rsa_key(2))
    leaf = load(signed_with_sha1(issuer.issue(), issuer))
    return Credential(Chain.of([leaf, issuer.certificate]), key_pem(rsa_key()))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (weak_key, "is refused by OpenSSL: ee key too small (RSA-1024 signed with SHA256; EC-secp256r1 "),
        (weak_ca, "is refused by OpenSSL: ca key too small (RSA-2048 signed with SHA256; RSA-1024 "),
        (weak_signature, "is refused by OpenSSL: ca md too weak (RSA-2048 signed with SHA1; RSA-2048 "),
        (
            lambda: replace(GOOD, key_pem=key_pem(rsa_key(1))),
            "is refused by OpenSSL: key values mismatch (RSA-2048 signed with SHA256; ",
        ),
        (lambda: replace(GOOD, key_pem=b""), "is refused by OpenSSL: "),
    ],
    ids=["a key of 1024 bits", "a CA of 1024 bits", "SHA-1", "another key", "no key"],
)
def test_what_openssl_refuses_is_refused_with_its_reason(make: Callable[[], Credential], why: str) -> None:
    with pytest.raises(MalformedCredential) as caught:
        fit_for_tls(make())
    assert caught.value.detail.startswith(why)
    assert "BEGIN" not in caught.value.detail


def test_nothing_of_a_key_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for make in (lambda: GOOD, weak_key):
        with suppress(MalformedCredential):
            fit_for_tls(make())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_key_asks_no_terminal() -> None:
    with pytest.raises(MalformedCredential):
        fit_for_tls(replace(GOOD, key_pem=key_pem(rsa_key(), passphrase=b"secret")))
