"""`make pod-test`: the pod of deploy/kubernetes, from waiting for its first token to its next life.

Not a part of the suite: it needs root and images.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import Container, Image, Network, Wish
from tests.support.pod import Pod
from tests.support.processes import wait_until

ROOT = Path(__file__).parents[2]
STATEFUL_SET = ROOT / "deploy/kubernetes/statefulset.yaml"
# A neighbour with another uid, which reads the published pair and goes on until SIGTERM.
APPLICATION = """
import signal, ssl, sys
ssl.create_default_context().load_cert_chain("/run/compass-sidecar/tls.crt", "/run/compass-sidecar/tls.key")
print("has a certificate", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.sidecar = Image("localhost/compass-sidecar:latest")
        self.emulator = Image("localhost/compass-emulator:latest")
        self.network = Network()
        for name in ("emulator", "pod", "node"):
            self.network.join(name)
        self.state = folder / "state"
        self.state.mkdir()
        os.chown(self.state, 65532, 65532)
        options = ("--host", "0.0.0.0", "--server-name", "emulator", "--advertise", "emulator")
        wish = Wish(image=self.emulator, command=options, mounts={"/state": (self.state, "rw")})
        self.connector = Container("emulator", wish, self.network, folder)
        self.connector.await_health()
        self.pod = Pod(
            STATEFUL_SET,
            folder,
            self.network,
            images={"compass-sidecar": self.sidecar, "application": self.sidecar},
            # The emulator's server has a CA of its own; and this test is in a hurry.
            more={"COMPASS_CONNECTOR_CA_FILE": "/server-ca.crt", "COMPASS_RENEWAL_MIN_INTERVAL": "0s"},
            extra={"/server-ca.crt": self.state / "server-ca.crt"},
            application=("python", "-c", APPLICATION),
        )

    def token(self) -> bytes:
        """In the form that brings its URL."""
        made = json.loads(
            self.network.curl("emulator", "-X", "POST", "-d", "{}", "http://127.0.0.1:8445/tokens")
        )
        return str(made["raw_encoded"]).encode()

    def fingerprint(self) -> str:
        status = json.loads(self.network.curl("pod", "http://localhost:8080/status"))
        text: str = status["certificate"]["fingerprint_sha256"]
        return text

    def close(self) -> None:
        for container in (*self.pod.containers.values(), self.connector):
            container.close()
        self.network.close()
        self.sidecar.close()
        self.emulator.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    tmp_path.chmod(0o755)
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_a_pod_waits_for_its_token_and_keeps_what_it_got(cluster: Cluster) -> None:
    pod = cluster.pod
    sidecar = pod.start(pod.sidecar)
    wait_until(lambda: pod.probe("livenessProbe"), "a living sidecar")
    assert not pod.probe("startupProbe")
    assert not pod.probe("readinessProbe")
    pod.secrets["compass-sidecar-first"].put({"token": cluster.token()})
    wait_until(lambda: pod.probe("startupProbe"), "the first credential", patience=90)
    assert pod.probe("readinessProbe")

    application = pod.start(pod.neighbour)
    wait_until(lambda: "has a certificate" in application.log.read_text(), "the application's start")
    refused = application.execute("python", "-c", "open('/run/compass-sidecar/probe', 'w')")
    assert refused.returncode == 1
    renewed = sidecar.execute("compass-sidecar", "renew", "--json")
    assert renewed.returncode == 0, renewed.stderr
    before = cluster.fingerprint()

    ends = pod.end()
    assert all(status == 0 and seconds < 5 for status, seconds in ends), ends
    pod.start(pod.sidecar)
    wait_until(lambda: pod.probe("startupProbe"), "the next start")
    assert cluster.fingerprint() == before
    application = pod.start(pod.neighbour)
    wait_until(lambda: "has a certificate" in application.log.read_text(), "the application's next start")


def test_the_api_is_not_to_be_reached_from_outside_the_pod(cluster: Cluster) -> None:
    pod = cluster.pod
    pod.start(pod.sidecar)
    wait_until(lambda: pod.probe("livenessProbe"), "a living sidecar")
    address = cluster.network.addresses["pod"]
    with pytest.raises(AssertionError, match="onnect"):
        cluster.network.curl("node", f"http://{address}:8080/status")
    assert "compass_sidecar_state" in cluster.network.curl("node", f"http://{address}:8081/metrics")
