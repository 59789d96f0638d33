"""The description of the control endpoint is true, and so are its examples."""

import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import yaml

import compass_emulator
from compass_emulator import Emulator
from tests.emulator.talking import CONFIGURATION, ask

pytestmark = pytest.mark.anyio
DESCRIPTION: dict[str, Any] = yaml.safe_load(
    (Path(compass_emulator.__file__).with_name("openapi.yaml")).read_text(encoding="utf-8")
)
OPERATIONS = [
    (path, method, operation)
    for path, methods in DESCRIPTION["paths"].items()
    for method, operation in methods.items()
]
DOCUMENT = Path(__file__).parents[2] / "docs" / "emulator.md"


def resolved(part: Any) -> Any:
    """Without references, which all lead into this file."""
    if isinstance(part, dict) and "$ref" in part:
        found: Any = DESCRIPTION
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return resolved(found)
    if isinstance(part, dict):
        return {name: resolved(inner) for name, inner in part.items()}
    return [resolved(inner) for inner in part] if isinstance(part, list) else part


async def control(emulator: Emulator, method: str, path: str, body: Any = None) -> httpx.Response:
    async with httpx.AsyncClient(base_url=emulator.endpoints.control_url, trust_env=False) as client:
        return await client.request(method.upper(), path, content=json.dumps(body) if body else None)


@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=[f"{method} {path}" for path, method, _ in OPERATIONS]
)
async def test_an_answer_is_as_described(
    emulator: Emulator, path: str, method: str, operation: dict[str, Any]
) -> None:
    emulator.fault("slow*1:1ms")
    await ask(emulator, CONFIGURATION)
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        jsonschema_rs.validator_for(resolved(body["schema"])).validate(body["example"])
    answer = await control(emulator, method, path, body.get("example"))
    [(type_, described)] = resolved(operation["responses"]["200"])["content"].items()
    assert (answer.status_code, answer.headers["content-type"]) == (200, type_)
    if type_ == "application/json":
        jsonschema_rs.validator_for(described["schema"]).validate(answer.json())


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for path, method, operation in OPERATIONS if "requestBody" in operation],
)
async def test_a_wrong_body_is_told_as_described(
    emulator: Emulator, path: str, operation: dict[str, Any]
) -> None:
    wrong = {name: [] for name in operation["requestBody"]["content"]["application/json"]["example"]}
    answer = await control(emulator, "post", path, wrong)
    assert answer.status_code == 400
    schema = resolved(operation["responses"]["400"])["content"]["application/json"]["schema"]
    jsonschema_rs.validator_for(schema).validate(answer.json())


async def test_every_path_is_described_and_in_the_document(emulator: Emulator) -> None:
    paths = (await control(emulator, "get", "/nowhere")).json()["error"].partition("there are ")[2]
    assert paths.split(", ") == sorted(DESCRIPTION["paths"])
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [path for path in DESCRIPTION["paths"] if f" {path}`" not in text] == []


async def test_the_emulator_serves_its_description(emulator: Emulator) -> None:
    assert yaml.safe_load((await control(emulator, "get", "/openapi.yaml")).text) == DESCRIPTION
