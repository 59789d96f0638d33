"""Faults after the Connector acted: the answer arrives changed, late, in part or not at all.

A rewrite takes the right answer, the circumstances and the parameter, and returns the answer to send. A
delivery takes the connection, the bytes of the answer and the parameter, and ends the connection.
"""

import asyncio
import json
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from .. import http
from ..clock import parse_seconds
from ..connection import PATIENCE_SECONDS, Connection, Wire
from ..http import JSON, Answer
from .plan import Delay, LostAnswer, Rewrite, Situation

_RARELY = 0.1  # in chaos: what costs a client its whole timeout, or much memory
_MEBIBYTE = 2**20
_BLANK = b" " * _MEBIBYTE
_DEPTH = 200_000
_FILLER = b" " * 65_536
_CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"server: istio-envoy\r\ntransfer-encoding: chunked\r\n\r\n"
)


def content_type(answer: Answer, _situation: Situation, param: str) -> Answer:
    """The same body under another type."""
    return replace(answer, content_type=param)


def instead(body: bytes, type_: str = JSON, *, status: int = 200) -> Any:
    """A rewrite that replaces the body."""
    return lambda _answer, _situation, _param: Answer(status, body, type_)


def null_result(_answer: Answer, situation: Situation, _param: str) -> Answer:
    """`{"data":{"<alias>":null}}`."""
    return http.graphql({situation.response_key: None})


def missing_field(answer: Answer, situation: Situation, param: str) -> Answer:
    """Without a field of the result, which GraphQL does not allow."""
    return _change_result(answer, situation, lambda result: result.pop(param, None))


def null_field(answer: Answer, situation: Situation, param: str) -> Answer:
    """A field of the result null although the schema forbids it."""
    return _change_result(answer, situation, lambda result: result.update({param: None}))


def wrong_types(answer: Answer, situation: Situation, _param: str) -> Answer:
    """A number wherever a text belongs, a list wherever an object does."""
    return _change_result(
        answer,
        situation,
        lambda result: result.update(
            {key: [1] if isinstance(value, dict) else 1 for key, value in result.items()}
        ),
    )


def errors_and_data(answer: Answer, _situation: Situation, _param: str) -> Answer:
    """A full result together with an error: partial success, which the real one never gives."""
    content = json.loads(answer.body or b"{}")
    errors = [{"message": "something went wrong", "path": ["result"]}]
    return replace(answer, body=http.as_go_json({"errors": errors, "data": content.get("data")}))


