"""DER where pyca does not help: elements to read one by one, with Go's words for bad ones, and to write."""

from collections.abc import Iterator
from dataclasses import dataclass

INTEGER, BIT_STRING, SEQUENCE = 0x02, 0x03, 0x30


class BadDER(ValueError):
    """The message is that of Go's `encoding/asn1`."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, where its content begins in what was read, the content, and what comes behind."""

    tag: int
    begin: int
    length: int
    content: bytes
    rest: bytes

    @property
    def whole(self) -> bool:
        """Whether the content is all there."""
        return len(self.content) == self.length


def read(data: bytes) -> Element:
    """The first element, its content cut short where the data ends; raises BadDER."""
    if not data:
        raise BadDER("syntax error: sequence truncated")
    length, begin = _length(data)
    end = begin + length
    return Element(data[0], begin, length, data[begin:end], data[end:])


def children(content: bytes) -> Iterator[Element]:
    """The elements inside of one."""
    while content:
        element = read(content)
        yield element
        content = element.rest


def write(tag: int, content: bytes) -> bytes:
    """One element."""
    size = len(content)
    octets = b"" if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes([tag, 0x80 | len(octets)]) + octets if octets else bytes([tag, size])
    return head + content


def _length(data: bytes) -> tuple[int, int]:
    """The length that an element claims, and where its content begins."""
    if len(data) < 2:
        raise BadDER("syntax error: truncated tag or length")
    if data[1] < 0x80:
        return data[1], 2
    octets = data[2 : 2 + (data[1] & 0x7F)]
    if not data[1] & 0x7F:
        raise BadDER("syntax error: indefinite length found (not DER)")
    if len(octets) < data[1] & 0x7F:
        raise BadDER("syntax error: truncated tag or length")
    if len(octets) > 4:
        raise BadDER("structure error: length too large")
    if octets[0] == 0:
        raise BadDER("structure error: superfluous leading zeros in length")
    length = int.from_bytes(octets, "big")
    if length < 0x80:
        raise BadDER("structure error: non-minimal length")
    return length, 2 + len(octets)
