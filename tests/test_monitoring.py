"""Alert rules and dashboard: Prometheus understands them, and they ask for what the application has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from compass_sidecar.adapters.connector import OPERATIONS
from compass_sidecar.adapters.metrics import Metrics
from compass_sidecar.core.catalogue import REASONS
from compass_sidecar.core.status import State
from tests.adapters.test_metrics import CONNECTED
from tests.support.authority import NOW

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
ALERT_TESTS = ALERTS.with_name("alerts_test.yaml")
DASHBOARD = ROOT / "deploy" / "grafana" / "compass-sidecar.json"
OPERATIONS_GUIDE = ROOT / "docs" / "operations.md"

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
MODEL: dict[str, Any] = json.loads(DASHBOARD.read_text())


def exposed() -> set[str]:
    """Every name that a sample of the application may have."""
    metrics = Metrics(version="1", python="3", operations=OPERATIONS)
    metrics.request("/status", "GET", 200)
    text = metrics.render(CONNECTED, NOW, connections={"api": 1, "health": 0}).decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def asked(text: str) -> set[str]:
    return set(re.findall(r"compass_sidecar_[a-z_]+", text))


def promtool(*arguments: str | Path) -> str:
    tool = shutil.which("promtool")
    assert tool, "`make test` installs it"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> Iterator[str]:
    """Of the dashboard, as Grafana would send them."""
    targets = [target for panel in MODEL["panels"] for target in panel["targets"]]
    for each in (*targets, *MODEL["annotations"]["list"]):
        yield each["expr"].replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")


# --- alerts


def test_the_rules_are_rules_and_do_what_their_tests_say() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", ALERT_TESTS)


@pytest.mark.parametrize("name", RULES)
def test_each_alert_is_tested_firing_and_not_firing(name: str) -> None:
    cases = [
        case
        for each in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for case in each.get("alert_rule_test", ())
        if case["alertname"] == name
    ]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.parametrize("name", RULES)
def test_each_alert_says_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert rule["for"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / path, anchor) == (OPERATIONS_GUIDE, name.lower())
    assert f"\n### {name}\n" in OPERATIONS_GUIDE.read_text()


@pytest.mark.parametrize("name", RULES)
def test_an_alert_asks_for_what_there_is(name: str) -> None:
    assert asked(RULES[name]["expr"]) <= exposed()


def test_an_alert_asks_for_labels_that_there_are() -> None:
    text = ALERTS.read_text()
    states = {each for match in re.findall(r'state=~"([^"]+)"', text) for each in match.split("|")}
    assert states <= set(State)
    assert set(re.findall(r'reason="([^"]+)"', text)) <= set(REASONS)


# --- dashboard


def test_the_dashboard_asks_for_what_there_is() -> None:
    names = asked(DASHBOARD.read_text())
    assert names
    assert names <= exposed()


def test_the_dashboard_shows_all_that_is_exposed() -> None:
    parts = re.compile("_(bucket|sum|count)$")
    shown = {parts.sub("", name) for name in asked(DASHBOARD.read_text())}
    assert shown == {parts.sub("", name) for name in exposed()}


def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_can_be_put_on_any_data_source() -> None:
    assert {"datasource", "job", "instance"} == {each["name"] for each in MODEL["templating"]["list"]}
    sources = [panel["datasource"] for panel in MODEL["panels"]]
    sources += [target["datasource"] for panel in MODEL["panels"] for target in panel["targets"]]
    assert {each["uid"] for each in sources} == {"${datasource}"}


def test_its_panels_do_not_cover_one_another() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in MODEL["panels"]:
        place = panel["gridPos"]
        taken = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= taken
    assert len({panel["id"] for panel in MODEL["panels"]}) == len(MODEL["panels"])


# --- the guide


def rows(heading: str) -> list[str]:
    """The first cells of the table below a heading."""
    section = OPERATIONS_GUIDE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        name
        for cell in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\S+?)`", cell)
    ]


def test_the_guide_has_every_metric() -> None:
    names = {name.partition("{")[0] for name in rows("What each metric says")}
    parts = re.compile("_(bucket|sum|count)$")
    assert {f"compass_sidecar_{name}" for name in names} == {parts.sub("", name) for name in exposed()}


def test_the_guide_has_every_reason() -> None:
    assert sorted(rows("What each reason means")) == sorted(REASONS)
