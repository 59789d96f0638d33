"""`/certificate` in every form: what is served, to whom, and when it is not."""

import itertools
import re
from datetime import timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from compass_sidecar.core.generation import Generation
from tests.api.fakes import AUTHORITY, FakeSidecar, generation
from tests.api.serving import local_client
from tests.support.authority import NOW

pytestmark = pytest.mark.anyio
PEM_CHAIN, PEM_FILE = "application/pem-certificate-chain", "application/x-pem-file"
FORMS = [
    ("/certificate", "application/json"),
    ("/certificate", PEM_CHAIN),
    ("/certificate", PEM_FILE),
    ("/certificate/chain.pem", "*/*"),
    ("/certificate/leaf.pem", "*/*"),
    ("/certificate/ca.pem", "*/*"),
]


async def test_json_has_what_the_certificate_says_and_its_pem() -> None:
    current = generation()
    async with local_client(FakeSidecar(current)) as client:
        answer = (await client.get("/certificate")).json()
    leaf, chain, ca = (answer.pop(name) for name in ("leaf", "chain", "ca"))
    assert chain == current.chain.pem.decode()
    assert chain == leaf + ca
    parsed = x509.load_pem_x509_certificate(leaf.encode())
    assert answer == {
        "fingerprint_sha256": parsed.fingerprint(hashes.SHA256()).hex(),
        "subject": parsed.subject.rfc4514_string(),
        "issuer": AUTHORITY.certificate.subject.rfc4514_string(),
        "serial_number": "2",
        "not_before": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{NOW + timedelta(days=90):%Y-%m-%dT%H:%M:%SZ}",
        "effective_not_after": f"{NOW + timedelta(days=90):%Y-%m-%dT%H:%M:%SZ}",
        "key_algorithm": "RSA-2048",
        "chain_length": 2,
    }


async def test_pem_is_byte_for_byte_the_chain_that_we_hold() -> None:
    current = generation()
    async with local_client(FakeSidecar(current)) as client:
        for path, accept in FORMS[1:4]:
            reply = await client.get(path, headers={"Accept": accept})
            assert reply.content == current.chain.pem
        leaf = await client.get("/certificate/leaf.pem")
        ca = await client.get("/certificate/ca.pem")
    assert leaf.content + ca.content == current.chain.pem
    assert ca.content == current.chain.ca_pem


