"""What an operator changes under a running sidecar: real files."""

from pathlib import Path

import pytest

from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.credential_files import CredentialFiles
from compass_sidecar.adapters.inputs import OperatorInputs
from compass_sidecar.errors import KeyMismatch, RequestRefused
from tests.support.authority import Authority
from tests.support.clock import FakeClock
from tests.support.connector import TOKEN_URL

pytestmark = pytest.mark.anyio
USED = "0" * 64


def inputs(**options: object) -> OperatorInputs:
    given = {
        "clock": FakeClock(),
        "files": None,
        "anchors": Anchors("COMPASS_CONNECTOR_CA_FILE", None),
        "token": None,
        "token_file": None,
        "token_url": TOKEN_URL,
        "token_used": lambda _: False,
        **options,
    }
    return OperatorInputs(**given)  # type: ignore[arg-type]


def write_pair(folder: Path, number: int) -> CredentialFiles:
    credential = Authority.create().credential(number=number)
    (folder / "tls.crt").write_bytes(credential.chain.pem)
    (folder / "tls.key").write_bytes(credential.key_pem)
    return CredentialFiles(folder / "tls.crt", folder / "tls.key", now=FakeClock().now)


async def test_a_pair_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    looked_at = inputs(files=write_pair(tmp_path, 1))
    first = await looked_at.credential()
    assert first is not None
    assert await looked_at.credential() is None
    write_pair(tmp_path, 2)
    second = await looked_at.credential()
    assert second is not None
    assert second.chain.fingerprint != first.chain.fingerprint


async def test_a_pair_that_does_not_fit_is_read_again_for_ten_seconds(tmp_path: Path) -> None:
    files, clock = write_pair(tmp_path, 1), FakeClock()
    (tmp_path / "tls.key").write_bytes(Authority.create().credential(number=2).key_pem)
    looked_at = inputs(files=files, clock=clock)
    begun = clock.elapsed()
    with pytest.raises(KeyMismatch):
        await looked_at.credential()
    assert (clock.elapsed() - begun).total_seconds() == 10


async def test_a_token_is_offered_until_it_is_spent() -> None:
    looked_at = inputs(token="token-a")
    token = await looked_at.token()
    assert token is not None
    assert token.url == TOKEN_URL
    assert await looked_at.token() == token
    looked_at.spend(token)
    assert await looked_at.token() is None


async def test_a_token_used_in_an_earlier_life_is_not_offered() -> None:
    assert await inputs(token="token-a", token_used=lambda _: True).token() is None


async def test_a_token_file_may_come_later_and_change(tmp_path: Path) -> None:
    path = tmp_path / "token"
    looked_at = inputs(token_file=path)
    assert await looked_at.token() is None
    path.write_text("token-a\n")
    first = await looked_at.token()
    assert first is not None
    looked_at.spend(first)
    path.write_text("token-b\n")
    second = await looked_at.token()
    assert second is not None
    assert second.value == "token-b"


async def test_a_token_file_may_hold_what_the_director_returned_behind_a_byte_order_mark(
    tmp_path: Path,
) -> None:
    path = tmp_path / "token"
    path.write_text('\ufeff{"token": "token-a", "connectorURL": "https://c/", "usedAt": "—"}\n')
    token = await inputs(token_file=path, token_url=None).token()
    assert token is not None
    assert (token.value, token.url) == ("token-a", "https://c/")


async def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match=f"{tmp_path} cannot be read: it is a folder"):
        await inputs(token_file=tmp_path).token()
