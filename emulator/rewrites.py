"""Spoilt answers: the Connector acted, and what it said arrives changed.

Each takes the honest answer, the circumstances and the parameter, and returns the answer to send.
"""

import json
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from . import answers
from .answers import JSON, Answer
from .circumstance import Circumstance

_MEBIBYTE = 2**20
_BLANK = b" " * _MEBIBYTE
_DEPTH = 200_000


def content_type(answer: Answer, _circumstance: Circumstance, param: str) -> Answer:
    """The same body under another type."""
    return replace(answer, content_type=param)


def instead(body: bytes, type_: str = JSON, *, status: int = 200) -> Any:
    """A rewrite that replaces the body."""
    return lambda _answer, _circumstance, _param: Answer(status, body, type_)


def null_result(_answer: Answer, circumstance: Circumstance, _param: str) -> Answer:
    """`{"data":{"<alias>":null}}`."""
    return answers.graphql({circumstance.response_key: None})


def missing_field(answer: Answer, circumstance: Circumstance, param: str) -> Answer:
    """Without a field of the result, which GraphQL does not allow."""
    return _change_result(answer, circumstance, lambda result: result.pop(param, None))


def null_field(answer: Answer, circumstance: Circumstance, param: str) -> Answer:
    """A field of the result null although the schema forbids it."""
    return _change_result(answer, circumstance, lambda result: result.update({param: None}))


def wrong_types(answer: Answer, circumstance: Circumstance, _param: str) -> Answer:
    """A number wherever a text belongs, a list wherever an object does."""
    return _change_result(
        answer,
        circumstance,
        lambda result: result.update(
            {key: [1] if isinstance(value, dict) else 1 for key, value in result.items()}
        ),
    )


def errors_and_data(answer: Answer, _circumstance: Circumstance, _param: str) -> Answer:
    """A full result together with an error: partial success, which the real one never gives."""
    content = json.loads(answer.body or b"{}")
    errors = [{"message": "something went wrong", "path": ["result"]}]
    return replace(answer, body=answers.as_go_json({"errors": errors, "data": content.get("data")}))


def deep_json(_answer: Answer, _circumstance: Circumstance, _param: str) -> Answer:
    """JSON so deep that a recursive parser gives up."""
    return Answer(200, b'{"data":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}", JSON)


def huge_body(answer: Answer, _circumstance: Circumstance, param: str) -> Answer:
    """The honest answer after so many MiB of legal white space."""
    return replace(answer, body=_BLANK * int(param) + answer.body)


def gzip_bomb(answer: Answer, _circumstance: Circumstance, param: str) -> Answer:
    """The same, compressed a thousandfold."""
    bombed = replace(answer, body=_bomb(int(param), answer.body))
    return bombed.with_header("Content-Encoding", "gzip")


def whole_number(text: str) -> int:
    """MiB as a parameter; raises ValueError."""
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ValueError(f"{text!r} is not a number of MiB from 1 to 4096")
    return int(text)


def _change_result(answer: Answer, circumstance: Circumstance, change: Any) -> Answer:
    try:
        content = json.loads(answer.body)
        result = content["data"][circumstance.response_key]
    except (ValueError, KeyError, TypeError):
        return answer
    if isinstance(result, dict):
        change(result)
    return replace(answer, body=answers.as_go_json(content).rstrip())


@lru_cache(maxsize=4)
def _bomb(mebibytes: int, tail: bytes) -> bytes:
    """One gzip member: a block that stands for a MiB of blanks, repeated, so that making it costs nothing."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(_BLANK) + compressor.flush(zlib.Z_FULL_FLUSH)
    end = compressor.compress(tail) + compressor.flush(zlib.Z_FINISH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(_BLANK, checksum)
    checksum = zlib.crc32(tail, checksum)
    size = (mebibytes * _MEBIBYTE + len(tail)) % 2**32
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return head + block * mebibytes + end + checksum.to_bytes(4, "little") + size.to_bytes(4, "little")
