"""What deploys the sidecar speaks of it as it is: every variable, path, port, folder and user exists.

The manifests' own form is checked by `make deploy-test`, which needs large tools.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from compass_sidecar import __version__
from compass_sidecar.api.paths import PROBES
from compass_sidecar.settings import Settings, describe
from tests.support.environment import settings_of

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
UID, GROUP = 65532, 65533
STORE, PUBLISHED = "/var/lib/compass-sidecar", "/run/compass-sidecar"
VARIABLES = {row.name for row in describe()} | {f"{row.name}_FILE" for row in describe() if row.secret}
Object = dict[str, Any]


def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def manifest(name: str, *, with_alternatives: bool = False) -> Object:
    """One manifest; with what its comments offer, it has all alternatives at once."""
    text = (KUBERNETES / name).read_text()
    if with_alternatives:
        text = re.sub(r"^( +)# (- name|  value)", r"\1\2", text, flags=re.MULTILINE)
    content: Object = yaml.safe_load(text)
    return content


def pod(**options: bool) -> Object:
    spec: Object = manifest("statefulset.yaml", **options)["spec"]["template"]["spec"]
    return spec


def sidecar(**options: bool) -> Object:
    container: Object = pod(**options)["initContainers"][0]
    return container


def variables(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def mounts(container: Object) -> dict[str, Object]:
    return {each["name"]: each for each in container["volumeMounts"]}


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "Dockerfile",
        "docker-compose.yml",
        "deploy/kubernetes/statefulset.yaml",
        "deploy/systemd/compass-sidecar.service",
        "docs/kubernetes.md",
        "README.md",
    ],
)
def test_every_variable_exists(path: str) -> None:
    named = set(re.findall(r"\bCOMPASS_[A-Z][A-Z_]*[A-Z]\b", text_of(path)))
    assert named
    # What is handed to commands is no setting.
    assert named - VARIABLES <= {"COMPASS_EVENT", "COMPASS_FINGERPRINT", "COMPASS_NOT_AFTER"}


def test_the_store_is_at_the_same_place_everywhere() -> None:
    assert Settings().store_dir == Path(STORE)
    assert f"COMPASS_STORE_DIR={STORE}" in text_of("Dockerfile")
    assert f":{STORE}\n" in text_of("docker-compose.yml")
    assert mounts(sidecar())["store"]["mountPath"] == variables(sidecar())["COMPASS_STORE_DIR"] == STORE


# --- the image -----------------------------------------------------------------------------------


def test_the_image_needs_no_shell_at_run_time() -> None:
    stage = text_of("Dockerfile").partition(" AS sidecar\n")[2].replace("\\\n", " ")
    for word in ("ENTRYPOINT", "HEALTHCHECK", "RUN"):
        lines = re.findall(rf"^{word} .*$", stage, re.MULTILINE)
        assert lines
        assert all(re.search(r'\["[^"]+"(, +"[^"]+")*\]$', line) for line in lines), lines


def test_the_image_exposes_the_default_port_and_runs_as_a_number() -> None:
    stage = text_of("Dockerfile").partition(" AS sidecar\n")[2]
    assert f"EXPOSE {Settings().port}\n" in stage
    assert f"USER {UID}:{UID}\n" in stage
    volumes = json.loads(re.search(r"^VOLUME (.*)$", stage, re.MULTILINE)[1])  # type: ignore[index]
    assert volumes == [STORE, PUBLISHED]
    for volume in volumes:
        assert f"--chown={UID}:{UID} /empty {volume}\n" in stage


def test_the_image_installs_from_hashed_lock_files_that_are_in_its_context() -> None:
    text = text_of("Dockerfile")
    locks = set(re.findall(r"requirements[a-z-]*\.lock", text))
    assert len(re.findall("--require-hashes -r", text)) == len(locks) == 3
    assert all(f"!{lock}\n" in text_of(".dockerignore") for lock in locks)


def test_the_version_is_in_one_place() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "compass_sidecar.__version__"}
    kustomization = manifest("kustomization.yaml")
    tags = {each["name"]: each["newTag"] for each in kustomization["images"]}
    assert tags["compass-sidecar"] == __version__


# --- the compose project -------------------------------------------------------------------------


def compose() -> Object:
    content: Object = yaml.safe_load(text_of("docker-compose.yml"))
    return content


def test_the_compose_services_have_settings_that_fit_together() -> None:
    service = compose()["services"]["sidecar"]
    environment = {name: str(value) for name, value in service["environment"].items()}
    secret = environment.pop("COMPASS_API_TOKEN_FILE")
    assert secret == f"/run/secrets/{service['secrets'][0]}"
    file = ROOT / compose()["secrets"][service["secrets"][0]]["file"]
    settings = settings_of(environment | {"COMPASS_API_TOKEN_FILE": str(file)})
    assert settings.host == ("0.0.0.0",)
    assert "sidecar" in settings.allowed_hosts
    assert str(settings.publish_group) in service["group_add"]
    assert f"127.0.0.1:{settings.port}:{settings.port}" in service["ports"]


def test_every_compose_service_is_tight_and_waits_for_health() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"mem_limit", "pids_limit", "cpus"} <= service.keys()
        waits = service.get("depends_on", {}).values()
        assert all(each == {"condition": "service_healthy"} for each in waits)
    assert services["consumer"]["depends_on"].keys() == {"sidecar"}
    assert services["sidecar"]["depends_on"].keys() == {"emulator"}


# --- Kubernetes ----------------------------------------------------------------------------------


def test_the_manifests_have_settings_that_fit_together() -> None:
    assert settings_of(variables(sidecar())).token_file == Path("/etc/compass-sidecar/first/token")
    everything = variables(sidecar(with_alternatives=True))
    assert everything.keys() - variables(sidecar()).keys() == {
        "COMPASS_TOKEN_CONNECTOR_URL",
        "COMPASS_CONNECTOR_URL",
        "COMPASS_CLIENT_CERTIFICATE_FILE",
        "COMPASS_CLIENT_KEY_FILE",
    }
    first = mounts(sidecar())["first"]["mountPath"]
    for name in ("COMPASS_TOKEN_FILE", "COMPASS_CLIENT_CERTIFICATE_FILE", "COMPASS_CLIENT_KEY_FILE"):
        assert Path(everything[name]).parent == Path(first)
    del everything["COMPASS_TOKEN_FILE"], everything["COMPASS_TOKEN_CONNECTOR_URL"]
    assert settings_of(everything).client_key_file == Path(first, "tls.key")


def probes() -> Iterator[Object]:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield sidecar()[name]


def test_probes_and_metrics_ask_the_health_listener() -> None:
    ports = {each["name"]: each["containerPort"] for each in sidecar()["ports"]}
    settings = settings_of(variables(sidecar()))
    endpoint = manifest("podmonitor.yaml")["spec"]["podMetricsEndpoints"][0]
    asked = [*(probe["httpGet"] for probe in probes()), endpoint]
    assert {ports[each["port"]] for each in asked} == {settings.health_port}
    assert {each["path"] for each in asked} == PROBES
    assert [probe["httpGet"]["path"] for probe in probes()] == ["/startupz", "/livez", "/readyz"]


def test_the_startup_probe_waits_for_hours() -> None:
    """While it fails kubelet asks for nothing else; when it gives up the pod is killed."""
    probe = sidecar()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 24 * 3600


def test_the_sidecar_is_a_native_one_in_a_stateful_set() -> None:
    assert manifest("statefulset.yaml")["kind"] == "StatefulSet"
    assert sidecar()["restartPolicy"] == "Always"
    assert pod()["enableServiceLinks"] is False
    (claim,) = manifest("statefulset.yaml")["spec"]["volumeClaimTemplates"]
    assert mounts(sidecar())[claim["metadata"]["name"]]["mountPath"] == STORE


def test_published_files_are_in_memory_and_the_neighbour_only_reads_them() -> None:
    volumes = {each["name"]: each for each in pod()["volumes"]}
    assert volumes["published"]["emptyDir"]["medium"] == "Memory"
    (neighbour,) = pod()["containers"]
    assert mounts(neighbour).keys() == {"published"}
    assert mounts(neighbour)["published"]["readOnly"] is True
    assert mounts(sidecar())["published"]["mountPath"] == variables(sidecar())["COMPASS_PUBLISH_DIR"]
    assert volumes["first"]["secret"]["optional"] is True
    assert "subPath" not in (KUBERNETES / "statefulset.yaml").read_text()


def test_the_group_of_the_published_key_is_the_pods() -> None:
    assert pod()["securityContext"]["fsGroup"] == GROUP
    assert variables(sidecar())["COMPASS_PUBLISH_GROUP"] == str(GROUP)


def test_the_pod_keeps_to_the_restricted_standard() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod()["initContainers"], *pod()["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsUser"] > 0
        assert "limits" in container["resources"]
    allowed = {"emptyDir", "secret", "persistentVolumeClaim", "configMap", "projected"}
    assert all(set(each) - {"name"} <= allowed for each in pod()["volumes"])
    assert sidecar()["securityContext"]["runAsUser"] == UID


def test_selectors_meet_the_pod() -> None:
    labels = manifest("statefulset.yaml")["spec"]["template"]["metadata"]["labels"]
    assert manifest("statefulset.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service.yaml")["spec"]["selector"] == labels
    assert manifest("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert manifest("podmonitor.yaml")["spec"]["selector"]["matchLabels"] == labels
    named = {port["name"] for each in [sidecar(), *pod()["containers"]] for port in each["ports"]}
    ingress = manifest("networkpolicy.yaml")["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} == named


def test_the_prometheus_rule_is_the_alert_file() -> None:
    """`make prometheusrule` writes it."""
    alerts = yaml.safe_load(text_of("deploy/prometheus/alerts.yaml"))
    assert manifest("prometheusrule.yaml")["spec"] == alerts
    monitor = manifest("podmonitor.yaml")["metadata"]["name"]
    down = next(each for each in alerts["groups"][0]["rules"] if each["alert"] == "CompassSidecarDown")
    pattern = re.search(r'job=~"([^"]*)"', down["expr"])
    assert pattern is not None
    assert re.fullmatch(pattern[1], f"namespace/{monitor}")  # the job that the operator makes of it


def test_kustomize_has_every_manifest() -> None:
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(manifest("kustomization.yaml")["resources"]) == there


# --- systemd -------------------------------------------------------------------------------------


def test_the_unit_has_folders_that_systemd_makes() -> None:
    lines = text_of("deploy/systemd/compass-sidecar.service").splitlines()
    options = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert options["StateDirectory"] == options["RuntimeDirectory"] == "compass-sidecar"
    found = re.findall(r"(COMPASS_\w+)=(\S+)", options["Environment"])
    assert dict(found) == {
        "COMPASS_STORE_DIR": "%S/compass-sidecar",
        "COMPASS_PUBLISH_DIR": "%t/compass-sidecar",
    }
    assert options["ExecStart"].endswith("/bin/compass-sidecar")
    assert options["RestartPreventExitStatus"] == "2"
