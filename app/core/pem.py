"""PEM as operators and Connectors send it.

`unwrap` undoes what shells, editors and templates do to a PEM file: another encoding, base64 around it,
`\\n` in place of line ends. `blocks` finds the blocks, however their lines are indented or joined.
"""

import re
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from ..errors import MalformedCredential
from .der import first_element

_BEGIN = b"-----BEGIN "
# A search for whole blocks would be quadratic in hostile text; a search for their borders is linear.
_BORDER = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")
# The lookbehind keeps the search linear in a long run of letters.
_HEADER = re.compile(rb"(?<![A-Za-z-])([A-Za-z][A-Za-z-]*):[ \t]*(\S+)")
_COLUMNS = 64
_LABELS_SHOWN = 3
_DER = re.compile(rb"\x30[\x80-\x84]")
_PKCS12 = re.compile(rb"\x30(\x80|\x82..|\x83.{3}|\x84.{4})\x02\x01\x03", re.DOTALL)
_JAVA_KEYSTORE = b"\xfe\xed\xfe\xed"
_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})
_CONVERSIONS = {
    "OPENSSH PRIVATE KEY": "; convert it with `ssh-keygen -p -m PEM -f FILE`",
    "PKCS7": "; convert it with `openssl pkcs7 -print_certs`",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A PEM block: its label, and the text between its borders."""

    label: str
    body: bytes = field(repr=False)

    @property
    def headers(self) -> dict[bytes, bytes]:
        """RFC 1421 headers, such as `DEK-Info` of an encrypted PKCS#1 key."""
        return dict(_HEADER.findall(self.body))

    @property
    def der(self) -> bytes:
        """Raises MalformedCredential if the body is no base64."""
        try:
            content = b64decode(b"".join(_HEADER.sub(b"", self.body).split()), validate=True)
            return first_element(content) if self.label == "TRUSTED CERTIFICATE" else content
        except ValueError:
            raise MalformedCredential("is not base64") from None

    def render(self) -> bytes:
        """The block in the one form that every reader of PEM understands."""
        label, base64 = self.label.encode(), b64encode(self.der)
        lines = [b"%b: %b" % header for header in self.headers.items()]
        lines += [b""] if lines else []
        lines += [base64[start : start + _COLUMNS] for start in range(0, len(base64), _COLUMNS)]
        return b"\n".join((b"-----BEGIN %b-----" % label, *lines, b"-----END %b-----\n" % label))


def blocks(text: bytes) -> list[Block]:
    """The blocks of a PEM text in their order. Text around them is passed over."""
    borders = list(_BORDER.finditer(text))
    return [
        Block(begin[2].decode("ascii"), text[begin.end() : end.start()])
        for begin, end in pairwise(borders)
        if (begin[1], end[1]) == (b"BEGIN", b"END") and begin[2] == end[2]
    ]


def unwrap(content: bytes) -> bytes:
    """The PEM or DER in a file, without a byte order mark, UTF-16, base64 or escaped line ends around it.

    Other content comes back as it is.
    """
    text = _utf8(content)
    if _BEGIN not in text:
        with suppress(ValueError):
            inner = _utf8(b64decode(b"".join(text.split()), validate=True))
            text = inner if _BEGIN in inner or is_der(inner) else text
    if rb"-----\n" in text or rb"-----\r\n" in text:
        text = text.replace(rb"\r", b"").replace(rb"\n", b"\n")
    return text


def _utf8(content: bytes) -> bytes:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace").encode()
    if content[:1] == b"\0" or content[1:2] == b"\0":
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def is_der(text: bytes) -> bool:
    return _DER.match(text) is not None


def is_pkcs12(text: bytes) -> bool:
    return _PKCS12.match(text) is not None


def certificate_blocks(text: bytes) -> list[Block]:
    """The certificates in PEM, or one in DER. Raises MalformedCredential if there is none."""
    if is_der(text) and not is_pkcs12(text):
        return [Block("CERTIFICATE", b64encode(text))]
    found = [block for block in blocks(text) if block.label in _CERTIFICATES]
    if not found:
        raise MalformedCredential(lack("CERTIFICATE", text))
    return found


def certificates(content: bytes) -> list[bytes]:
    """The DER of each certificate in a file of trust anchors; damaged blocks are passed over.

    Raises MalformedCredential if no certificate is left, with a predicate about the file.
    """
    text, found = unwrap(content), []
    for block in certificate_blocks(text):
        with suppress(MalformedCredential):
            found.append(block.der)
    if not found:
        raise MalformedCredential(lack("CERTIFICATE", text))
    return found


def lack(label: str, text: bytes) -> str:
    """Why a text has no usable block of this kind: the predicate of a sentence about the file."""
    if kind := _other_kind(text):
        return kind
    labels = list(dict.fromkeys(block.label for block in blocks(text)))
    if label in labels:
        return f"has a damaged PEM block {label}"
    if labels:
        advice = "".join(_CONVERSIONS.get(each, "") for each in labels)
        return f"has no PEM block {label}, only {', '.join(labels[:_LABELS_SHOWN])}{advice}"
    begun = _BORDER.search(text)
    return f"has a PEM block {begun[2].decode()} without its end" if begun else "is not PEM"


def _other_kind(text: bytes) -> str | None:
    if not text.strip():
        return "is empty"
    if text.startswith(_JAVA_KEYSTORE):
        return "is a Java keystore; convert it to PKCS#12 with `keytool -importkeystore`"
    if is_pkcs12(text):
        return "is PKCS#12"
    return "is DER of another kind" if is_der(text) else None
