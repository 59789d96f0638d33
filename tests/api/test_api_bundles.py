"""Key and chain in one read."""

import asyncio
import logging
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from compass_sidecar.api.guard import Access
from compass_sidecar.api.server import listen_unix
from compass_sidecar.core.credential import key_algorithm
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import BEARER, TOKEN, Wire, local_client, serving_on

pytestmark = pytest.mark.anyio
OPEN = Access(api_token=TOKEN, expose_private_key=True)
PASSWORD = "pässword-17"
WITH_PASSWORD = [*BEARER.items(), ("Compass-Bundle-Password", PASSWORD.encode())]


async def test_pem_is_the_key_and_then_the_chain() -> None:
    current = generation()
    async with local_client(FakeSidecar(current), OPEN) as client:
        reply = await client.get("/certificate/bundle.pem", headers=BEARER)
        head = await client.head("/certificate/bundle.pem", headers=BEARER)
    assert reply.content == current.credential.key_pem + current.chain.pem
    assert reply.headers["cache-control"] == "no-store"
    assert "etag" not in reply.headers
    assert (head.content, head.headers["content-length"]) == (b"", str(len(reply.content)))


async def test_pkcs12_has_key_leaf_and_authorities() -> None:
    current = generation()
    async with local_client(FakeSidecar(current), OPEN) as client:
        reply = await client.get("/certificate/bundle.p12", headers=WITH_PASSWORD)
    assert (reply.headers["content-type"], reply.headers["cache-control"]) == (
        "application/pkcs12",
        "no-store",
    )
    key, leaf, authorities = pkcs12.load_key_and_certificates(reply.content, PASSWORD.encode())
    ours = load_pem_private_key(current.credential.key_pem, None)
    assert key is not None
    assert key.private_numbers() == ours.private_numbers()  # type: ignore[union-attr]
    assert (leaf, tuple(authorities)) == (current.chain.leaf, current.chain.authorities)
    assert key_algorithm(current.chain.leaf) == "RSA-2048"


async def test_pkcs12_is_modern_and_openssl_opens_it(tmp_path: Path) -> None:
    async with local_client(FakeSidecar(generation()), OPEN) as client:
        headers = BEARER | {"Compass-Bundle-Password": "secret"}
        (tmp_path / "bundle.p12").write_bytes(
            (await client.get("/certificate/bundle.p12", headers=headers)).content
        )
    command = ["openssl", "pkcs12", "-in", "bundle.p12", "-passin", "pass:secret", "-nodes", "-info"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.count("BEGIN CERTIFICATE") == 2
    assert shown.stdout.count("BEGIN PRIVATE KEY") == 1
    assert "AES-256-CBC" in shown.stderr
    assert "sha256" in shown.stderr.lower()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Compass-Bundle-Password", "")],
        [("Compass-Bundle-Password", b"\xff\xfe")],
        [("Compass-Bundle-Password", "a"), ("Compass-Bundle-Password", "b")],
    ],
)
async def test_pkcs12_needs_one_password(headers: list[tuple[str, str | bytes]]) -> None:
    async with local_client(FakeSidecar(generation()), OPEN) as client:
        reply = await client.get("/certificate/bundle.p12", headers=[*BEARER.items(), *headers])
    assert (reply.status_code, reply.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize("path", ["/certificate/bundle.pem", "/certificate/bundle.p12"])
async def test_a_revoked_key_is_not_handed_out(path: str) -> None:
    sidecar = FakeSidecar(generation())
    sidecar.revoke_now()
    async with local_client(sidecar, OPEN) as client:
        reply = await client.get(path, headers=WITH_PASSWORD)
    assert (reply.status_code, reply.json()["code"]) == (503, "credential-revoked")


async def test_each_read_is_logged_with_who_and_which(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compass_sidecar.api")
    async with local_client(FakeSidecar(generation()), OPEN) as client:
        await client.get("/certificate/bundle.pem", headers=BEARER)
        await client.get("/certificate/bundle.p12", headers=WITH_PASSWORD)
    records = [vars(record) for record in caplog.records if record.name == "compass_sidecar.api"]
    assert [record["path"] for record in records] == ["/certificate/bundle.pem", "/certificate/bundle.p12"]
    for record in records:
        assert (record["by"], record["fingerprint"]) == (
            "127.0.0.1, with the token",
            generation().chain.fingerprint,
        )
    assert not any(secret in str(records) for secret in (TOKEN, PASSWORD, "PRIVATE KEY-"))


async def test_over_the_unix_socket_the_kernel_says_who(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compass_sidecar.api")
    sidecar = FakeSidecar(generation())
    with listen_unix(tmp_path / "socket") as sockets:
        async with serving_on(sockets, sidecar, Access(unix_socket=True, expose_private_key=True)):
            wire = Wire(*await asyncio.open_unix_connection(tmp_path / "socket"))
            reply = await wire.ask("GET /certificate/bundle.pem HTTP/1.1", "Host: x")
            await wire.close()
    assert reply.status == 200
    (record,) = [vars(record) for record in caplog.records if record.name == "compass_sidecar.api"]
    assert record["by"].startswith("unix socket, pid ")
    assert "uid " in record["by"]
