"""The library's own DER reader, for what its certificates do not hand out."""

from cryptography.hazmat import asn1


@asn1.sequence
class _Sequence:
    elements: list[asn1.TLV]


def elements(sequence: bytes) -> list[asn1.TLV]:
    """The elements of a SEQUENCE. Raises ValueError."""
    return asn1.decode_der(_Sequence, wrap(sequence)).elements


def first_element(content: bytes) -> bytes:
    """The first of the elements that follow one another without a SEQUENCE around them. Raises ValueError."""
    found = elements(wrap(content))
    if not found:
        raise ValueError("there is no element")
    return asn1.encode_der(found[0])


def wrap(content: bytes) -> bytes:
    """A SEQUENCE around elements: an OCTET STRING with another tag."""
    return b"\x30" + asn1.encode_der(content)[1:]