def deep_json(_answer: Answer, _situation: Situation, _param: str) -> Answer:
    """JSON so deep that a recursive parser gives up."""
    return Answer(200, b'{"data":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}", JSON)


def huge_body(answer: Answer, _situation: Situation, param: str) -> Answer:
    """The right answer after so many MiB of legal white space."""
    return replace(answer, body=_BLANK * int(param) + answer.body)


def gzip_bomb(answer: Answer, _situation: Situation, param: str) -> Answer:
    """The same, compressed a thousandfold."""
    bombed = replace(answer, body=_bomb(int(param), answer.body))
    return bombed.with_header("Content-Encoding", "gzip")


def whole_number(text: str) -> int:
    """MiB as a parameter; raises ValueError."""
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ValueError(f"{text!r} is not a number of MiB from 1 to 4096")
    return int(text)


def _change_result(answer: Answer, situation: Situation, change: Any) -> Answer:
    try:
        content = json.loads(answer.body)
        result = content["data"][situation.response_key]
    except (ValueError, KeyError, TypeError):
        return answer
    if isinstance(result, dict):
        change(result)
    return replace(answer, body=http.as_go_json(content).rstrip())


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


async def reset(connection: Connection, _wire: Wire, _param: str) -> None:
    """A TCP reset instead of the answer."""
    connection.reset()


async def close(connection: Connection, _wire: Wire, _param: str) -> None:
    """An orderly end instead of the answer."""
    await connection.finish()


async def hang_headers(connection: Connection, _wire: Wire, _param: str) -> None:
    """Silence instead of the answer."""
    await connection.until_closed()


async def hang_body(connection: Connection, wire: Wire, _param: str) -> None:
    """Head and half of the body, then silence."""
    await connection.send(wire.head + wire.body[: len(wire.body) // 2])
    await connection.until_closed()


async def half_answer(connection: Connection, wire: Wire, _param: str) -> None:
    """Head and half of the body, then an orderly end."""
    await connection.send(wire.head + wire.body[: len(wire.body) // 2])
    await connection.finish()


async def half_head(connection: Connection, wire: Wire, _param: str) -> None:
    """Half of the head, then an orderly end."""
    await connection.send(wire.head[: len(wire.head) // 2])
    await connection.finish()


async def drip(connection: Connection, wire: Wire, param: str) -> None:
    """One byte at a time: a read timeout never fires, only a limit for the whole call does."""
    pause = parse_seconds(param)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for byte in wire.head + wire.body:
            await connection.send(bytes([byte]))
            await asyncio.sleep(pause)
    await connection.finish()


async def endless_body(connection: Connection, _wire: Wire, _param: str) -> None:
    """A chunked body of spaces, until the client has enough."""
    chunk = b"%x\r\n%s\r\n" % (len(_FILLER), _FILLER)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await connection.send(_CHUNKED_HEAD + b"2\r\n{ \r\n")
        while True:
            await connection.send(chunk)
            await asyncio.sleep(0)  # a fast reader must not keep the other connections waiting


async def endless_headers(connection: Connection, _wire: Wire, _param: str) -> None:
    """Header after header, until the client has enough."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await connection.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await connection.send(b"x-filler: " + _FILLER[:1000].replace(b" ", b"x") + b"\r\n")
            await asyncio.sleep(0)


async def not_http(connection: Connection, _wire: Wire, _param: str) -> None:
    """The greeting of another protocol."""
    await connection.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    await connection.finish()


REWRITES = (
    Rewrite("wrong-content-type", "the right body under this type", content_type, default="text/plain"),
    Rewrite("null-data", "data is null, and there is no error", instead(b'{"data":null}')),
    Rewrite("no-data", "neither data nor errors", instead(b"{}")),
    Rewrite("empty-200", "an empty body", instead(b"")),
    Rewrite("json-list", "a list instead of an object", instead(b'["data"]')),
    Rewrite("not-json", "text that claims to be JSON", instead(b"{'data': nope}")),
    Rewrite("not-utf-8", "JSON in another encoding", instead(b'{"data":{"result":"\xe9\xff"}}')),
    Rewrite("empty-errors", "an empty list of errors, and no data", instead(b'{"errors":[],"data":null}')),
    Rewrite(
        "odd-errors",
        "errors that are no objects",
        instead(b'{"errors":["boom",null,7],"data":null}'),
    ),
    Rewrite("errors-and-data", "a result together with an error", errors_and_data),
    Rewrite("null-result", "the result is null", null_result),
    Rewrite("missing-result", "data has no result", instead(b'{"data":{}}')),
    Rewrite(
        "missing-token",
        "no token in the result",
        lambda a, c, _p: missing_field(a, c, "token"),
        operation="configuration",
    ),
    Rewrite(
        "missing-csr-info",
        "no certificateSigningRequestInfo in the result",
        lambda a, c, _p: missing_field(a, c, "certificateSigningRequestInfo"),
        operation="configuration",
    ),
    Rewrite(
        "missing-management-plane",
        "no managementPlaneInfo in the result",
        lambda a, c, _p: missing_field(a, c, "managementPlaneInfo"),
        operation="configuration",
    ),
    Rewrite("missing-field", "the result lacks this field", missing_field, default="certificateChain"),
    Rewrite("null-field", "this field of the result is null", null_field, default="certificateChain"),
    Rewrite("wrong-types", "numbers for texts, lists for objects", wrong_types),
    Rewrite("deep-json", "nested two hundred thousand times", deep_json),
    Rewrite(
        "huge-body",
        "so many MiB of white space in front",
        huge_body,
        default="64",
        check=whole_number,
        weight=_RARELY,
    ),
    Rewrite(
        "gzip-bomb",
        "the same, compressed a thousandfold",
        gzip_bomb,
        default="512",
        check=whole_number,
        weight=_RARELY,
    ),
)


TRANSPORT = (
    Delay("slow", "the answer takes so much longer", parse_seconds, default="1s", check=parse_seconds),
    LostAnswer("hang-headers", "silence instead of the answer", hang_headers, weight=_RARELY),
    LostAnswer("hang-body", "silence after half of the body", hang_body, weight=_RARELY),
    LostAnswer(
        "drip",
        "one byte, pause, one byte",
        drip,
        default="1s",
        check=parse_seconds,
        weight=_RARELY,
    ),
    LostAnswer("endless-body", "a body without end", endless_body, weight=_RARELY),
    LostAnswer("endless-headers", "headers without end", endless_headers),
    LostAnswer("reset-after-acting", "a reset; the answer is lost", reset),
    LostAnswer("close-after-acting", "an orderly end; the answer is lost", close),
    LostAnswer("half-answer", "an orderly end after half of the body", half_answer),
    LostAnswer("half-head", "an orderly end after half of the head", half_head),
    LostAnswer("not-http", "the greeting of another protocol", not_http),
)
