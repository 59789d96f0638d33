"""JSON as Go reads it, compared with Python's own reader."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_emulator import gojson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def python_reads(text: bytes) -> Any:
    return json.loads(text, parse_int=str, parse_float=str)


@given(VALUES, st.booleans())
def test_what_python_writes_is_read_with_numbers_as_they_were_written(value: Any, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_).encode("utf-8", "replace")
    assert gojson.unmarshal(text) == python_reads(text)


@given(VALUES, st.data())
def test_a_damaged_text_is_refused_where_python_refuses_it(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    place = data.draw(st.integers(0, len(text)))
    damaged = (
        text[:place]
        + data.draw(st.sampled_from([b"", b"x", b"1", b",", b'"', b"]", b"}"]))
        + text[place + 1 :]
    )
    assert reads(gojson.unmarshal, damaged) == reads(python_reads, damaged)


def reads(reader: Callable[[bytes], Any], text: bytes) -> bool:
    with suppress(ValueError):
        reader(text)
        return True
    return False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b" ", "EOF"),
        (b'{"a"', "unexpected EOF"),
        (b"{nope", "invalid character 'n' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1ex", "invalid character 'x' in exponent of numeric literal"),
        (b'"\x01"', r"invalid character '\x01' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        (b"'", r"invalid character '\'' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "invalid character '\u00ef' looking for beginning of value"),
        (b"[" * 10_002, "exceeded max depth"),
    ],
)
def test_the_words_are_gos(text: bytes, words: str) -> None:
    with pytest.raises(gojson.NotJSON) as refused:
        gojson.decode(text)
    assert str(refused.value) == words


def test_a_decoder_leaves_alone_what_follows_and_unmarshal_does_not() -> None:
    assert gojson.decode(b'{"a": 1} x') == {"a": "1"}
    with pytest.raises(gojson.NotJSON, match="invalid character 'x' after top-level value"):
        gojson.unmarshal(b'{"a": 1} x')
