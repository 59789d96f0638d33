"""The emulator's folder: authorities, the first client credential, state, and `endpoints.json`.

Everything in it is made on the first start and used again on later ones, so that a client's credential
outlives a restart of its Connector. `endpoints.json` is removed first and written last: whatever waits
for it finds an open emulator.
"""

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .authority import (
    ClientAuthority,
    LeafRequest,
    Pair,
    certificates_pem,
    create_server_authority,
    fingerprint,
    issue_leaf,
    key_pem,
)
from .clock import real_now
from .director import Director, SystemAuth
from .journal import Registry
from .options import ConsumerType, OperatorConfiguration
from .subjects import as_go_writes, common_name

_PUBLIC, _PRIVATE = 0o644, 0o600
_NAME = "state.json"
_SOON_SECONDS = 0.1  # a write takes as long as half a call, and a soak test mints a token per call
CERTIFICATE, KEY = "client.crt", "client.key"
_LONG_AGO = float("-inf")


class FolderError(Exception):
    """The folder cannot be used; the message says which file and why."""


class Folder:
    """Reads and writes the files by name; every write is a rename. One emulator per folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
        except OSError as error:
            raise FolderError(f"cannot use {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.remove("endpoints.json")
        except OSError as error:
            os.close(self._lock)
            raise FolderError(f"{path} is in use by another emulator, or not writable") from error

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)  # which also unlocks it

    def file(self, name: str) -> str:
        """The absolute path of a file."""
        return str(self.path / name)

    def read(self, name: str) -> bytes | None:
        """The content, or None if there is no such file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FolderError(f"cannot read {self.file(name)}: {error.strerror}") from error

    def write(self, name: str, content: bytes, *, mode: int = _PUBLIC) -> None:
        """Replaces a file in one step."""
        temporary = self.path / f".{name}.new"
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            temporary.replace(self.path / name)
        except OSError as error:
            raise FolderError(f"cannot write {self.file(name)}: {error.strerror}") from error

    def write_private(self, name: str, content: bytes) -> None:
        """The same for a secret."""
        self.write(name, content, mode=_PRIVATE)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """JSON that may hold a token: readable by the owner only."""
        self.write_private(name, json.dumps(content, indent=2).encode() + b"\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """An object; empty if the file is absent or damaged, since state is only a convenience."""
        try:
            content = json.loads(self.read(name) or b"{}")
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def server_authority(self) -> Pair:
        """The CA of server certificates, made if absent, unusable or expired."""
        pair = self._pair("server-ca")
        if pair is None or pair.certificate.not_valid_after_utc <= real_now():
            pair = create_server_authority(now=real_now())
            self._write_pair("server-ca", pair)
        return pair

    def client_authority(self, *, chain: int, lifetime: timedelta) -> ClientAuthority:
        """The client CA, made anew if it is absent, expired, or has another length than asked for."""
        issuer, root = self._pair("client-ca"), self._pair("client-root-ca")
        if issuer is not None and (root is not None) == (chain == 3):
            authority = ClientAuthority(issuer, root)
            if authority.valid_at(real_now()):
                return authority
        return self.replace_client_authority(chain=chain, lifetime=lifetime)

    def replace_client_authority(self, *, chain: int, lifetime: timedelta) -> ClientAuthority:
        """A new client CA; what the old one signed is refused from now on."""
        authority = ClientAuthority.create(chain=chain, lifetime=lifetime, now=real_now())
        self._write_pair("client-ca", authority.issuer, above=authority.certificates[1:])
        if authority.root is not None:
            self._write_pair("client-root-ca", authority.root)
        else:
            self.remove("client-root-ca.crt")
            self.remove("client-root-ca.key")
        return authority

    def _pair(self, name: str) -> Pair | None:
        certificate, key = self.read(f"{name}.crt"), self.read(f"{name}.key")
        if certificate is None or key is None:
            return None
        try:
            loaded = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
            pair_certificate = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError):
            return None
        if not isinstance(loaded, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
            return None
        matches = loaded.public_key() == pair_certificate.public_key()
        return Pair(pair_certificate, loaded) if matches else None

    def _write_pair(self, name: str, pair: Pair, *, above: Sequence[x509.Certificate] = ()) -> None:
        self.write_private(f"{name}.key", key_pem(pair.key))
        self.write(f"{name}.crt", certificates_pem([pair.certificate, *above]))


class StateFile:
    """Saved a tenth of a second after a change, with all the changes until then, and at the end."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._saving: asyncio.TimerHandle | None = None
        self._director: Director | None = None
        self._registry: Registry | None = None

    def load(self, director: Director, registry: Registry) -> None:
        """Fills them with what was saved, and saves them from now on."""
        state = self._folder.read_json(_NAME)
        with contextlib.suppress(TypeError, ValueError):  # a damaged file is no reason not to start
            director.load(state.get("system_auths", []), state.get("owners", {}))
            registry.load(state.get("revoked", []))
        self._director, self._registry = director, registry

    def changed(self) -> None:
        """To be called after every change."""
        with contextlib.suppress(RuntimeError):  # without an event loop no listener is open yet
            if self._saving is None:
                self._saving = asyncio.get_running_loop().call_later(_SOON_SECONDS, self.save)

    def save(self) -> None:
        """Writes now."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if self._director is not None and self._registry is not None:
            state = {**self._director.dump(), "revoked": self._registry.dump()}
            self._folder.write_json(_NAME, state)


class FirstCredential:
    """Makes `client.crt` and `client.key`, or finds them good."""

    def __init__(
        self,
        *,
        folder: Folder,
        operator: OperatorConfiguration,
        director: Director,
        registry: Registry,
        consumer_type: ConsumerType,
        client_id: str | None = None,
    ) -> None:
        self._consumer_type = consumer_type
        self._client_id = client_id
        self._folder = folder
        self._operator = operator
        self._director = director
        self._registry = registry

    def good(self) -> bool:
        """Whether what is there would be accepted, and lives no longer than the Connector now grants."""
        leaf = self._leaf()
        if leaf is None or not self._matches_key(leaf) or not self._is_ours(leaf):
            return False
        remaining = leaf.not_valid_after_utc - real_now()
        if not timedelta() < remaining <= self._operator.lifetime:
            return False
        self._registry.record(leaf, issued_at=_LONG_AGO)
        return True

    def issue(self, key: rsa.RSAPrivateKey) -> x509.Certificate:
        """A new one for this key, of the same system auth if that still exists and is of the right type."""
        previous = self._leaf()
        auth = self._known(self._client_id or (common_name(previous.subject) if previous else ""))
        auth = auth or self._director.create(self._consumer_type, self._client_id)
        now = real_now()
        request = LeafRequest(
            subject=as_go_writes(self._operator.subject.name(auth.id)),
            public_key=key.public_key(),
            not_before=now,
            not_after=now + self._operator.lifetime,
            hash_algorithm=hashes.SHA256(),
        )
        leaf = issue_leaf(self._operator.authority.issuer, request)
        self._registry.record(leaf, issued_at=_LONG_AGO)
        self._folder.write_private(KEY, key_pem(key))
        self._folder.write(CERTIFICATE, certificates_pem([leaf, *self._operator.authority.certificates]))
        return leaf

    def _known(self, client_id: str) -> SystemAuth | None:
        auth = self._director.find(client_id)
        return auth if auth and auth.consumer_type == self._consumer_type else None

    def _leaf(self) -> x509.Certificate | None:
        content = self._folder.read(CERTIFICATE)
        try:
            return x509.load_pem_x509_certificate(content) if content else None
        except ValueError:
            return None

    def _matches_key(self, leaf: x509.Certificate) -> bool:
        content = self._folder.read(KEY)
        try:
            key = serialization.load_pem_private_key(
                content or b"", None, unsafe_skip_rsa_key_validation=True
            )
        except (ValueError, TypeError):
            return False
        return key.public_key() == leaf.public_key()

    def _is_ours(self, leaf: x509.Certificate) -> bool:
        try:
            leaf.verify_directly_issued_by(self._operator.authority.issuer.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        client_id = common_name(leaf.subject)
        known = self._known(client_id) is not None and self._client_id in (None, client_id)
        revoked = self._registry.revoked(fingerprint(leaf))
        return known and not revoked and self._operator.subject.match(leaf.subject)
