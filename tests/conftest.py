"""Real servers for the tests that ask for them: started once per run, on first use; a server that fails is an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lexigram.events
from tools.services import Services

if TYPE_CHECKING:
    from tools.servers.base import Server


def pytest_configure() -> None:
    """Refuse to test the package of another checkout: an environment may point to one, and all would seem well."""
    here, tested = Path(__file__).parents[1], Path(lexigram.events.__file__).parents[3]
    if tested != here and (tested / "pyproject.toml").exists():
        raise pytest.UsageError(f"these tests would test {tested}, not {here}; set PYTHONPATH={here / 'python'}")


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The servers of this run; `services.get(name)` starts one, and what it needs, if it does not run yet."""
    if sys.platform != "linux":
        pytest.skip("the real servers are Debian packages; this test runs on Linux")
    group = Services()
    yield group
    group.stop()


@pytest.fixture(scope="session")
def postgres_url(services: Services) -> str:
    """URL of a PostgreSQL database; tests isolate themselves by schema. LEXIGRAM_TEST_POSTGRES_URL names another server."""
    return os.environ.get("LEXIGRAM_TEST_POSTGRES_URL") or services.get("postgres").url


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    """URL of a Redis server that syncs every write; tests isolate themselves by key prefix."""
    return services.get("redis").url


@pytest.fixture(scope="session")
def mongo_url(services: Services) -> str:
    """URL of a MongoDB-protocol server, or of the real one that LEXIGRAM_TEST_MONGO_URL names; isolate by database."""
    return os.environ.get("LEXIGRAM_TEST_MONGO_URL") or services.get("mongo").url


@pytest.fixture
def own_postgres(services: Services) -> Iterator[Server]:
    """A PostgreSQL server of this test alone, to be stopped, killed and restarted."""
    group = Services()
    yield group.get("postgres")
    group.stop()


@pytest.fixture
def own_redis(services: Services) -> Iterator[Server]:
    """A Redis server of this test alone, to be stopped, killed and restarted."""
    group = Services()
    yield group.get("redis")
    group.stop()


@pytest.fixture
def own_mongo(services: Services) -> Iterator[Server]:
    """A MongoDB-protocol server of this test alone, to be stopped, killed and restarted."""
    group = Services()
    yield group.get("mongo")
    group.stop()
