"""A Hub on this machine, the product as a process beside it, and a finished run to push."""

import shutil
from pathlib import Path

import pytest

from tests.hub.client import Client, hub_environment
from tests.hub.finished_runs import write_run
from tests.hub.loopback import Hub


@pytest.fixture(scope="session")
def loopback():
    """A Hub that listens, for all tests."""
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(loopback):
    """The Hub, as new."""
    loopback.repositories.clear()
    loopback.faults.clear()
    loopback.log.clear()
    loopback.tokens_at_store.clear()
    return loopback


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """HF_HOME of the user."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(loopback, home):
    """The product in a process of its own, whose Hub is the loopback one."""
    with Client(hub_environment(loopback.endpoint, home)) as client:
        yield client


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A finished run that no test writes to."""
    return write_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A finished run of the test's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))
