"""Redis agrees with the plain-Python model whatever is done to it."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from lexigram.events.stores.redis.event_store import RedisEventStore
from tests.properties.store_machine import StoreMachine

QUICK = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(QUICK, max_examples=1000, stateful_step_count=100)


class RedisMachine(StoreMachine):
    """One namespace of a real server, left and found again by one store object after the other."""

    durable = True
    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.namespace = f"test:{uuid4().hex}"

    async def make_store(self) -> RedisEventStore:
        return RedisEventStore(self.url, self.namespace)

    async def reopen_store(self) -> Any:
        await self.store.close()
        return await self.make_store()


@pytest.fixture(autouse=True)
def _server(redis_url: str) -> None:
    RedisMachine.url = redis_url


class TestRedis(RedisMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = QUICK


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestRedisLong(RedisMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = LONG
