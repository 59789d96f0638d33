"""Signed answers that can never be proven: at the emulator, and in a store that 0.1.0 left behind."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from compass_sidecar.core.credential import Chain, Credential, parse_certificates
from compass_sidecar.core.csr import make_csr
from tests.support import first_version
from tests.support.authority import Authority, name, rsa_key
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

UNUSABLE_URL = "https://xn--a/connector/graphql"
Begin = Callable[..., SidecarProcess]


@pytest.fixture
def begin(emulator: EmulatorProcess, tmp_path: Path) -> Iterator[Begin]:
    """A sidecar that finds a store of 0.1.0, and has no URL but the one that is stored there."""
    started: list[SidecarProcess] = []

    def start(current: Credential, pending: dict[str, Any] | None = None) -> SidecarProcess:
        now = datetime.now(UTC).isoformat()
        first_version.write(
            tmp_path / "store",
            key=current.key_pem,
            chain=current.chain.pem,
            ca=current.chain.ca_pem or b"",
            origin="renew",
            connector_url=emulator.endpoints["connector_url"],
            activated_at=now,
            proven_at=now,
            pending=pending,
        )
        environment = {
            "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
            "COMPASS_STORE_DIR": str(tmp_path / "store"),
            "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
        }
        started.append(SidecarProcess(environment, log=tmp_path / "log"))
        return started[-1].ready()

    yield start
    for each in started:
        each.close()


def first_credential(emulator: EmulatorProcess) -> Credential:
    at = emulator.endpoints
    chain = Chain.of(parse_certificates(Path(at["client_certificate_file"]).read_bytes()))
    return Credential(chain, Path(at["client_key_file"]).read_bytes())


def waiting(current: Credential, signed: Credential, url: str) -> dict[str, Any]:
    """What 0.1.0 kept of a signed answer that waits for its proof at this URL."""
    now = datetime.now(UTC).isoformat()
    return {
        "origin": "renew",
        "begun_by": current.chain.fingerprint,
        "begun_at": now,
        "sign_url": url,
        "connector_url": url,
        "director_url": None,
        "subject": "O=Org,CN=x",
        "key_pem": signed.key_pem.decode(),
        "csr_pem": make_csr(rsa_key(6), name()).decode(),
        "token": None,
        "signed": {
            "chain": {"pem": signed.chain.pem.decode(), "ca": (signed.chain.ca_pem or b"").decode()},
            "signed_at": now,
            "anchor_changed": False,
            "refused_since": None,
        },
    }


def renew(sidecar: SidecarProcess) -> httpx.Response:
    return sidecar.client.post("/renew")


def test_an_answer_that_openssl_does_not_load_costs_no_later_renewal(
    begin: Begin, emulator: EmulatorProcess
) -> None:
    sidecar = begin(first_credential(emulator))
    before = sidecar.fingerprint()
    emulator.fault("ca-1024-bits")
    for _ in range(2):
        answer = renew(sidecar)
        assert (answer.status_code, answer.json()["code"]) == (502, "connector-protocol"), answer.text
        sidecar.kill()
        sidecar.start()
        sidecar.ready()
    assert sidecar.fingerprint() == before
    emulator.heal()
    assert renew(sidecar).status_code == 200


def test_an_announced_url_that_cannot_be_called_costs_no_renewal(
    begin: Begin, emulator: EmulatorProcess
) -> None:
    sidecar = begin(first_credential(emulator))
    emulator.fault("connector-url-bad-name")
    assert renew(sidecar).status_code == 200
    assert sidecar.status()["connector"]["url"] == emulator.endpoints["connector_url"]


def test_what_0_1_0_kept_and_openssl_does_not_load_is_dropped(
    begin: Begin, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    weak = Authority.create("Weak CA", key=key)
    current, signed = first_credential(emulator), weak.credential(number=6)
    sidecar = begin(current, waiting(current, signed, emulator.endpoints["connector_url"]))

    def dropped() -> bool:
        return "pending-dropped" in [each["event"] for each in sidecar.status()["events"]]

    wait_until(dropped, "the drop")
    assert not (tmp_path / "store" / "pending").exists()
    assert sidecar.fingerprint() == current.chain.fingerprint
    assert sidecar.status()["renewal"]["last_error"]["code"] == "connector-protocol"
    assert renew(sidecar).status_code == 200


def test_a_url_that_0_1_0_kept_and_that_cannot_be_called_is_replaced_by_the_known_one(
    begin: Begin, emulator: EmulatorProcess
) -> None:
    current, signed = Authority.create().credential(number=7), first_credential(emulator)
    sidecar = begin(current, waiting(current, signed, UNUSABLE_URL))
    wait_until(lambda: sidecar.fingerprint() == signed.chain.fingerprint, "the proof")
    assert sidecar.status()["connector"]["url"] == emulator.endpoints["connector_url"]
