"""The client against a Compass Connector that behaves, and against one that does not."""

import urllib.error
from pathlib import Path

import pytest
from renewal import Client, Refused

from compass_emulator import BlockingEmulator


@pytest.fixture
def client(compass_emulator: BlockingEmulator) -> Client:
    at = compass_emulator.endpoints
    return Client(Path(at.client_certificate_file), Path(at.client_key_file), Path(at.ca_file))


def test_a_renewed_certificate_is_the_one_that_calls(
    compass_emulator: BlockingEmulator, client: Client
) -> None:
    client.renew(compass_emulator.endpoints.connector_url)
    viewer = client.call(compass_emulator.endpoints.director_url, "{ viewer { type } }")
    assert viewer == {"viewer": {"type": "APPLICATION"}}
    old, new = (one["fingerprint_sha256"] for one in compass_emulator.issued)
    called_with = compass_emulator.requests[-1]["peer_fingerprint_sha256"]
    assert old != new == called_with


def test_the_old_pair_stays_when_the_answer_is_lost(
    compass_emulator: BlockingEmulator, client: Client
) -> None:
    before = client.certificate.read_bytes(), client.key.read_bytes()
    compass_emulator.fault("reset-after-acting@sign*1")
    with pytest.raises(ConnectionResetError):
        client.renew(compass_emulator.endpoints.connector_url)
    assert (client.certificate.read_bytes(), client.key.read_bytes()) == before
    assert compass_emulator.counters["signatures"] == 1, "it was signed all the same"
    client.renew(compass_emulator.endpoints.connector_url)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("wrong-key", Refused),
        ("csr-invalid-country", Refused),
        ("empty-400", urllib.error.HTTPError),
        ("429", urllib.error.HTTPError),
        ("server-cert-expired", urllib.error.URLError),
    ],
)
def test_what_goes_wrong_is_an_error_and_the_old_pair_stays(
    compass_emulator: BlockingEmulator, client: Client, fault: str, error: type[Exception]
) -> None:
    before = client.certificate.read_bytes()
    compass_emulator.fault(fault)
    with pytest.raises(error):
        client.renew(compass_emulator.endpoints.connector_url)
    assert client.certificate.read_bytes() == before


class TestOtherOptions:
    """With an emulator that was started with other options."""

    @pytest.fixture
    def compass_emulator_options(self) -> dict[str, object]:
        return {"chain": 3, "consumer_type": "Runtime"}

    def test_a_runtime_renews_below_an_intermediate(
        self, compass_emulator: BlockingEmulator, client: Client
    ) -> None:
        client.renew(compass_emulator.endpoints.connector_url)
        assert client.certificate.read_text().count("BEGIN CERTIFICATE") == 3
        viewer = client.call(compass_emulator.endpoints.director_url, "{ viewer { type } }")
        assert viewer == {"viewer": {"type": "RUNTIME"}}
