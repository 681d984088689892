"""MongoDB agrees with the plain-Python model whatever is done to it. Few and short examples: the test server is slow."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from pymongo import MongoClient

from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore
from tests.properties.store_machine import StoreMachine

QUICK = settings(
    max_examples=6, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(QUICK, max_examples=200, stateful_step_count=60)


class MongoDBMachine(StoreMachine):
    """A database for each example; the store is closed and opened again and again."""

    durable = True
    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.database = f"lx_{uuid4().hex}"

    async def make_store(self) -> MongoDBEventStore:
        return MongoDBEventStore(None, MongoDBConfig(uri=self.url, database=self.database, max_pool_size=4))

    async def reopen_store(self) -> Any:
        await self.store.close()
        return await self.make_store()

    def teardown(self) -> None:
        super().teardown()
        with MongoClient[Any](self.url) as client:
            client.drop_database(self.database)


def run(url: str, how: settings) -> None:
    """Run the machine against the server at `url`."""
    machine = type("MongoDBMachineAtUrl", (MongoDBMachine,), {"url": url})
    run_state_machine_as_test(machine, settings=how)


def test_mongodb_agrees_with_the_model(mongo_url: str) -> None:
    """Appends, conditions, retries, compaction, units of work, reopening and every way of reading."""
    run(mongo_url, QUICK)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_mongodb_agrees_with_the_model_for_long(mongo_url: str) -> None:
    """The same with many examples."""
    run(mongo_url, LONG)
