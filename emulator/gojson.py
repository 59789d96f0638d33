"""JSON as Go's `encoding/json` reads it, with its words for what it cannot read.

The Connector quotes these words to its clients, and the gateway in front of it refuses what cannot be read.
Numbers keep their text (`json.Number`), invalid UTF-8 is replaced, and of duplicate keys the last one counts.
"""

import re
from typing import Any, NoReturn

_BLANK = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')
_SOME_DIGITS, _POINT, _EXPONENT = re.compile(rb"[0-9]+"), re.compile(rb"\."), re.compile(rb"[eE][+-]?")
_DEPTH = 10_000
_ESCAPES = {34: '"', 92: "\\", 47: "/", 98: "\b", 102: "\f", 110: "\n", 114: "\r", 116: "\t"}
_LITERALS = {ord("t"): (b"true", True), ord("f"): (b"false", False), ord("n"): (b"null", None)}
_HEX = b"0123456789abcdefABCDEF"
_DIGITS = b"0123456789"


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class NotJSON(ValueError):
    """The message is Go's."""


def decode(body: bytes) -> Any:
    """The first value, as `json.Decoder` reads it: what follows is left alone; raises NotJSON."""
    return _Scanner(body).value()


def unmarshal(body: bytes) -> Any:
    """The only value, as `json.Unmarshal` reads it; raises NotJSON."""
    scanner = _Scanner(body)
    value = scanner.value()
    scanner.expect_end()
    return value


def kind(value: Any) -> str:
    """Go's word for the kind of a decoded value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "null"


class _Scanner:
    """A cursor; containers are kept on a stack of its own, so that depth costs no recursion."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def value(self) -> Any:
        """The value at the cursor."""
        self._run(_BLANK)
        if self._at == len(self._body):
            raise NotJSON("EOF")
        root: list[Any] = []
        open_: list[tuple[Any, str | None]] = [(root, None)]
        while True:
            value = self._begin()
            container = isinstance(value, list | dict)
            self._put(open_[-1], value)
            if container and not self._closes(value):
                if len(open_) > _DEPTH:
                    raise NotJSON("exceeded max depth")
                open_.append((value, self._key(value)))
                continue
            while len(open_) > 1 and not self._another(open_):
                open_.pop()
            if len(open_) == 1:
                return root[0]

    def expect_end(self) -> None:
        """Nothing but white space is left."""
        self._run(_BLANK)
        if self._at < len(self._body):
            self._fail("after top-level value")

    def _begin(self) -> Any:
        """A scalar, or an empty container whose opening bracket was read."""
        byte = self._next_byte()
        if byte == ord("{"):
            self._at += 1
            return {}
        if byte == ord("["):
            self._at += 1
            return []
        if byte == ord('"'):
            return self._string()
        if byte in _LITERALS:
            return self._literal(*_LITERALS[byte])
        if byte != ord("-") and byte not in _DIGITS:
            self._fail("looking for beginning of value")
        return self._number()

    def _closes(self, container: Any) -> bool:
        """Whether a container ends right after its opening bracket."""
        byte = self._next_byte()
        if byte == ord("}" if isinstance(container, dict) else "]"):
            self._at += 1
            return True
        return False

    def _another(self, open_: list[tuple[Any, str | None]]) -> bool:
        """Whether the innermost container has another member; its closing bracket is read."""
        container = open_[-1][0]
        mapping = isinstance(container, dict)
        context = "after object key:value pair" if mapping else "after array element"
        byte = self._next_byte()
        if byte == ord("}" if mapping else "]"):
            self._at += 1
            return False
        if byte != ord(","):
            self._fail(context)
        self._at += 1
        open_[-1] = (container, self._key(container))
        return True

    def _key(self, container: Any) -> str | None:
        """The key of the next member of an object, its colon read."""
        if not isinstance(container, dict):
            return None
        if self._next_byte() != ord('"'):
            self._fail("looking for beginning of object key string")
        key = self._string()
        if self._next_byte() != ord(":"):
            self._fail("after object key")
        self._at += 1
        return key

    @staticmethod
    def _put(place: tuple[Any, str | None], value: Any) -> None:
        container, key = place
        if key is None:
            container.append(value)
        else:
            container[key] = value

    def _string(self) -> str:
        self._at += 1
        parts = bytearray()
        while True:
            parts += self._run(_PLAIN)
            byte = self._byte()
            if byte < 0x20:
                self._fail("in string literal")
            self._at += 1
            if byte == ord('"'):
                return replaced(bytes(parts))
            parts += self._escape()

    def _escape(self) -> bytes:
        byte = self._byte()
        if byte in _ESCAPES:
            self._at += 1
            return _ESCAPES[byte].encode()
        if byte != ord("u"):
            self._fail("in string escape code")
        self._at += 1
        code = self._hex()
        if 0xD800 <= code < 0xDC00 and self._body[self._at : self._at + 2] == b"\\u":
            place, self._at = self._at, self._at + 2
            low = self._hex()
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)).encode()
            self._at = place
        return (chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd").encode()

    def _hex(self) -> int:
        start = self._at
        for _ in range(4):
            if self._byte() not in _HEX:
                self._fail("in \\u hexadecimal character escape")
            self._at += 1
        return int(self._body[start : self._at], 16)

    def _literal(self, text: bytes, value: bool | None) -> bool | None:
        for place in range(1, len(text)):
            self._at += 1
            if self._byte() != text[place]:
                self._fail(f"in literal {text.decode()} (expecting {_quoted(text[place])})")
        self._at += 1
        return value

    def _number(self) -> Number:
        start = self._at
        if self._body[self._at] == ord("-"):
            self._at += 1
        if self._byte() == ord("0"):
            self._at += 1
        else:
            self._digits("in numeric literal")
        if self._run(_POINT):
            self._digits("after decimal point in numeric literal")
        if self._run(_EXPONENT):
            self._digits("in exponent of numeric literal")
        return Number(self._body[start : self._at].decode())

    def _digits(self, context: str) -> None:
        if self._byte() not in _DIGITS:
            self._fail(context)
        self._run(_SOME_DIGITS)

    def _run(self, pattern: re.Pattern[bytes]) -> bytes:
        """What the pattern matches at the cursor, which moves behind it."""
        match = pattern.match(self._body, self._at)
        if match is None:
            return b""
        self._at = match.end()
        return match[0]

    def _next_byte(self) -> int:
        self._run(_BLANK)
        return self._byte()

    def _byte(self) -> int:
        if self._at >= len(self._body):
            raise NotJSON("unexpected EOF")
        return self._body[self._at]

    def _fail(self, context: str) -> NoReturn:
        raise NotJSON(f"invalid character {_quoted(self._body[self._at])} {context}")


def _quoted(byte: int) -> str:
    """A byte as Go quotes it: as the character of that number."""
    special = {ord("'"): r"'\''", ord('"'): "'\"'", ord("\\"): r"'\\'"}
    names = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}
    if byte in special:
        return special[byte]
    if byte in names:
        return rf"'\{names[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return rf"'\x{byte:02x}'"
    if 0x80 <= byte < 0xA0 or byte in (0xA0, 0xAD):
        return rf"'\u{byte:04x}'"
    return f"'{chr(byte)}'"


def replaced(raw: bytes) -> str:
    """UTF-8 with U+FFFD for each byte that is not part of a character; Python would take several at once."""
    text = ""
    while raw:
        try:
            return text + raw.decode()
        except UnicodeDecodeError as error:
            text += raw[: error.start].decode() + "\ufffd"
            raw = raw[error.start + 1 :]
    return text
