"""TLS of the listeners: contexts with the right server certificate, and with wrong ones.

Verification of clients is OpenSSL's, so its refusals are genuine: 116 (TLS 1.2: 40) without a certificate,
45 for an expired one, 42 before its time, 48 from an unknown CA. It uses the real clock, whatever the
Connector's says. Sessions are not resumed: a resumed one would skip the check of the client's certificate.
"""

import ssl
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from .authority import (
    Pair,
    certificates_pem,
    create_server_authority,
    issue_server,
    key_pem,
    other_authority,
    twin,
)
from .clock import real_now
from .options import ListenerName

_LIFETIME = timedelta(days=397)  # what public CAs give at most, and what strict clients accept
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class ServerTLS:
    """Contexts per listener, made when first needed and kept until the trusted client CA changes."""

    def __init__(
        self,
        *,
        authority: Pair,
        names: list[str],
        anchor: x509.Certificate,
        tls_max: Literal["1.2", "1.3"],
        scratch: Path,
    ) -> None:
        self._authority = authority
        self._names = names
        self._anchor = anchor
        self._scratch = scratch
        self._maximum = _VERSIONS[tls_max]
        self._contexts: dict[tuple[str, ListenerName], ssl.SSLContext] = {}

    def trust(self, anchor: x509.Certificate) -> None:
        """Verifies clients with another CA from now on."""
        self._anchor = anchor
        self._contexts.clear()

    def right(self, listener: ListenerName) -> ssl.SSLContext:
        """The right certificate, the right trust."""
        return self._context("right", listener, lambda: self._issue(self._names))

    def unknown_ca(self, listener: ListenerName) -> ssl.SSLContext:
        """The right names, from a CA that no client knows."""
        return self._context("unknown-ca", listener, self._issue_unknown)

    def expired(self, listener: ListenerName) -> ssl.SSLContext:
        """The right names and CA, an hour too late."""
        return self._context(
            "expired", listener, lambda: self._issue(self._names, until=real_now() - timedelta(hours=1))
        )

    def wrong_name(self, listener: ListenerName) -> ssl.SSLContext:
        """The right CA, for another host."""
        return self._context("wrong-name", listener, lambda: self._issue(["connector.invalid"]))

    def other_client_ca(self, listener: ListenerName) -> ssl.SSLContext:
        """Clients are verified with a CA of the same name and another key: a server-side accident."""
        return self._context(
            "other-ca", listener, lambda: self._issue(self._names), anchor=other_authority(2).anchor
        )

    def future_client_ca(self, listener: ListenerName) -> ssl.SSLContext:
        """Clients are verified as if their CA began tomorrow."""
        tomorrow = real_now() + timedelta(days=1)
        anchor = twin(
            self._anchor, other_authority(2).issuer.key, not_before=tomorrow, not_after=tomorrow + _LIFETIME
        )
        return self._context("early-ca", listener, lambda: self._issue(self._names), anchor=anchor)

    def past_client_ca(self, listener: ListenerName) -> ssl.SSLContext:
        """Clients are verified as if their CA had ended yesterday."""
        yesterday = real_now() - timedelta(days=1)
        anchor = twin(
            self._anchor, other_authority(2).issuer.key, not_before=yesterday - _LIFETIME, not_after=yesterday
        )
        return self._context("ended-ca", listener, lambda: self._issue(self._names), anchor=anchor)

    def constrained_client_ca(self, listener: ListenerName) -> ssl.SSLContext:
        """Clients are verified as if their CA were for others only."""
        others = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Others")])
        anchor = twin(self._anchor, other_authority(2).issuer.key, permitted=others)
        return self._context("narrow-ca", listener, lambda: self._issue(self._names), anchor=anchor)

    def _context(
        self,
        kind: str,
        listener: ListenerName,
        issue: Callable[[], Pair],
        *,
        anchor: x509.Certificate | None = None,
    ) -> ssl.SSLContext:
        if (kind, listener) not in self._contexts:
            self._contexts[kind, listener] = self._make(listener, issue(), anchor or self._anchor)
        return self._contexts[kind, listener]

    def _make(self, listener: ListenerName, pair: Pair, anchor: x509.Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = self._maximum
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile(
            dir=self._scratch, suffix=".pem"
        ) as file:  # ssl reads pairs from files only; mode 0600
            file.write(key_pem(pair.key) + certificates_pem([pair.certificate]))
            file.flush()
            context.load_cert_chain(file.name)
        if listener == "mtls":
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=certificates_pem([anchor]).decode())
        return context

    def _issue(self, names: list[str], *, until: datetime | None = None) -> Pair:
        end = until or real_now() + _LIFETIME
        return issue_server(self._authority, names, not_before=end - _LIFETIME, not_after=end)

    def _issue_unknown(self) -> Pair:
        now = real_now()
        authority = create_server_authority(now=now, name="Unknown CA")
        return issue_server(authority, self._names, not_before=now, not_after=now + _LIFETIME)


ContextFactory = Callable[[ServerTLS, ListenerName], ssl.SSLContext]
