"""Aggregates that are saved by a repository, interrupted at every await."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from lexigram.events import (
    AggregateRoot,
    ConcurrencyError,
    DomainEvent,
    EventBusImpl,
    EventSourcingRepository,
    InMemorySnapshotStore,
    SqliteSnapshotStore,
)
from lexigram.events.stores.postgres.snapshot_store import PostgresSnapshotStore
from tests.faults.trials import DurableTrial, Parts, together


class Counted(DomainEvent):
    """One more."""

    number: int


class Tally(AggregateRoot):
    """Counts."""

    count: int = 0

    def more(self) -> None:
        """Count one more."""
        self._apply(Counted(number=self.count + 1))

    def _handle_counted(self, event: Counted) -> None:
        self.count = event.number


class Saved(DurableTrial):
    """Two writers raise one aggregate to six, with snapshots and an outbox; each conflict is tried again."""

    wanted = 6

    async def begin(self, parts: Parts) -> None:
        self.snapshots = InMemorySnapshotStore()  # only used in memory
        async with parts.store.outbox():
            pass

    @asynccontextmanager
    async def repository(self, parts: Parts) -> AsyncIterator[EventSourcingRepository[Tally]]:
        """Yield the repository, with snapshots in the events' database."""
        snapshots: Any = self.snapshots
        if self.durable.backend == "sqlite":
            snapshots = SqliteSnapshotStore(parts.store)
        elif self.durable.backend == "postgres":
            snapshots = PostgresSnapshotStore(parts.store)
        async with snapshots, parts.store.outbox() as box:
            bus = EventBusImpl()
            yield EventSourcingRepository(Tally, parts.store, snapshots, bus, snapshot_every=2, outbox=box)
            await bus.close()

    async def work(self, parts: Parts) -> None:
        async def write(repository: EventSourcingRepository[Tally]) -> None:
            while True:
                tally = await repository.get("t") or Tally("t")
                if tally.count >= self.wanted:
                    return
                tally.more()
                with suppress(ConcurrencyError):
                    await repository.save(tally)

        async with self.repository(parts) as repository:
            await together(write(repository), write(repository))

    async def verify(self, parts: Parts) -> None:
        events = await parts.store.read("t")
        assert [event.number for event in events] == list(range(1, self.wanted + 1))
        assert [event.version for event in events] == list(range(1, self.wanted + 1))
        async with self.repository(parts) as repository:
            tally = await repository.get("t")
        assert tally is not None
        assert (tally.count, tally.version) == (self.wanted, self.wanted)
        async with parts.store.outbox() as box:
            assert (await box.stats()).waiting == self.wanted