@pytest.mark.parametrize(("path", "accept"), FORMS)
async def test_each_form_says_how_it_may_be_kept(path: str, accept: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        reply = await client.get(path, headers={"Accept": accept})
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch('"[0-9a-f]{32}"', reply.headers["etag"])
    assert reply.headers.get("vary") == ("Accept" if path == "/certificate" else None)
    assert int(reply.headers["content-length"]) == len(reply.content)
    if accept != "*/*":
        assert reply.headers["content-type"] == accept


async def test_every_form_has_a_tag_of_its_own_and_a_new_one_with_a_new_certificate() -> None:
    sidecar = FakeSidecar(generation(0))
    tags: set[str] = set()
    async with local_client(sidecar) as client:
        for number in (0, 1):
            sidecar.use(generation(number))
            for path, accept in FORMS:
                tags.add((await client.get(path, headers={"Accept": accept})).headers["etag"])
    # `/certificate` as a chain and `chain.pem` are the same bytes of the same type; the CA stays the same.
    assert len(tags) == 2 * (len(FORMS) - 1) - 1


CONDITIONS = [
    ("{tag}", 304),
    ("W/{tag}", 304),
    ('"other", {tag}', 304),
    ("*", 304),
    ('"other"', 200),
    ('W/"other", "more"', 200),
    ("", 200),
    ("garbage", 200),
]


@pytest.mark.parametrize(("condition", "status"), CONDITIONS)
async def test_conditional_requests(condition: str, status: int) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        for (path, accept), method in itertools.product(FORMS, ("GET", "HEAD")):
            whole = await client.get(path, headers={"Accept": accept})
            headers = {"Accept": accept, "If-None-Match": condition.format(tag=whole.headers["etag"])}
            reply = await client.request(method, path, headers=headers)
            assert reply.status_code == status
            assert reply.headers["etag"] == whole.headers["etag"]
            assert reply.headers.get("vary") == whole.headers.get("vary")
            assert reply.content == (whole.content if (status, method) == (200, "GET") else b"")
            if status == 200:
                assert reply.headers == whole.headers
            else:
                assert not {"content-type", "content-length"} & set(reply.headers)


async def test_the_tag_of_one_form_is_not_that_of_another() -> None:
    async with local_client(FakeSidecar(generation())) as client:
        tag = (await client.get("/certificate")).headers["etag"]
        reply = await client.get("/certificate", headers={"If-None-Match": tag, "Accept": PEM_CHAIN})
    assert reply.status_code == 200


async def test_other_media_types_are_not_acceptable() -> None:
    async with local_client(FakeSidecar(generation())) as client:
        reply = await client.get("/certificate", headers={"Accept": "text/html"})
    assert (reply.status_code, reply.json()["code"]) == (406, "not-acceptable")
    assert PEM_CHAIN in reply.json()["detail"]


def revoked(sidecar: FakeSidecar) -> None:
    sidecar.revoke_now()


def expired(sidecar: FakeSidecar) -> None:
    assert sidecar.status.generation is not None
    sidecar.clock = sidecar.status.generation.chain.effective_not_after


def gone(sidecar: FakeSidecar) -> None:
    sidecar.use(None)


@pytest.mark.parametrize(
    ("event", "code"),
    [(gone, "not-connected"), (expired, "credential-expired"), (revoked, "credential-revoked")],
)
@pytest.mark.parametrize(("path", "accept"), FORMS)
async def test_a_chain_that_nobody_would_accept_is_never_handed_out(
    event: object, code: str, path: str, accept: str
) -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar) as client:
        tag = (await client.get(path, headers={"Accept": accept})).headers["etag"]
        event(sidecar)  # type: ignore[operator]
        for condition in ({}, {"If-None-Match": tag}, {"If-None-Match": "*"}):
            reply = await client.get(path, headers={"Accept": accept, **condition})
            assert (reply.status_code, reply.json()["code"]) == (503, code)
            assert b"CERTIFICATE" not in reply.content


async def test_the_last_second_counts() -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar) as client:
        sidecar.clock = generation().chain.effective_not_after - timedelta(microseconds=1)
        assert (await client.get("/certificate")).status_code == 200
        sidecar.clock += timedelta(microseconds=1)
        assert (await client.get("/certificate")).status_code == 503
        sidecar.clock -= timedelta(seconds=1)  # a clock that is set back
        assert (await client.get("/certificate")).status_code == 200


async def test_a_leaf_alone_has_no_ca() -> None:
    async with local_client(FakeSidecar(generation(leaf_only=True))) as client:
        assert (await client.get("/certificate")).json()["ca"] is None
        reply = await client.get("/certificate/ca.pem")
        assert (reply.status_code, reply.json()["code"]) == (404, "not-found")
        assert (await client.get("/certificate/leaf.pem")).content == (
            await client.get("/certificate/chain.pem")
        ).content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
async def test_other_methods_are_told_which_are_allowed(method: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        for path in ("/certificate", "/certificate/chain.pem", "/status", "/livez", "/", "/openapi.json"):
            reply = await client.request(method, path)
            assert (reply.status_code, reply.json()["code"]) == (405, "method-not-allowed")
            assert reply.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_what_changes_something_is_posted(method: str) -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar) as client:
        for path in ("/renew", "/connect", "/revoke"):
            reply = await client.request(method, path)
            assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert not sidecar.attempts


@pytest.mark.parametrize("path", ["/certificate/", "/status/", "//status", "/Status", "/certificate/key.pem"])
async def test_what_is_not_there_is_not_found_and_not_redirected(path: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        reply = await client.get(httpx.URL("http://localhost:8080", path=path))
    assert (reply.status_code, reply.json()["code"]) == (404, "not-found")


async def test_a_chain_that_cannot_be_shown_is_a_500_that_says_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sidecar = FakeSidecar(generation())
    broken = object.__new__(Generation)
    sidecar.status = type("Broken", (), {"generation": broken})()  # type: ignore[assignment]
    async with local_client(sidecar) as client:
        for path in ("/certificate", "/certificate?x=1", "/status"):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
            assert "Attribute" not in reply.text
    assert "AttributeError" in caplog.text
