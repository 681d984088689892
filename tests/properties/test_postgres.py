"""PostgreSQL agrees with one plain-Python model whatever is done to it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings

from lexigram.events.stores.postgres import PostgresEventStore
from tests.postgres_schemas import EmptySchemas
from tests.properties.store_machine import StoreMachine

QUICK = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(QUICK, max_examples=1000, stateful_step_count=100)


class PostgresMachine(StoreMachine):
    """PostgreSQL, closed and opened again and again."""

    durable = True
    url: ClassVar[str]

    async def make_store(self) -> PostgresEventStore:
        self.config = EmptySchemas(self.url, purpose="machine").config()
        return PostgresEventStore(self.config)

    async def reopen_store(self) -> Any:
        await self.store.close()
        return PostgresEventStore(self.config)


@pytest.fixture(autouse=True, scope="module")
def _server(postgres_url: str) -> None:
    PostgresMachine.url = postgres_url


class TestPostgres(PostgresMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = QUICK


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestPostgresLong(PostgresMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = LONG
