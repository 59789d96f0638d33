"""Trust anchors for a server's certificate: the file that an operator names, or the system's store."""

import ssl
from pathlib import Path

from ..core.pem import certificates
from ..errors import ConnectorUntrusted, MalformedCredential
from . import files
from .reader import Reader


class Anchors:
    """The file is read again before each call. While it cannot be used, the anchors read last stay in use."""

    def __init__(self, variable: str, file: Path | None) -> None:
        self.variable = variable
        self.file = file
        self._problem: str | None = None
        self._certificates: tuple[bytes, ...] | None = None
        self._reader = Reader("anchors")

    async def read(self) -> tuple[bytes, ...] | None:
        """The certificates in use from now on, as DER; None for the system's. Never raises."""
        if self.file is None:
            return None
        try:
            self._certificates, self._problem = await self._reader.run(_read, self.file), None
        except OSError as error:
            self._blame(files.reason(error))
        except ValueError as error:
            self._blame(str(error))
        return self._certificates

    async def check(self) -> None:
        """Raises ConnectorUntrusted if the file cannot be used now."""
        await self.read()
        if self._problem is not None:
            raise ConnectorUntrusted(self._problem)

    def context(self) -> ssl.SSLContext:
        """A context that trusts them alone. Blocks. Raises ConnectorUntrusted if there are none."""
        if self.file is None:
            return system_context()
        if self._certificates is None:
            raise ConnectorUntrusted(self._problem or f"{self.variable} was not read yet")
        context = _context()
        context.load_verify_locations(cadata=b"".join(self._certificates))
        # What an operator names is an anchor, even if it is an intermediate or the server's own certificate.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _blame(self, fault: str) -> None:
        self._problem = (
            f"{self.variable}: {self.file} cannot be used: {fault}; it should have the PEM of the server's CA"
        )


def _read(file: Path) -> tuple[bytes, ...]:
    """The certificates that OpenSSL loads. Raises OSError, or ValueError if there is none."""
    content = files.read_named(file)
    try:
        usable = tuple(der for der in certificates(content) if _is_loaded(der))
    except MalformedCredential as error:
        raise ValueError(f"it {error.detail}") from error
    if not usable:
        raise ValueError("it has no certificate that OpenSSL loads")
    return usable


def _is_loaded(der: bytes) -> bool:
    try:
        _context().load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return True


def system_context() -> ssl.SSLContext:
    """A context that trusts what the system trusts. Blocks for 24 ms."""
    context = _context()
    context.load_default_certs()
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
