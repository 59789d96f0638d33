"""The Connector: three resolvers, and the checks of a certificate signing request.

It authenticates nothing: `Caller` is what the hydrators in front of it found out. What a fault changes in a
result comes from `RequestFaults`; the resolvers themselves answer what is right. The order of the checks and
every message are those of the contract; the finer points (what Go's packages accept) are Go's.
"""

import base64
import binascii
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from . import der, messages
from .authority import LeafRequest, certification_result, issue_leaf
from .clock import Clock
from .der import BadDER
from .director import Caller, Director
from .faults.chains import ChainBuilder
from .faults.plan import ConfigurationResult, RequestFaults, SignResult
from .gqlgen import Refused
from .journal import Journal, Registry
from .options import OperatorConfiguration
from .subjects import SubjectConstants, as_go_writes, common_name, values

KEY_ALGORITHM = "rsa2048"  # a constant in the real one, and not enforced
_PEM_BLOCK = re.compile(
    rb"(?:^|\n)-----BEGIN ([^\n]*?)-----[ \t\r]*\n(.*?)\n?-----END \1-----[ \t\r]*(?=\n|$)", re.DOTALL
)
_UNIMPLEMENTED = "x509: cannot verify signature: algorithm unimplemented"
_INSECURE = "x509: cannot verify signature: insecure algorithm {}-RSA"
_PARAMETERS = (
    "{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> "
    "stringType:0 timeType:0 set:false omitEmpty:false}"
)


class Connector:
    """Answers `configuration`, `signCertificateSigningRequest` and `revokeCertificate`."""

    def __init__(
        self,
        *,
        configuration: OperatorConfiguration,
        director: Director,
        registry: Registry,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.operator = configuration
        self._director = director
        self._registry = registry
        self._journal = journal
        self._clock = clock

    def resolvers(self, caller: Caller, faults: RequestFaults) -> Mapping[str, Callable[..., Any]]:
        """The root value of one execution."""
        return {
            "configuration": lambda _info: self._configuration(caller, faults),
            "signCertificateSigningRequest": lambda _info, csr: self._sign(caller, csr, faults),
            "revokeCertificate": lambda _info: self._revoke(caller),
        }

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """The certificate for a request that was checked."""
        leaf = issue_leaf(self.operator.authority.issuer, self.leaf_request(request))
        self._registry.record(leaf)
        self._journal.events["signatures"] += 1
        return leaf

    def leaf_request(self, request: x509.CertificateSigningRequest) -> LeafRequest:
        """The Connector's template: from now, for the configured time, with the request's algorithm."""
        hash_algorithm, pss = signing_parameters(request)
        not_before = self._clock.now().replace(microsecond=0)
        return LeafRequest(
            subject=as_go_writes(request.subject),
            public_key=request.public_key(),
            not_before=not_before,
            not_after=not_before + self.operator.lifetime,
            hash_algorithm=hash_algorithm,
            pss=pss,
        )

    def _configuration(self, caller: Caller, faults: RequestFaults) -> dict[str, Any]:
        """The three objects; asks for a token whether or not it was selected, as the real one does."""
        if caller.auth.consumer_type == "Integration System":
            raise Refused(messages.CONSUMER_TYPE_UNSUPPORTED)
        token, _ = self._director.mint(caller.auth, now=self._clock.now())
        self._journal.events["tokens_minted"] += 1
        result: dict[str, Any] = {
            "token": {"token": token},
            "certificateSigningRequestInfo": {
                "subject": self.operator.subject.render(caller.auth.id),
                "keyAlgorithm": KEY_ALGORITHM,
            },
            "managementPlaneInfo": {
                "directorURL": self.operator.director_url,
                "certificateSecuredConnectorURL": self.operator.certificate_secured_connector_url,
            },
        }
        taken = faults.take(ConfigurationResult)
        return taken.fault.act(result, taken.param) if taken else result

    def _sign(self, caller: Caller, csr: str, faults: RequestFaults) -> dict[str, str]:
        request = decode(csr)
        check_subject(request, constants=self.operator.subject, client_id=caller.auth.id)
        signing_parameters(request)
        leaf = self.issue(request)
        taken = faults.take(SignResult)
        if taken is None:
            return certification_result(leaf, self.operator.authority.certificates)
        chains = ChainBuilder(self.operator.authority, self.leaf_request(request), self._registry)
        return taken.fault.act(chains, leaf, taken.param)

    def _revoke(self, caller: Caller) -> bool:
        if caller.fingerprint is None:
            raise Refused(messages.REVOKE_WITHOUT_CERTIFICATE)
        self._registry.revoke(caller.fingerprint)
        self._journal.events["revocations"] += 1
        return True


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
        warnings.simplefilter("ignore")  # a country of seven letters is judged by `check_subject`
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
