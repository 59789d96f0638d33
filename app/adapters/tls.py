"""Key and chain as the TLS library takes them: files in memory, and its verdict before they count."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ..core.credential import Chain, Credential, key_algorithm
from ..core.door import ClientPair
from ..errors import MalformedCredential
from . import files


@contextmanager
def pair_in_memory(credential: Credential) -> Iterator[ClientPair]:
    """The pair as files for `ssl`, which reads files only; they are in memory and end with the block."""
    descriptors = [os.memfd_create(name) for name in ("certificate", "key")]
    try:
        for descriptor, content in zip(descriptors, (credential.chain.pem, credential.key_pem), strict=True):
            files.write_all(descriptor, content)
        certificate_file, key_file = (Path(f"/proc/self/fd/{descriptor}") for descriptor in descriptors)
        yield ClientPair(credential.chain.fingerprint, certificate_file, key_file)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def fit_for_tls(credential: Credential) -> Credential:
    """The credential as OpenSSL loads it: its PEM as it is if OpenSSL reads all of it, else rendered anew.

    Raises MalformedCredential with OpenSSL's reason if it does not load this key and this chain. Where
    there are no files in memory (no /proc), the first call to the Connector has to tell.
    """
    chain = credential.chain
    if not _reads(chain.pem, len(chain.certificates)) or not _reads(chain.ca_pem, len(chain.authorities)):
        rendered = Chain.of(chain.certificates)
        chain = replace(chain, pem=rendered.pem, ca_pem=rendered.ca_pem)
    fit = replace(credential, chain=chain)
    try:
        with pair_in_memory(fit) as pair:
            # Without a password of our own OpenSSL would ask for one on the terminal.
            _context().load_cert_chain(pair.certificate_file, pair.key_file, password="")
    except ssl.SSLError as error:
        facts = "; ".join(map(_facts, chain.certificates))
        raise MalformedCredential(f"is refused by OpenSSL: {_reason(error)} ({facts})") from error
    except OSError:  # a mount without /proc, or no descriptor left
        return fit
    return fit


def _reads(pem: bytes | None, count: int) -> bool:
    """Whether OpenSSL finds this many certificates in a PEM text. It passes over lines that are indented."""
    context = _context()
    with suppress(ssl.SSLError, ValueError):
        if pem is not None:
            context.load_verify_locations(cadata=pem.decode("ascii"))
    return context.cert_store_stats()["x509"] == count


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "it is unreadable").lower().replace("_", " ")


def _facts(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
        signed = f" signed with {algorithm.name.upper()}" if algorithm else ""
        return key_algorithm(certificate) + signed
    except (ValueError, UnsupportedAlgorithm):
        return "an unknown kind of key or signature"
