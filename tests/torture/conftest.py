"""One lab for all tests of this folder that a worker runs."""

from collections.abc import Iterator

import pytest

from tests.torture.scenarios import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.close()
