"""The contract suite of the event bus. Subclass `EventBusContract` and write `make_dead_letters`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.config import EventBusConfig
from lexigram.events.testing._bus_delivery import DeliveryContract
from lexigram.events.testing._bus_failure import FailureContract
from lexigram.events.testing._bus_pressure import PressureContract


class EventBusContract(DeliveryContract, FailureContract, PressureContract):
    """Everything that the event bus promises, with the dead letters of one backend."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_dead_letters(self) -> DeadLetterStore:
        """Return a new, empty dead-letter store."""

    async def make_bus(self, **settings: Any) -> EventBusImpl:
        """Return a new bus; `dead_letters` goes to the bus, the rest to its configuration."""
        dead_letters = settings.pop("dead_letters", None)
        config = EventBusConfig(**{"retry_delay_seconds": 0.001, **settings})
        if dead_letters is None and config.enable_dead_letter:
            dead_letters = await self.make_dead_letters()
            self._opened.append(dead_letters)
        return EventBusImpl(config=config, dead_letters=dead_letters)

    @pytest_asyncio.fixture(autouse=True)
    async def _stores_are_closed(self) -> AsyncIterator[None]:
        """Close the dead-letter stores of every bus that the test made."""
        self._opened: list[DeadLetterStore] = []
        yield
        for store in self._opened:
            await store.close()

    @pytest_asyncio.fixture
    async def bus(self, _stores_are_closed: None) -> AsyncIterator[EventBusImpl]:
        """A new bus with default configuration but short retry delays, closed after the test."""
        bus = await self.make_bus()
        yield bus
        await bus.close(1)
