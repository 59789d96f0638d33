"""Certificate signing requests: decoding and checking, with the Connector's own words for each refusal.

The order of the checks and every message are those of the contract (sections 1 and 2); the finer points
(what Go's base64, PEM and x509 packages accept) were compared with go 1.26.
"""

import base64
import binascii
import re
import warnings
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from . import der, messages
from .der import BadDER
from .subjects import SubjectConstants, common_name, values

_PEM_BLOCK = re.compile(
    rb"(?:^|\n)-----BEGIN ([^\n]*?)-----[ \t\r]*\n(.*?)\n?-----END \1-----[ \t\r]*(?=\n|$)", re.DOTALL
)
_UNIMPLEMENTED = "x509: cannot verify signature: algorithm unimplemented"
_INSECURE = "x509: cannot verify signature: insecure algorithm {}-RSA"


class Refused(Exception):
    """The answer is a GraphQL error with this message; only the Director's have extensions."""

    def __init__(self, message: str, extensions: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.extensions = extensions


def decode(text: str) -> x509.CertificateSigningRequest:
    """The request inside base64 of PEM, its self-signature verified."""
    block = _first_pem_block(_decode_base64(text))
    if block is None:
        raise _refused("Error while decoding pem block.")
    request = _parse(block)
    _verify(request)
    return request


def check_subject(
    request: x509.CertificateSigningRequest, *, constants: SubjectConstants, client_id: str
) -> None:
    """Compares the subject with what was promised: CN first, then the constants, case-sensitive."""
    subject = _subject(request)
    if common_name(subject) != client_id:
        raise _refused("CSR: Invalid common name provided.")
    for oid, word, value in constants.expected():
        found = values(subject, oid)
        if not found:
            raise _refused(f"CSR: No {word} provided.")
        if found[0] != value:
            raise _refused(f"CSR: Invalid {word} provided.")


def signing_parameters(
    request: x509.CertificateSigningRequest,
) -> tuple[hashes.SHA256 | hashes.SHA384 | hashes.SHA512, padding.PSS | None]:
    """Hash and padding for the certificate: the request's own, which an RSA CA can only follow for RSA."""
    algorithm = request.signature_hash_algorithm
    if not isinstance(request.public_key(), rsa.RSAPublicKey) or not isinstance(
        algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)
    ):
        raise Refused(messages.KEY_MISMATCH)
    parameters = request.signature_algorithm_parameters
    return algorithm, parameters if isinstance(parameters, padding.PSS) else None


def _decode_base64(text: str) -> bytes:
    """Go's StdEncoding: CR and LF are skipped; spaces, the URL-safe alphabet and lost padding are not."""
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused(messages.BAD_BASE64) from error


def _first_pem_block(text: bytes) -> bytes | None:
    """Go's pem.Decode: any label, leading text, CRLF and headers are fine; a broken block is skipped."""
    for match in _PEM_BLOCK.finditer(text):
        body = b"".join(line for line in match[2].split(b"\n") if b":" not in line)
        try:
            return base64.b64decode(re.sub(rb"\s", b"", body), validate=True)
        except binascii.Error:
            continue
    return None


def _parse(block: bytes) -> x509.CertificateSigningRequest:
    try:
        _check_structure(block)
        request = x509.load_der_x509_csr(block)
        _subject(request)
        request.public_key()
    except BadDER as error:
        raise _refused(f"Error while parsing CSR: asn1: {error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("Error while parsing CSR: asn1: syntax error: data truncated") from error
    return request


_PARAMETERS = (
    "{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> "
    "stringType:0 timeType:0 set:false omitEmpty:false}"
)


def _check_structure(block: bytes) -> None:
    """Reads the outline of a request as Go reads its `certificateRequest`; raises BadDER."""
    request = _expect(block, der.SEQUENCE, "certificateRequest")
    if request.rest:
        raise BadDER("syntax error: trailing data")
    signed = _expect(request.content, der.SEQUENCE, "tbsCertificateRequest")
    version = _expect(signed.content, der.INTEGER, "int")
    subject = _expect(version.rest, None, "RawValue")
    _expect(subject.rest, der.SEQUENCE, "publicKeyInfo")
    algorithm = _expect(signed.rest, der.SEQUENCE, "AlgorithmIdentifier")
    _expect(algorithm.rest, der.BIT_STRING, "BitString")


def _expect(data: bytes, tag: int | None, name: str) -> der.Element:
    """The first element, which has this tag (None: any) and is the field of a Go type; raises BadDER."""
    element = der.read(data)
    if tag is not None and element.tag != tag:
        found = (
            f"{{class:{element.tag >> 6} tag:{element.tag & 0x1F} length:{element.length} "
            f"isCompound:{'true' if element.tag & 0x20 else 'false'}}}"
        )
        words = f"tags don't match ({tag & 0x1F} vs {found}) {_PARAMETERS} {name} @{element.begin}"
        raise BadDER(f"structure error: {words}")
    if not element.whole:
        raise BadDER("syntax error: data truncated")
    return element


def _subject(request: x509.CertificateSigningRequest) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a country of seven letters is for us to judge, not to warn about
        return request.subject


def _verify(request: x509.CertificateSigningRequest) -> None:
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        _refuse_unknown_algorithms(request)
    if request.is_signature_valid:
        return
    kind = "ECDSA" if isinstance(key, ec.EllipticCurvePublicKey) else "Ed25519"
    raise _refused(
        "CSR signature invalid: "
        + (
            "crypto/rsa: verification error"
            if isinstance(key, rsa.RSAPublicKey)
            else f"x509: {kind} verification failure"
        )
    )


def _refuse_unknown_algorithms(request: x509.CertificateSigningRequest) -> None:
    """Go knows SHA-256, 384 and 512, and PSS only with a salt as long as the digest.

    SHA-1 is the one place where this is stricter than Go, which still mirrors it: pyca refuses to sign so.
    """
    try:
        algorithm = request.signature_hash_algorithm
        parameters = request.signature_algorithm_parameters
    except UnsupportedAlgorithm as error:
        raise _refused(f"CSR signature invalid: {_UNIMPLEMENTED}") from error
    if isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        raise _refused(f"CSR signature invalid: {_INSECURE.format(algorithm.name.upper())}")
    if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)) or (
        isinstance(parameters, padding.PSS) and parameters._salt_length != algorithm.digest_size  # noqa: SLF001
    ):
        raise _refused(f"CSR signature invalid: {_UNIMPLEMENTED}")


def _refused(reason: str) -> Refused:
    return Refused(messages.SIGNING + reason)
