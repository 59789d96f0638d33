"""Certificates that the library reads only in part or not at all: bytes are changed and signed again."""

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.authority import Authority

Edit = Callable[[list[bytes]], list[bytes]]


@asn1.sequence
class _Sequence:
    elements: list[asn1.TLV]


def tlv(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + asn1.encode_der(content)[1:]


def parts(sequence: bytes) -> list[bytes]:
    """The elements of a SEQUENCE, each with its header."""
    return [asn1.encode_der(each) for each in asn1.decode_der(_Sequence, tlv(0x30, sequence)).elements]


def content(element: bytes) -> bytes:
    return bytes(asn1.decode_der(asn1.TLV, element).data)


def signed_again(certificate: x509.Certificate, issuer: Authority, edit: Edit) -> bytes:
    """The DER of the certificate with an edited list of the elements of its tbsCertificate."""
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    elements = edit(parts(certificate.tbs_certificate_bytes))
    tbs, algorithm = tlv(0x30, b"".join(elements)), parts(certificate.public_bytes(Encoding.DER))[1]
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature))


def signed_with_sha1(certificate: x509.Certificate, issuer: Authority) -> bytes:
    """The DER of a certificate of an RSA authority, with the signature that the library refuses to make."""
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    sha256, sha1 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105")
    tbs = certificate.tbs_certificate_bytes.replace(sha256, sha1)
    signature = issuer.key.sign(tbs, PKCS1v15(), hashes.SHA1())  # noqa: S303 - what has to be refused
    return tlv(0x30, tbs + tlv(0x30, sha1 + b"\x05\x00") + tlv(0x03, b"\0" + signature))


def replaced(old: bytes, new: bytes) -> Edit:
    """Other bytes of the same length."""
    assert len(old) == len(new)
    return lambda elements: [element.replace(old, new) for element in elements]


def version_1(elements: list[bytes]) -> list[bytes]:
    """Neither a version nor extensions."""
    return [element for element in elements if element[0] not in (0xA0, 0xA3)]


def critical_false_written_out(elements: list[bytes]) -> list[bytes]:
    """The default of `critical` in each extension that has it."""
    *others, extensions = elements
    written = []
    for extension in parts(content(extensions)):
        kind, *rest = parts(extension)
        default = [b"\x01\x01\x00"] if len(rest) == 1 else []
        written.append(tlv(0x30, b"".join((kind, *default, *rest))))
    return [*others, tlv(0xA3, tlv(0x30, b"".join(written)))]
