"""The committed description is the one that is served. `python -m tests.test_openapi` writes it anew."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from compass_sidecar.api.application import create_router
from compass_sidecar.api.guard import Access
from compass_sidecar.api.served import Served
from tests.api.fakes import FakeSidecar
from tests.api.serving import local_client

COMMITTED = Path(__file__).parent.parent / "openapi" / "openapi.yaml"


def described() -> dict[str, Any]:
    sidecar = FakeSidecar()
    return create_router(sidecar, Served(sidecar), Access()).openapi()


EXAMPLES = described()["components"]["examples"]


def text() -> str:
    return yaml.safe_dump(described(), sort_keys=False, allow_unicode=True, width=100)


@pytest.mark.anyio
async def test_what_is_committed_is_what_is_served() -> None:
    async with local_client(FakeSidecar()) as client:
        served = (await client.get("/openapi.json")).json()
    assert served == yaml.safe_load(COMMITTED.read_text()), "run: python -m tests.test_openapi"


@pytest.mark.anyio
async def test_the_settings_do_not_change_the_description() -> None:
    access = Access(api_token="0123456789abcdef", expose_private_key=True)
    async with local_client(FakeSidecar(), access, metrics=lambda: b"") as client:
        assert (await client.get("/openapi.json")).json() == described()


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = described()["paths"].items()
    return [(f"{method} {path}", each) for path, item in paths for method, each in item.items()]


@pytest.mark.parametrize(("name", "operation"), operations())
def test_every_operation_says_what_it_is_for_and_how_it_fails(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["tags"]
    responses = operation["responses"]
    assert "500" in responses
    for status, response in responses.items():
        assert response["description"]
        if int(status) >= 400:
            examples = response["content"]["application/problem+json"]["examples"]
            for code, example in examples.items():
                value = EXAMPLES[example["$ref"].rpartition("/")[2]]["value"]
                assert (value["code"], value["status"]) == (code, int(status))
    assert ("security" in operation) == (name.startswith("post") or "bundle" in name)


def test_no_framework_shines_through() -> None:
    assert not {"HTTPValidationError", "ValidationError"} & set(described()["components"]["schemas"])
    assert "422" not in str(described())


if __name__ == "__main__":
    COMMITTED.write_text(text())
