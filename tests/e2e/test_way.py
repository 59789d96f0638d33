"""The way to the Connector, through the real process: URLs and proxies."""

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess

UNUSABLE = ("socks5://me:hunter2@proxy.example:1080", "http://proxy.example:3128/pac", '"http://proxy:3128"')


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_a_proxy_of_an_unusable_form_is_an_error_only_for_a_call_through_it(start: Start, proxy: str) -> None:
    exempt = start(environ={"HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1"}).ready()
    assert exempt.client.post("/renew").status_code == 200
    assert exempt.stop() == 0
    sidecar = start(environ={"HTTPS_PROXY": proxy, "NO_PROXY": ""}).ready()
    problem = sidecar.client.post("/renew").json()
    assert problem["code"] == "connector-unavailable"
    assert "the proxy in HTTPS_PROXY cannot be used: the variable should " in problem["detail"]
    assert "hunter2" not in str(sidecar.status()) + sidecar.log.read_text()


@pytest.mark.parametrize("fault", ["connector-url-bad-name", "connector-url-port-0"])
def test_an_announced_url_that_can_never_be_called_costs_no_renewal(
    start: Start, emulator: EmulatorProcess, fault: str
) -> None:
    emulator.fault(fault)
    sidecar = start().ready()
    for _ in range(2):
        assert sidecar.client.post("/renew").status_code == 200
    assert emulator.endpoints["connector_url"] == sidecar.status()["connector"]["url"]
    assert "announced-url-unusable" in [event["event"] for event in sidecar.status()["events"]]
