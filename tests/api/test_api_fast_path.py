"""The fast path and the routes give the same answer, to the byte."""

import itertools
from typing import Any

import httpx
import pytest

from app.api.access import Access
from app.api.application import API, ROUTES, create_router
from app.api.fast import FastPath
from app.api.guard import Guard
from app.api.representations import FILES, Shelf
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import client_for

pytestmark = pytest.mark.anyio


class NoFastPath(FastPath):
    def find(self, scope: Any, fields: Any) -> None:
        return None


class OnlyFastPath(FastPath):
    """Fails where the router would have to help."""

    def find(self, scope: Any, fields: Any) -> Any:
        answer = super().find(scope, fields)
        assert answer is not None, "not fast"
        return answer


def api_with(kind: type[FastPath], sidecar: FakeSidecar) -> API:
    shelf, access = Shelf(sidecar), Access()
    return API(Guard(access), kind(sidecar, shelf), create_router(sidecar, shelf, access), lambda *_: None)


PATHS = ["/livez", "/readyz", "/certificate", *FILES]
HEADERS: list[dict[str, str]] = [
    {},
    {"Accept": "*/*"},
    {"Accept": "application/json"},
    {"Accept": "application/pem-certificate-chain"},
    {"Accept": "application/x-pem-file;q=0.9, text/html"},
    {"If-None-Match": "*"},
    {"If-None-Match": '"other"'},
    {"Accept": "application/pem-certificate-chain", "If-None-Match": "*"},
    {"Content-Length": "0"},
]


@pytest.mark.parametrize("path", PATHS)
async def test_both_ways_give_the_same_answer(path: str) -> None:
    sidecar = FakeSidecar(generation())
    fast, slow = (client_for(api_with(kind, sidecar)) for kind in (OnlyFastPath, NoFastPath))
    async with fast, slow:
        for headers, method in itertools.product(HEADERS, ("GET", "HEAD")):
            answers = [await answers_of(client, method, path, headers) for client in (fast, slow)]
            assert answers[0] == answers[1], (method, headers)
            assert {status for status, *_ in answers[0]} <= {200, 304}


async def answers_of(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> list[tuple[int, list[tuple[bytes, bytes]], bytes]]:
    """What the request gets, and what it gets once more with the tag of that."""
    reply = await client.request(method, path, headers=headers)
    condition = {"If-None-Match": f'"x", W/{reply.headers.get("etag", "none")}'}
    again = await client.request(method, path, headers=headers | condition)
    return [(each.status_code, each.headers.raw, each.content) for each in (reply, again)]


@pytest.mark.parametrize("path", PATHS)
async def test_where_there_is_something_to_explain_the_routes_do(path: str) -> None:
    sidecar = FakeSidecar(None)
    sidecar.turns = False
    async with (
        client_for(api_with(FastPath, sidecar)) as fast,
        client_for(api_with(NoFastPath, sidecar)) as slow,
    ):
        replies = [await client.get(path) for client in (fast, slow)]
    assert [reply.status_code for reply in replies] == [503, 503]
    assert replies[0].content == replies[1].content


def test_every_route_is_described_and_counted_by_its_own_name() -> None:
    sidecar = FakeSidecar()
    described = create_router(sidecar, Shelf(sidecar), Access()).openapi()["paths"]
    assert set(described) | {"/openapi.json"} == ROUTES
    assert set(PATHS) <= set(described)


async def test_every_answer_is_counted_by_route_method_and_status() -> None:
    seen: list[tuple[str, str, int]] = []
    sidecar = FakeSidecar(generation())
    shelf, access = Shelf(sidecar), Access()
    router = create_router(sidecar, shelf, access)
    api = API(Guard(access), FastPath(sidecar, shelf), router, lambda *labels: seen.append(labels))
    async with client_for(api) as client:
        await client.get("/certificate")
        await client.head("/status")
        await client.get("/certificate/anything")
        await client.request("BREW", "/status")
        await client.get("/status", headers={"Host": "evil.example.org"})
    assert seen == [
        ("/certificate", "GET", 200),
        ("/status", "HEAD", 200),
        ("unmatched", "GET", 404),
        ("/status", "other", 405),
        ("/status", "GET", 421),
    ]
