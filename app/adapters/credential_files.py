"""A credential that an operator gave us as files, often a mounted Secret that changes under us."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.certificate import begins, ends, has_key
from ..core.chain import check_issuers, find_path, left_out
from ..core.credential import Chain, Credential, Found, is_plain, render_private_key
from ..core.key_material import find_certificates, load_private_key
from ..core.pem import unwrap
from ..errors import CredentialError, KeyMismatch, MalformedCredential
from . import files
from .tls import fit_for_tls

_CERTIFICATE_VARIABLE, _KEY_VARIABLE = "COMPASS_CLIENT_CERTIFICATE_FILE", "COMPASS_CLIENT_KEY_FILE"
# How a Secret is mounted: the files are links into this one, which kubelet swaps.
_DATA = "..data"
# A Secret that is swapped again while we read is not to be expected; one swap is.
_ATTEMPTS = 3
# What ends without a change of the files: `changed` must not wait for one then.
_PASSING = files.SHORTAGE | {errno.EIO}

Stamp = tuple[tuple[str, int, int, int, int] | None, ...]


class CredentialFiles:
    """A chain and its key, in two files or in one. Synchronous."""

    def __init__(
        self,
        certificate_file: Path,
        key_file: Path | None,
        passphrase: bytes | None = None,
        *,
        now: Callable[[], datetime],
    ) -> None:
        """Looks at nothing yet."""
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._passphrase = passphrase
        self._now = now
        self._seen: Stamp | None = None

    def stamp(self) -> Stamp:
        """Which files these are right now, without reading them: path, inode, size and times of each."""
        return tuple(_stamp(path) for path in self._resolve())

    def changed(self) -> bool:
        """Whether the files are others than at the last `read`, good or bad; True before the first."""
        return self.stamp() != self._seen

    def read(self) -> Credential:
        """Key and chain, which fit each other and which OpenSSL loads; the leaf's dates are not looked at.

        Raises MalformedCredential, KeyMismatch or UntrustedChain: one sentence, with the variable, the
        name of the file and nothing of what is in it.
        """
        certificate_content, key_content = self._read_both()
        with self._about_certificates():
            text = unwrap(certificate_content)
            found = find_certificates(text, self._passphrase)
        with self._about_key():
            key = load_private_key(unwrap(key_content), passphrase=self._passphrase)
        with self._about_certificates():
            chain = self._chain(found, key, text)
            return fit_for_tls(Credential(chain, render_private_key(key)))

    def _about_certificates(self) -> AbstractContextManager[None]:
        return _about(f"{_CERTIFICATE_VARIABLE}: {self._certificate_file}")

    def _about_key(self) -> AbstractContextManager[None]:
        if self._key_file is None:
            return _about(
                f"{_CERTIFICATE_VARIABLE}: {self._certificate_file}", f"; {_KEY_VARIABLE} is not set"
            )
        return _about(f"{_KEY_VARIABLE}: {self._key_file}")

    def _read_both(self) -> tuple[bytes, bytes]:
        """Both contents, of one moment: read again if the files were swapped meanwhile."""
        for _ in range(_ATTEMPTS):
            certificate_path, key_path = self._resolve()
            self._seen = (_stamp(certificate_path), _stamp(key_path))
            try:
                with self._about_certificates():
                    certificate_content = _content(certificate_path)
                with self._about_key():
                    key_content = _content(key_path)
            except MalformedCredential as error:
                if self.changed():
                    continue
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING:
                    self._seen = None
                raise
            if not self.changed():
                return certificate_content, key_content
        raise KeyMismatch(f"{_CERTIFICATE_VARIABLE}: the files change while they are read")

    def _resolve(self) -> tuple[Path, Path]:
        """The files behind the names, each link to a folder followed once for both of them."""
        certificate, key = self._certificate_file, self._key_file or self._certificate_file
        folders = {parent: _Folder(parent) for parent in {certificate.parent, key.parent}}
        return folders[certificate.parent].find(certificate.name), folders[key.parent].find(key.name)

    def _chain(self, found: Found, key: rsa.RSAPrivateKey, text: bytes) -> Chain:
        now = self._now()
        path = find_path(self._leaf(found, key, now), found, now)
        check_issuers(path)
        chain = replace(Chain.of(path), left_out=left_out(path, found))
        return replace(chain, pem=text) if text.endswith(b"\n") and is_plain(text, path) else chain

    def _leaf(self, found: Found, key: rsa.RSAPrivateKey, now: datetime) -> x509.Certificate:
        """The newest certificate for the key: a file may hold its predecessors too."""
        public_key = key.public_key()
        leaves = [each for each in found.certificates if has_key(each, public_key)]
        if leaves:
            return max(leaves, key=lambda leaf: (begins(leaf) <= now < ends(leaf), begins(leaf)))
        if found.unreadable:
            raise MalformedCredential(found.unreadable[0])
        raise KeyMismatch(f"has no certificate for the key in {self._key_file or 'it'}")


@contextmanager
def _about(file: str, advice: str = "") -> Iterator[None]:
    """Errors inside are about this file, which their sentence begins with."""
    try:
        yield
    except CredentialError as error:
        raise type(error)(f"{file} {error.detail}{advice}") from error.__cause__


class _Folder:
    """A folder seen once: its own links, and a Secret's `..data`, are followed now and not per file."""

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        data = files.link_target(self._path / _DATA)
        self._data = None if data is None else Path(os.path.realpath(self._path / data))

    def find(self, name: str) -> Path:
        target = files.link_target(self._path / name) or ""
        if self._data is None or not target.startswith(f"{_DATA}/"):
            return self._path / name
        return self._data / target.removeprefix(f"{_DATA}/")


def _stamp(path: Path) -> tuple[str, int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # The time of the last change of the inode too: a chmod mends what could not be read.
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content(path: Path) -> bytes:
    try:
        return files.read_named(path)
    except FileNotFoundError as error:
        raise MalformedCredential("does not exist") from error
    except OSError as error:
        raise MalformedCredential(f"cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f"permission denied (we are uid {os.geteuid()}, gid {os.getegid()})"
    return files.reason(error)
