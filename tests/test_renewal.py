"""One renewal from start to end: real store and certificates, a scripted Connector, a clock that jumps."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.core.answer import SignedAnswer
from compass_sidecar.core.credential import Chain, Credential, parse_certificates
from compass_sidecar.core.generation import Facts, Origin
from compass_sidecar.engine.renewal import Plan
from compass_sidecar.errors import (
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    CredentialExpired,
    NoCredential,
    SidecarError,
    StoreWriteFailed,
    SubjectRefused,
    UnusableURL,
)
from tests.support.authority import LIFETIME, Authority, name, rsa_key
from tests.support.connector import TOKEN_URL, URL
from tests.support.house import House

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store")
    yield made
    made.close()


# --- renew ------------------------------------------------------------------------------------------


async def test_a_renewal_makes_three_calls_and_switches_to_a_new_key(house: House) -> None:
    before = (await house.holding()).current
    after = await house.attempt()
    assert after.chain.fingerprint != before.chain.fingerprint
    assert after.credential.key_pem != before.credential.key_pem
    assert house.connector.calls == {"configuration": 1, "sign": 1, "probe": 1}
    assert after.facts.origin is Origin.RENEW
    assert after.facts.proven_at == house.clock.now()
    assert house.store.load() == after
    assert house.store.pending() is None


class BrokenPublisher:
    """Fails with an exception from outside the error tree, until `error` is None."""

    error: Exception | None = MemoryError()

    def publish(self, credential: Credential) -> bool:
        if self.error is not None:
            raise self.error
        return True


async def test_no_failure_of_the_published_files_fails_a_renewal(house: House) -> None:
    publisher = BrokenPublisher()
    house.publisher = publisher
    await house.restart()
    before = (await house.holding()).fingerprint
    renewed = await house.scheduler.renew()
    assert renewed.previous == before
    assert house.attempts.progress.consecutive_failures == 0
    assert "publish-failed" in house.said.names()
    publisher.error = None
    await house.run_for(2 * MINUTE)
    assert "published" in house.said.names()


async def test_the_old_pair_asks_and_the_new_pair_proves(house: House) -> None:
    before = (await house.holding()).fingerprint
    after = (await house.attempt()).chain.fingerprint
    doors = house.connector.doors
    assert [doors[each][0].pair.fingerprint for each in ("configuration", "sign", "probe")] == [
        before,
        before,
        after,
    ]
    assert all(door.token is None for each in doors.values() for door in each)


async def test_connections_of_the_old_pair_are_closed(house: House) -> None:
    await house.holding()
    after = await house.attempt()
    assert house.connector.kept == {after.chain.fingerprint}


async def test_without_a_credential_there_is_nothing_to_renew(house: House) -> None:
    await house.scheduler.start()
    with pytest.raises(NoCredential):
        await house.attempt()


def _other_leaf(answer: SignedAnswer, **options: object) -> SignedAnswer:
    """The answer with a leaf made from scratch, by the same CA unless `by` is given."""
    authorities = parse_certificates(answer.ca_pem)
    asked = parse_certificates(answer.leaf_pem)[0]
    by: Authority = options.pop("by")  # type: ignore[assignment]
    made = by.issue(**{"key": asked.public_key(), "not_before": asked.not_valid_before_utc, **options})  # type: ignore[arg-type]
    chain = Chain.of([made, *authorities])
    return replace(answer, leaf_pem=Chain.of([made]).pem, chain_pem=chain.pem)


WRONG: dict[str, Callable[[SignedAnswer, House], SignedAnswer]] = {
    "another key": lambda answer, house: _other_leaf(answer, by=house.authority, key=rsa_key(9).public_key()),
    "for .*, asked for": lambda answer, house: _other_leaf(
        answer, by=house.authority, subject=name("someone-else")
    ),
    "expired at .*the Connector's clock is .*, ours": lambda answer, house: _other_leaf(
        answer, by=house.authority, not_before=house.clock.now() - 2 * MINUTE, lifetime=MINUTE
    ),
    "not valid before": lambda answer, house: _other_leaf(
        answer, by=house.authority, not_before=house.clock.now() + 5 * MINUTE
    ),
    "signed by none of the other": lambda answer, _: _other_leaf(answer, by=Authority.create()),
    "certificateChain is not PEM": lambda answer, _: replace(answer, chain_pem=b"nothing"),
    "lacks clientAuth": lambda answer, house: _other_leaf(
        answer, by=house.authority, purposes=[_server_auth()]
    ),
}


def _server_auth() -> object:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    return ExtendedKeyUsageOID.SERVER_AUTH


@pytest.mark.parametrize("detail", WRONG)
async def test_a_wrong_answer_leaves_the_old_credential_in_use(house: House, detail: str) -> None:
    before = (await house.holding()).fingerprint
    house.connector.answer = lambda answer: WRONG[detail](answer, house)
    with pytest.raises(ConnectorProtocol, match=detail):
        await house.attempt()
    assert house.fingerprint == before
    assert house.store.load().chain.fingerprint == before
    assert house.connector.calls["probe"] == 0


async def test_after_a_lost_answer_the_same_csr_is_signed_without_another_configuration(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(ConnectorTimeout("lost"))
    with pytest.raises(ConnectorTimeout):
        await house.attempt()
    await house.restart()
    await house.attempt()
    assert house.connector.calls["configuration"] == 1
    assert len(set(house.connector.csrs)) == 1


async def test_a_csr_of_an_hour_is_made_anew(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(ConnectorTimeout("lost"))
    with pytest.raises(ConnectorTimeout):
        await house.attempt()
    house.clock.advance(timedelta(hours=1))
    await house.attempt()
    assert house.connector.calls["configuration"] == 2
    assert len(set(house.connector.csrs)) == 2


async def test_a_stale_subject_is_fetched_once_more(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(SubjectRefused("CSR: Invalid organization provided."))
    await house.attempt()
    assert house.connector.calls["configuration"] == 2
    assert house.connector.calls["sign"] == 2


async def test_a_subject_that_is_refused_twice_is_a_failure(house: House) -> None:
    before = (await house.holding()).fingerprint
    house.connector.always["sign"] = SubjectRefused("CSR: Invalid organization provided.")
    with pytest.raises(SubjectRefused):
        await house.attempt()
    assert house.connector.calls["sign"] == 2
    assert house.fingerprint == before
    assert house.renewal.pending is None


async def test_a_subject_that_cannot_be_understood_is_no_guess(house: House) -> None:
    await house.holding()
    house.connector.subject = "CN"
    with pytest.raises(ConnectorProtocol, match="not understood"):
        await house.attempt()
    assert house.connector.calls["sign"] == 0


# --- proof ------------------------------------------------------------------------------------------


async def test_a_moment_of_refusal_is_waited_for(house: House) -> None:
    before = (await house.holding()).fingerprint
    house.connector.script["probe"].extend(
        [ConnectorUnauthenticated("expired"), ConnectorUnauthenticated("x")]
    )
    after = await house.attempt()
    assert after.chain.fingerprint != before
    assert house.connector.calls["sign"] == 1


async def test_a_signed_answer_waits_for_its_proof_and_is_never_signed_again(house: House) -> None:
    before = (await house.holding()).fingerprint
    house.connector.always["probe"] = ConnectorUnavailable("down")
    with pytest.raises(ConnectorUnavailable):
        await house.attempt()
    await house.restart()
    assert house.fingerprint == before
    assert house.renewal.pending.signed is not None
    del house.connector.always["probe"]
    after = await house.attempt()
    assert house.connector.calls["sign"] == 1
    assert after.chain == house.store.load().chain


async def test_an_unproven_pair_is_used_when_the_old_one_is_about_to_end(house: House) -> None:
    before = (await house.holding(age=LIFETIME - 5 * MINUTE)).fingerprint
    house.connector.always["probe"] = ConnectorUnavailable("down")
    after = await house.attempt()
    assert after.chain.fingerprint != before
    assert after.facts.proven_at is None
    assert "used-unproven" in house.said.names()


async def test_an_announced_url_that_does_not_work_does_not_cost_the_one_that_does(house: House) -> None:
    await house.holding()
    house.connector.connector_url = "https://moved.example/connector/graphql"
    house.connector.script["probe"].append(ConnectorUnavailable("no such host"))
    after = await house.attempt()
    assert after.facts.connector_url == URL
    assert after.facts.proven_at is not None


async def test_an_announced_url_that_can_never_be_called_is_named_and_not_used(house: House) -> None:
    await house.holding()
    house.connector.connector_url, house.connector.url_fault = None, "is no URL"
    after = await house.attempt()
    assert after.facts.connector_url == URL
    assert {"event": "announced-url-unusable", "detail": "is no URL"} in house.said.events


async def test_an_announced_url_that_works_is_used_from_then_on(house: House) -> None:
    await house.holding()
    house.connector.connector_url = "https://moved.example/connector/graphql"
    await house.attempt()
    await house.attempt()
    assert house.connector.doors["configuration"][-1].url == "https://moved.example/connector/graphql"


# --- disk -------------------------------------------------------------------------------------------


async def test_a_full_disk_before_signing_asks_for_no_signature(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await house.holding()).fingerprint
    monkeypatch.setattr(house.store, "save_pending", _full)
    with pytest.raises(StoreWriteFailed):
        await house.attempt()
    assert house.connector.calls["sign"] == 0
    monkeypatch.undo()
    assert (await house.attempt()).chain.fingerprint != before


async def test_a_signed_answer_that_found_the_disk_full_is_kept_and_stored_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.scheduler.start()
    save = house.store.save_pending
    monkeypatch.setattr(house.store, "save_pending", lambda each: _full() if each.signed else save(each))
    with pytest.raises(StoreWriteFailed):
        await house.connect()
    monkeypatch.undo()
    assert (await house.attempt()).facts.origin is Origin.CONNECT
    assert house.connector.calls["sign"] == 1


def _full(*_: object) -> None:
    raise StoreWriteFailed("no space left on device")


# --- connect ----------------------------------------------------------------------------------------


async def test_a_first_connection_signs_with_the_second_token(house: House) -> None:
    await house.scheduler.start()
    generation = await house.connect()
    (introduced,), (signed,) = house.connector.doors["configuration"], house.connector.doors["sign"]
    assert (introduced.url, introduced.token) == (TOKEN_URL, "token-a")
    assert (signed.url, signed.token) == (TOKEN_URL, "token-b")
    assert house.connector.doors["probe"][0].url == URL
    assert generation.facts.connector_url == URL
    assert generation.facts.origin is Origin.CONNECT
    assert house.store.token_used(house.token().digest)


async def test_a_first_connection_survives_a_kill_before_the_signature(house: House) -> None:
    await house.scheduler.start()
    house.connector.script["sign"].append(ConnectorUnavailable("killed"))
    with pytest.raises(ConnectorUnavailable):
        await house.connect()
    await house.restart()
    generation = await house.attempt()
    assert generation.facts.origin is Origin.CONNECT
    assert house.connector.calls["configuration"] == 1


async def test_a_spent_second_token_says_what_is_needed(house: House) -> None:
    await house.scheduler.start()
    house.connector.script["sign"].append(ConnectorTimeout("lost"))
    with pytest.raises(ConnectorTimeout):
        await house.connect()
    house.connector.script["sign"].append(ConnectorUnauthenticated("400"))
    with pytest.raises(NoCredential, match="a new one-time token is needed"):
        await house.attempt()
    assert house.renewal.pending is None


async def test_a_connection_replaces_a_renewal_under_way(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(ConnectorTimeout("lost"))
    with pytest.raises(ConnectorTimeout):
        await house.attempt()
    generation = await house.connect()
    assert house.fingerprint == generation.chain.fingerprint
    assert house.store.pending() is None


async def test_a_connector_without_a_url_is_refused(house: House) -> None:
    await house.scheduler.start()
    house.connector.connector_url = None
    with pytest.raises(ConnectorProtocol, match="no certificate-secured URL"):
        await house.connect()


async def test_a_first_connection_needs_a_url_that_can_be_called(house: House) -> None:
    await house.scheduler.start()
    house.connector.connector_url, house.connector.url_fault = None, "the URL has no host"
    with pytest.raises(UnusableURL, match="the URL has no host, and COMPASS_CONNECTOR_URL is not set"):
        await house.connect()


async def test_a_first_credential_is_used_unproven_when_the_connector_is_gone(house: House) -> None:
    await house.scheduler.start()
    house.connector.always["probe"] = ConnectorUnavailable("down")
    generation = await house.connect()
    assert generation.facts.proven_at is None
    assert house.connector.calls["sign"] == 1


# --- restore ---------------------------------------------------------------------------------------


async def test_a_stored_chain_that_openssl_cannot_read_is_stored_anew(house: House) -> None:
    """Version 0.1.0 kept white space in an imported chain."""
    credential = house.authority.credential()
    spoiled = replace(credential.chain, pem=credential.chain.pem.replace(b"\n", b"\n \n"))
    facts = Facts(Origin.IMPORT, URL, house.clock.now(), director_url="https://director.example")
    house.store.activate(replace(credential, chain=spoiled), facts)
    await house.scheduler.start()
    assert (house.current.credential, house.current.facts) == (credential, facts)
    pair = house.store.pair(house.current)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(pair.certificate_file, pair.key_file)
    await house.restart()
    assert house.current.credential == credential


# --- import -----------------------------------------------------------------------------------------


async def test_a_first_import_may_have_expired_and_a_later_one_must_be_newer_and_valid(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, plan=Plan(URL))
    await house.scheduler.start()
    now = house.clock.now()
    make = house.authority.credential
    old = make(not_before=now - 2 * MINUTE, lifetime=MINUTE)
    assert await house.renewal.adopt(old)
    older = make(number=1, not_before=now - 3 * MINUTE)
    assert not await house.renewal.adopt(older)
    with pytest.raises(CredentialExpired):
        await house.renewal.adopt(make(number=2, not_before=now - MINUTE, lifetime=MINUTE / 2))
    newer = make(number=3, not_before=now - MINUTE)
    assert await house.renewal.adopt(newer)
    assert house.current.chain == newer.chain
    house.close()


async def test_an_import_needs_a_url(house: House) -> None:
    await house.scheduler.start()
    with pytest.raises(NoCredential, match="COMPASS_CONNECTOR_URL"):
        await house.renewal.adopt(house.authority.credential())


async def test_an_import_drops_what_was_pending(house: House) -> None:
    await house.holding(age=MINUTE)
    house.connector.always["probe"] = ConnectorUnavailable("down")
    with pytest.raises(ConnectorUnavailable):
        await house.attempt()
    assert await house.renewal.adopt(house.authority.credential(number=1, not_before=house.clock.now()))
    assert house.store.pending() is None


# --- what is kept and shown -------------------------------------------------------------------------


async def test_errors_say_nothing_of_keys(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(ConnectorRejected("no"))
    with pytest.raises(SidecarError) as caught:
        await house.attempt()
    assert "PRIVATE" not in repr(house.renewal.generation) + str(caught.value)


async def test_what_was_begun_with_another_credential_is_gone_after_a_start(house: House) -> None:
    await house.holding()
    house.connector.script["sign"].append(ConnectorUnavailable("killed"))
    with pytest.raises(ConnectorUnavailable):
        await house.attempt()
    pending = house.directory / "pending" / "pending.json"
    record = pending.read_bytes()
    house.clock.advance(timedelta(seconds=1))
    house.hold(number=1)
    pending.parent.mkdir()
    pending.write_bytes(record)  # as if the kill had come between the switch and the removal
    await house.restart()
    assert house.renewal.pending is None
    assert not pending.exists()
    assert "pending-dropped" in house.said.names()
