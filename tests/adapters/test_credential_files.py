"""An operator's pair: read as a whole, in any order and form, and refused with a sentence that helps."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from compass_sidecar.adapters.credential_files import CredentialFiles
from compass_sidecar.adapters.publisher import Publisher
from compass_sidecar.core.credential import Credential, check_key, render
from compass_sidecar.errors import CredentialError, KeyMismatch, MalformedCredential
from tests.support.authority import NOW, Authority, ec_key, key_pem, rsa_key

ROOT = Authority.create()
AUTHORITY = ROOT.intermediate()
LEAF = AUTHORITY.issue()
CHAIN = (LEAF, *AUTHORITY.chain)
KEY = key_pem(rsa_key())
PASSPHRASE = b"a secret phrase"


def pair(
    folder: Path, certificate: bytes = render(CHAIN), key: bytes = KEY, passphrase: bytes | None = None
) -> CredentialFiles:
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    return files_at(folder / "tls.crt", folder / "tls.key", passphrase)


def files_at(certificate: Path, key: Path | None = None, passphrase: bytes | None = None) -> CredentialFiles:
    return CredentialFiles(certificate, key, passphrase, now=lambda: NOW)


def refusal(files: CredentialFiles, kind: type[CredentialError] = MalformedCredential) -> str:
    with pytest.raises(CredentialError) as caught:
        files.read()
    assert type(caught.value) is kind
    return caught.value.detail


# -- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "passphrase"),
    [
        (KEY, None),
        (key_pem(rsa_key(), traditional=True), None),
        (key_pem(rsa_key(), passphrase=PASSPHRASE), PASSPHRASE),
        (key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True), PASSPHRASE),
        (b"Bag Attributes: none\r\n" + KEY.replace(b"\n", b"\r\n"), None),
    ],
)
def test_every_form_of_key_comes_out_as_plain_pkcs8(
    tmp_path: Path, key: bytes, passphrase: bytes | None
) -> None:
    found = pair(tmp_path, key=key, passphrase=passphrase).read()
    assert found.key_pem == KEY
    check_key(found.key_pem, found.chain.leaf)


def test_a_clean_chain_is_kept_byte_for_byte(tmp_path: Path) -> None:
    wide = render(CHAIN).replace(b"\n", b"\r\n")
    for pem in (render(CHAIN), wide):
        chain = pair(tmp_path, pem).read().chain
        assert (chain.pem, chain.certificates) == (pem, CHAIN)
        assert chain.ca_pem == render(CHAIN[1:])


@pytest.mark.parametrize(
    "pem",
    [
        render(CHAIN[::-1]),
        render((CHAIN[1], CHAIN[2], CHAIN[0])),
        render((*CHAIN, *CHAIN)),
        b"subject=CN = leaf\n" + render(CHAIN),
        render(CHAIN) + KEY,
        KEY + render(CHAIN),
        render(CHAIN).rstrip(),
        b"\xef\xbb\xbf" + render(CHAIN),
    ],
)
def test_a_chain_in_another_order_or_with_other_text_is_rendered_anew(tmp_path: Path, pem: bytes) -> None:
    chain = pair(tmp_path, pem).read().chain
    assert (chain.pem, chain.certificates) == (render(CHAIN), CHAIN)


def test_key_and_chain_may_be_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(KEY + render(CHAIN))
    for files in (files_at(path, path), files_at(path)):
        found = files.read()
        assert (found.key_pem, found.chain.certificates, found.chain.pem) == (KEY, CHAIN, render(CHAIN))


def test_a_leaf_alone_has_no_ca(tmp_path: Path) -> None:
    assert pair(tmp_path, render([LEAF])).read().chain.ca_pem is None


def test_the_leaf_is_the_certificate_for_the_key_wherever_it_stands(tmp_path: Path) -> None:
    below = Authority(AUTHORITY.issue(), rsa_key(), AUTHORITY)
    found = pair(tmp_path, render([ROOT.certificate, below.certificate, AUTHORITY.certificate])).read()
    assert found.chain.certificates == (below.certificate, AUTHORITY.certificate, ROOT.certificate)


# -- what is refused --------------------------------------------------------------------------


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (Path.unlink, "does not exist"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "does not exist"),
        (_folder, "cannot be read: it is a folder"),
        (_pipe, "cannot be read: it is a pipe, and not a regular file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b" \n\n"), "is empty"),
        (lambda path: os.truncate(path, 1024 * 1024 + 1), "cannot be read: it is larger than 1048576 bytes"),
        (lambda path: path.write_bytes(b"hunter2"), "is not PEM"),
        (lambda path: path.write_bytes(bytes.fromhex("feedfeed0002")), "is a Java keystore; convert it to"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, spoil: Callable[[Path], Any], sentence: str
) -> None:
    files = pair(tmp_path)
    spoil(tmp_path / name)
    assert refusal(files).startswith(f"{VARIABLES[name]}: {tmp_path / name} {sentence}")


VARIABLES = {"tls.crt": "COMPASS_CLIENT_CERTIFICATE_FILE", "tls.key": "COMPASS_CLIENT_KEY_FILE"}
NONSENSE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("certificate", "sentence"),
    [
        (KEY, "has no PEM block CERTIFICATE, only PRIVATE KEY"),
        (render([LEAF]) + NONSENSE, "certificate 2 cannot be parsed: "),
        (NONSENSE + render(CHAIN[1:]), "certificate 1 cannot be parsed: "),
        (render([AUTHORITY.issue(serial=n + 3) for n in range(501)]), "has 501 certificates, more than 500"),
        (render([LEAF, ROOT.certificate]), "the client certificate was signed by none of the other 1"),
    ],
)
def test_a_certificate_file_that_is_wrong_is_named(tmp_path: Path, certificate: bytes, sentence: str) -> None:
    with pytest.raises(CredentialError) as caught:
        pair(tmp_path, certificate).read()
    named = f"COMPASS_CLIENT_CERTIFICATE_FILE: {tmp_path / 'tls.crt'}"
    assert caught.value.detail.startswith(f"{named} {sentence}")


ENCRYPTED = key_pem(rsa_key(), passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("key", "passphrase", "sentence"),
    [
        (render(CHAIN), None, "has no PEM block PRIVATE KEY, only CERTIFICATE"),
        (ENCRYPTED, None, "is encrypted and no passphrase is set"),
        (ENCRYPTED, b"wrong", "cannot be decrypted: wrong passphrase?"),
        (KEY + key_pem(rsa_key(1)), None, "has 2 private keys, one is needed"),
        (key_pem(ec_key()), None, "is not an RSA key; the Connector signs RSA keys only"),
        (key_pem(ec_key(), traditional=True), None, "is not an RSA key; the Connector signs RSA keys only"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", None, "cannot be parsed"),
    ],
)
def test_a_key_file_that_is_wrong_is_named(
    tmp_path: Path, key: bytes, passphrase: bytes | None, sentence: str
) -> None:
    files = pair(tmp_path, key=key, passphrase=passphrase)
    assert refusal(files) == f"COMPASS_CLIENT_KEY_FILE: {tmp_path / 'tls.key'} {sentence}"


def test_a_key_for_none_of_the_certificates_is_a_mismatch(tmp_path: Path) -> None:
    said = refusal(pair(tmp_path, key=key_pem(rsa_key(1))), KeyMismatch)
    named = f"COMPASS_CLIENT_CERTIFICATE_FILE: {tmp_path}/tls.crt"
    assert said == f"{named} has no certificate for the key in {tmp_path}/tls.key"


OLDER = AUTHORITY.issue(not_before=NOW - timedelta(days=9), lifetime=timedelta(days=8))


@pytest.mark.parametrize("other", [Authority.create("Other CA").certificate, OLDER])
def test_what_does_not_belong_to_the_chain_is_left_out(tmp_path: Path, other: x509.Certificate) -> None:
    for crowd in ((other, *CHAIN), (CHAIN[1], LEAF, CHAIN[2], other)):
        chain = pair(tmp_path, render(crowd)).read().chain
        assert (chain.pem, chain.certificates) == (render(CHAIN), CHAIN)
        assert chain.left_out
        assert chain.left_out.startswith("1 certificate is not needed for the chain")


def test_a_whole_bundle_beside_the_leaf_is_left_out_but_for_the_path(tmp_path: Path) -> None:
    bundle = [Authority.create(f"CA {number}").certificate for number in range(150)]
    bundle[70:70] = CHAIN[1:]
    chain = pair(tmp_path, render([LEAF, *bundle]) + NONSENSE).read().chain
    assert chain.certificates == CHAIN
    assert "151 certificates are not needed" in (chain.left_out or "")


def test_an_older_certificate_without_a_ca_is_left_out_too(tmp_path: Path) -> None:
    assert pair(tmp_path, render([OLDER, LEAF])).read().chain.certificates == (LEAF,)


def test_an_expired_pair_is_read_with_the_chain_that_it_had(tmp_path: Path) -> None:
    past = Authority.create(not_before=NOW - timedelta(days=9), lifetime=timedelta(days=8))
    leaf = past.issue(not_before=NOW - timedelta(days=9), lifetime=timedelta(days=2))
    assert pair(tmp_path, render([leaf, past.certificate])).read().chain.certificates == (leaf, *past.chain)


def test_no_refusal_and_no_repr_shows_what_is_in_a_file(tmp_path: Path) -> None:
    secret = b"hunter2hunter2hunter2"
    block = b"-----BEGIN PRIVATE KEY-----\n" + secret + b"\n-----END PRIVATE KEY-----\n"
    for content in (secret, block):
        files = pair(tmp_path, key=content, passphrase=None)
        assert "hunter2" not in refusal(files)
    files = pair(tmp_path, key=ENCRYPTED, passphrase=b"hunter2")
    assert "hunter2" not in refusal(files) + repr(files)


def test_a_file_that_we_may_not_read_says_who_we_are() -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from compass_sidecar.adapters.credential_files import CredentialFiles\n"
        "if os.geteuid() == 0: os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "folder = Path(sys.argv[1])\n"
        "try: CredentialFiles(folder / 'tls.crt', folder / 'tls.key', now=None).read()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        pair(Path(directory))
        (Path(directory) / "tls.key").chmod(0)
        command = [sys.executable, "-c", program, directory]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    uid, gid = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    assert said == (
        f"MalformedCredential COMPASS_CLIENT_KEY_FILE: {directory}/tls.key cannot be read: permission denied"
        f" (we are uid {uid}, gid {gid})\n"
    )


# -- change -----------------------------------------------------------------------------------


def test_changed_is_true_until_read_and_again_after_a_change(tmp_path: Path) -> None:
    files = pair(tmp_path)
    assert files.changed()
    files.read()
    assert not files.changed()
    (tmp_path / "tls.key").write_bytes(KEY + b"\n")
    assert files.changed()
    files.read()
    assert not files.changed()
    os.utime(tmp_path / "tls.crt", ns=(0, 1))
    assert files.changed()


def test_bad_files_are_not_read_again_before_they_change(tmp_path: Path) -> None:
    files = pair(tmp_path, key=b"")
    refusal(files)
    assert not files.changed()
    (tmp_path / "tls.key").unlink()
    assert files.changed()
    refusal(files)
    assert not files.changed()
    (tmp_path / "tls.key").write_bytes(KEY)
    assert files.changed()
    assert files.read().key_pem == KEY


def test_what_passes_without_a_change_of_the_files_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pair(tmp_path)

    def exhausted(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", exhausted)
        assert "too many open files" in refusal(files)
    assert files.changed()
    files.read()


def test_refusing_a_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    files = pair(tmp_path)
    _folder(tmp_path / "tls.key")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        refusal(files)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Secret:
    """A mounted Secret, swapped as kubelet does."""

    def __init__(self, folder: Path) -> None:
        self._publisher = Publisher.open(folder, group=None, warn=print)
        self.folder = folder

    def swap(self, credential: Credential) -> None:
        self._publisher.publish(credential)

    def files(self) -> CredentialFiles:
        return files_at(self.folder / "tls.crt", self.folder / "tls.key")


def test_a_swapped_secret_is_a_change(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    secret.swap(AUTHORITY.credential(number=1))
    files = secret.files()
    files.read()
    assert not files.changed()
    second = AUTHORITY.credential(number=2)
    secret.swap(second)
    assert files.changed()
    assert files.read() == second


def test_a_secret_that_is_swapped_in_the_middle_is_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Secret(tmp_path)
    first, second = (AUTHORITY.credential(number=n) for n in (1, 2))
    secret.swap(first)
    files = secret.files()
    real = os.open
    swapped: list[Any] = []

    def swap_then_open(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("tls.key") and not swapped:
            swapped.append(path)
            secret.swap(second)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_then_open)
    assert files.read() == second
    assert swapped
    assert not files.changed()


def test_a_folder_that_vanishes_in_the_middle_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Secret(tmp_path)
    made = [AUTHORITY.credential(number=n) for n in range(3)]
    secret.swap(made[0])
    files = secret.files()
    real = os.open
    swapped: list[Any] = []

    def swap_twice_then_open(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("tls.key") and not swapped:
            swapped.append(path)
            secret.swap(made[1])
            secret.swap(made[2])
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_twice_then_open)
    assert files.read() == made[2]


def relink(link: Path, target: str) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.rename(link)


@pytest.fixture
def versions(tmp_path: Path) -> list[Credential]:
    """Two pairs, in the folders `0` and `1`."""
    made = [AUTHORITY.credential(number=number) for number in (0, 1)]
    for number, each in enumerate(made):
        (tmp_path / str(number)).mkdir()
        pair(tmp_path / str(number), each.chain.pem, each.key_pem)
    return made


def by_folder(directory: Path) -> tuple[Path, CredentialFiles]:
    """As in `/etc/app/live -> versions/7`: the link that is swapped, and the files behind it."""
    link = directory / "live"
    return link, files_at(link / "tls.crt", link / "tls.key")


def by_data(directory: Path) -> tuple[Path, CredentialFiles]:
    for name in ("tls.crt", "tls.key"):
        (directory / name).symlink_to(f"..data/{name}")
    return directory / "..data", files_at(directory / "tls.crt", directory / "tls.key")


@pytest.mark.parametrize("layout", [by_folder, by_data])
def test_a_link_to_a_folder_is_followed_once_for_both_files(
    tmp_path: Path,
    versions: list[Credential],
    monkeypatch: pytest.MonkeyPatch,
    layout: Callable[[Path], tuple[Path, CredentialFiles]],
) -> None:
    link, files = layout(tmp_path)
    link.symlink_to("0")
    assert files.read() == versions[0]
    real = os.open

    def elsewhere_for_a_moment(path: Any, *arguments: Any, **options: Any) -> int:
        if not str(path).endswith("tls.key"):
            return real(path, *arguments, **options)
        relink(link, "1")
        descriptor = real(path, *arguments, **options)
        relink(link, "0")
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", elsewhere_for_a_moment)
        assert files.read() == versions[0]
    relink(link, "1")
    assert files.changed()
    assert files.read() == versions[1]


def test_files_that_never_stop_changing_are_a_mismatch_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pair(tmp_path)
    real = os.open

    def touch_then_open(path: Any, *arguments: Any, **options: Any) -> int:
        with (tmp_path / "tls.crt").open("ab") as file:
            file.write(b"\n")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", touch_then_open)
    assert "change while they are read" in refusal(files, KeyMismatch)


def test_a_secret_that_is_swapped_all_the_time_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    made = [AUTHORITY.credential(number=n, not_before=NOW + timedelta(n)) for n in range(3)]
    secret.swap(made[0])
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            secret.swap(made[turn % 3])

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    try:
        for _ in range(60):
            try:
                assert secret.files().read() in made
                read += 1
            except (KeyMismatch, MalformedCredential) as error:
                assert "change while" in error.detail or "does not exist" in error.detail  # noqa: PT017
    finally:
        stop.set()
        thread.join()
    assert read > 0


def test_an_ec_certificate_beside_an_rsa_key_is_a_mismatch(tmp_path: Path) -> None:
    public_key: ec.EllipticCurvePublicKey = ec_key().public_key()
    assert "has no certificate for the key" in refusal(
        pair(tmp_path, render([AUTHORITY.issue(key=public_key)])), KeyMismatch
    )
