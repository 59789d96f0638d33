"""The engine's simulation in short; `make simulation` is its long form."""

from datetime import timedelta

import pytest

from tests.proofs.simulation.story import run

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("seed", range(30))
def test_the_invariants_hold(seed: int) -> None:
    run(seed, lifetime=(timedelta(minutes=1), HOUR)[seed % 2])


def test_a_seed_tells_the_same_story_again() -> None:
    assert run(7, lifetime=HOUR) == run(7, lifetime=HOUR)
