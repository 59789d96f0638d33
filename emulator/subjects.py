"""Subjects as the Connector writes, expects and re-encodes them (contract section 1).

`configuration` writes a literal string without any escaping; the check of a CSR compares values; the issued
certificate carries the subject re-encoded by Go. All three are here because they must agree.
"""

import re
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from . import der

_PART = re.compile(r",(?=(?:O|OU|L|ST|C|CN)=)")
_FIELDS = {
    "O": "organization",
    "OU": "organizational_unit",
    "L": "locality",
    "ST": "province",
    "C": "country",
}

# The order in which Go's pkix.Name writes itself; seen with go 1.26. Every other attribute is dropped.
_GO_ORDER = (
    NameOID.COUNTRY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STREET_ADDRESS,
    NameOID.POSTAL_CODE,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COMMON_NAME,
    NameOID.SERIAL_NUMBER,
)
_SINGLE = {NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER}  # Go keeps the last value of these two
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")


@dataclass(frozen=True, slots=True)
class SubjectConstants:
    """What the operator configured: the part of the subject that all clients share."""

    organization: str = "Org"
    organizational_unit: str = "OrgUnit"
    locality: str = "locality"
    province: str = "province"
    country: str = "DE"

    @classmethod
    def parse(cls, text: str) -> "SubjectConstants":
        """From `O=..,OU=..,L=..,ST=..,C=..` in any order; a comma before no key is part of a value."""
        values: dict[str, str] = {}
        for part in _PART.split(text):
            key, separator, value = part.partition("=")
            if key not in _FIELDS or not separator or not value:
                raise ValueError(f"{part!r} in the subject is not one of O=, OU=, L=, ST=, C= with a value")
            if _FIELDS[key] in values:
                raise ValueError(f"{key} occurs twice in the subject")
            values[_FIELDS[key]] = value
        if missing := [key for key, field in _FIELDS.items() if field not in values]:
            raise ValueError(f"the subject has no {', '.join(missing)}")
        return cls(**values)

    def render(self, client_id: str) -> str:
        """The literal of `configuration`: always this order, a comma without space, nothing escaped."""
        return (
            f"O={self.organization},OU={self.organizational_unit},L={self.locality}"
            f",ST={self.province},C={self.country},CN={client_id}"
        )

    def expected(self) -> tuple[tuple[x509.ObjectIdentifier, str, str], ...]:
        """Attribute, its name in error messages and its value, in the Connector's order of checking."""
        return (
            (NameOID.COUNTRY_NAME, "country", self.country),
            (NameOID.ORGANIZATION_NAME, "organization", self.organization),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "organizational unit", self.organizational_unit),
            (NameOID.LOCALITY_NAME, "locality", self.locality),
            (NameOID.STATE_OR_PROVINCE_NAME, "province", self.province),
        )

    def match(self, subject: x509.Name) -> bool:
        """Whether a presented certificate has these constants: another one yields no identity."""
        return all(values(subject, oid)[:1] == [value] for oid, _, value in self.expected())

    def name(self, client_id: str) -> x509.Name:
        """The subject as a CSR would carry it."""
        attributes = [(oid, value) for oid, _, value in self.expected()]
        return _quietly(
            [[_attribute(oid, value)] for oid, value in [*attributes, (NameOID.COMMON_NAME, client_id)]]
        )


def values(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    """The text values of one attribute, in the order of the subject."""
    return [str(attribute.value) for attribute in subject if attribute.oid == oid]


def subject_of(certificate: x509.Certificate) -> x509.Name:
    """The subject, which pyca does not read if it has the same attribute twice in one RDN."""
    try:
        return certificate.subject
    except ValueError:
        *_, subject, _key, _extensions = der.children(der.read(certificate.tbs_certificate_bytes).content)
        return _quietly([_rdn(element.content) for element in der.children(subject.content)])


def _rdn(content: bytes) -> list[x509.NameAttribute[str]]:
    """Of a subject as it is written here: attributes of X.520, as PrintableString or UTF8String."""
    pairs = [list(der.children(element.content)) for element in der.children(content)]
    return [
        _attribute(x509.ObjectIdentifier(f"2.5.4.{oid.content[-1]}"), value.content.decode())
        for oid, value in pairs
    ]


def common_name(subject: x509.Name) -> str:
    """The CN as Go reads it: the last one, empty if there is none."""
    return (values(subject, NameOID.COMMON_NAME) or [""])[-1]


def as_go_writes(subject: x509.Name) -> x509.Name:
    """The subject re-encoded by Go: fixed order, PrintableString where possible, one RDN per kind.

    Several values of one kind (a second OU) become one multi-valued RDN, sorted by DER; equal ones stay.
    """
    rdns = []
    for oid in _GO_ORDER:
        found = values(subject, oid)
        if found:
            rdns.append([_attribute(oid, value) for value in (found[-1:] if oid in _SINGLE else found)])
    return _quietly(rdns)


class _Attribute(x509.NameAttribute[str]):
    """One that equals no other: pyca refuses an RDN with two equal ones, and Go writes it."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def with_title(subject: x509.Name, text: str) -> x509.Name:
    """The subject with one attribute more, whose value is this text."""
    given = [[_attribute(one.oid, str(one.value))] for one in subject]
    return _quietly([*given, [_attribute(NameOID.TITLE, text)]])


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    kind = _ASN1Type.PrintableString if _PRINTABLE.fullmatch(value) else _ASN1Type.UTF8String
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real one signs a seven-letter country if it is configured so
        return _Attribute(oid, value, kind, _validate=False)


def _quietly(rdns: list[list[x509.NameAttribute[str]]]) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.Name([x509.RelativeDistinguishedName(rdn) for rdn in rdns])
