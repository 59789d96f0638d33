"""The client credential that the emulator comes with, so that `curl --cert` works at once.

It is kept over restarts while it is good, and was signed by the real clock even if the Connector's is
wrong: somebody was connected before the clock went astray.
"""

from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .authority import LeafRequest, certificates_pem, fingerprint, issue_leaf, key_pem
from .clock import real_now
from .connector import OperatorConfiguration
from .director import Director, SystemAuth
from .folder import Folder
from .options import ConsumerType
from .registry import Registry
from .subjects import as_go_writes, common_name

CERTIFICATE, KEY = "client.crt", "client.key"
_LONG_AGO = float("-inf")


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
