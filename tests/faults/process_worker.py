"""A process that runs its share of event-driven sagas, follower included; killed and stopped by a test."""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import AsyncExitStack
from typing import Any

from lexigram.events import Command, DomainEvent, ProjectionConfig, SagaBase, SagaConfig, SagaManager, event_type
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.sharing import SagaSharing
from tests.backends import saga_store
from tests.faults.projection_worker import LEASE_SECONDS, open_store
from tests.faults.saga_worker import PARTITIONS


@event_type("process.opened")
class Opened(DomainEvent):
    key: int


@event_type("process.noted")
class Noted(DomainEvent):
    key: int
    number: int


@event_type("process.closed")
class Closed(DomainEvent):
    key: int


@event_type("process.deed")
class Deed(DomainEvent):
    key: int
    what: str


@event_type("process.do")
class Do(Command[None]):
    key: int
    what: str


class Process(SagaBase):
    """Sends a command for each event; one of odd number ends by its timer, one of even number by an event."""

    name = "process"
    start_events = (Opened,)
    continue_events = (Noted, Closed)
    timeout = math.inf

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> list[Any]:
        if isinstance(event, Opened):
            self.context.data["notes"] = 0
            return [Do(key=event.key, what="open")]
        if isinstance(event, Closed):
            self.complete()
            return [Do(key=event.key, what="close")]
        self.context.data["notes"] += 1
        if event.key % 2 and self.context.data["notes"] == 3:
            self.set_timer("end", 0.3)
        return [Do(key=event.key, what=f"note {event.number}"), Do(key=event.key, what=f"again {event.number}")]

    async def on_timer(self, name: str) -> list[Any]:
        self.complete()
        return [Do(key=int(self.context.data["key"]), what=name)]


def expected(key: int) -> list[str]:
    """Return what has to be done for a key, in order."""
    notes = [f"{verb} {number}" for number in range(3) for verb in ("note", "again")]
    return ["open", *notes, "end" if key % 2 else "close"]


class Bus:
    """Does what a command says by appending to the log."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def dispatch(self, command: Do) -> None:
        await self.store.append(f"deeds-{command.key}", [Deed(key=command.key, what=command.what)])


async def main(backend: str, where: str) -> None:
    """Work until the input is closed."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(backend, where))
        sagas = await stack.enter_async_context(saga_store(backend, store))
        checkpoints = await stack.enter_async_context(store.checkpoint_store())
        manager = SagaManager(
            sagas, event_store=store, command_bus=Bus(store), config=SagaConfig(retry_delay_seconds=0.05)
        )
        manager.register(Process)
        sharing = SagaSharing(
            manager, checkpoints, partitions=PARTITIONS, lease_seconds=LEASE_SECONDS, poll_seconds=0.1
        )
        # Partitions are for projections; the follower of the sagas reads the log undivided.
        config = ProjectionConfig(shared=True, partitions=3, lease_seconds=LEASE_SECONDS)
        projections = ProjectionManager(store, checkpoints, config=config)
        projections.register(manager.follower())
        await stack.enter_async_context(sharing)
        await stack.enter_async_context(projections)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
