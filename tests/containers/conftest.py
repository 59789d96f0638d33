"""What the containers need of the machine."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.exit("these tests make namespaces and mount images: run them as root", returncode=1)
