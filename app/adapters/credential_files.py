"""A credential that an operator gave us as files, often a mounted Secret that changes under us."""

import errno
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.chain import order
from ..core.credential import (
    Chain,
    Credential,
    is_plain,
    load_private_key,
    parse_certificates,
    pem_blocks,
    render_private_key,
)
from ..errors import KeyMismatch, MalformedCredential, UntrustedChain
from . import files

# How a Secret is mounted: the files are links into this one, which kubelet swaps.
_DATA = "..data"
# A Secret that is swapped again while we read is not to be expected; one swap is.
_ATTEMPTS = 3
# What ends without a change of the files: `changed` must not wait for one then.
_PASSING = files.SHORTAGE | {errno.EIO}

Stamp = tuple[tuple[str, int, int, int, int] | None, ...]


class CredentialFiles:
    """A chain and its key, in two files or in one. Synchronous."""

    def __init__(self, certificate_file: Path, key_file: Path, passphrase: bytes | None = None) -> None:
        """Looks at nothing yet."""
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._passphrase = passphrase
        self._seen: Stamp | None = None

    def stamp(self) -> Stamp:
        """Which files these are right now, without reading them: path, inode, size and times of each."""
        return tuple(_stamp(path) for path in self._resolve())

    def changed(self) -> bool:
        """Whether the files are others than at the last `read`, good or bad; True before the first."""
        return self.stamp() != self._seen

    def read(self) -> Credential:
        """Key and chain, which fit each other; the dates are not looked at.

        Raises MalformedCredential, KeyMismatch or UntrustedChain: one sentence, with the name of
        the file and nothing of what is in it.
        """
        certificate_pem, key_pem = self._read_both()
        certificates = self._certificates(certificate_pem)
        key = self._key(key_pem)
        chain = self._chain(certificates, key, certificate_pem)
        return Credential(chain, render_private_key(key))

    def _read_both(self) -> tuple[bytes, bytes]:
        """Both contents, of one moment: read again if the files were swapped meanwhile."""
        for _ in range(_ATTEMPTS):
            certificate_path, key_path = self._resolve()
            self._seen = (_stamp(certificate_path), _stamp(key_path))
            try:
                contents = (
                    _content(certificate_path, self._certificate_file),
                    _content(key_path, self._key_file),
                )
            except MalformedCredential as error:
                if self.changed():
                    continue
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING:
                    self._seen = None
                raise
            if not self.changed():
                return contents
        raise KeyMismatch(f"{self._certificate_file} and {self._key_file} change while they are read")

    def _resolve(self) -> tuple[Path, Path]:
        """The files behind the names, each link to a folder followed once for both of them."""
        certificate, key = self._certificate_file, self._key_file
        folders = {parent: _Folder(parent) for parent in {certificate.parent, key.parent}}
        return folders[certificate.parent].find(certificate.name), folders[key.parent].find(key.name)

    def _certificates(self, pem: bytes) -> tuple[x509.Certificate, ...]:
        try:
            return parse_certificates(pem)
        except MalformedCredential as error:
            raise MalformedCredential(f"{self._certificate_file} {error.detail}") from error

    def _key(self, pem: bytes) -> rsa.RSAPrivateKey:
        try:
            return load_private_key(pem, passphrase=self._passphrase)
        except MalformedCredential as error:
            raise MalformedCredential(f"{self._key_file} {error.detail}") from error

    def _chain(self, certificates: tuple[x509.Certificate, ...], key: rsa.RSAPrivateKey, pem: bytes) -> Chain:
        public_key = key.public_key()
        leaf = next((each for each in certificates if each.public_key() == public_key), None)
        if leaf is None:
            raise KeyMismatch(
                f"{self._key_file} is the key of none of the certificates in {self._certificate_file}"
            )
        try:
            ordered = order(leaf, certificates)
        except UntrustedChain as error:
            place = certificates.index(leaf) + 1
            raise UntrustedChain(
                f"{self._certificate_file} has certificates that do not belong to the chain of its"
                f" certificate {place}, which is the one for the key"
            ) from error
        rendered = Chain.of(ordered)
        return (
            Chain(ordered, pem, rendered.ca_pem)
            if pem.endswith(b"\n") and is_plain(pem, ordered)
            else rendered
        )


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


def _content(path: Path, name: Path) -> bytes:
    try:
        content = files.read_named(path)
    except FileNotFoundError as error:
        raise MalformedCredential(f"{name} does not exist") from error
    except OSError as error:
        raise MalformedCredential(f"{name} cannot be read: {_reason(error)}") from error
    if not content.strip():
        raise MalformedCredential(f"{name} is empty")
    if not pem_blocks(content):
        der = content.startswith(b"\x30\x82")
        raise MalformedCredential(
            f"{name} is not PEM" + ("; it looks like DER, so convert it" if der else "")
        )
    return content


def _reason(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f"permission denied (we are uid {os.geteuid()}, gid {os.getegid()})"
    return files.reason(error)
