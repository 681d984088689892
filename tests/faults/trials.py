"""The programs that are interrupted at every await: sagas, projections, a relay with an inbox, a process manager."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lexigram.events import (
    DomainEvent,
    InlineProjection,
    InMemoryEventStore,
    InMemorySagaStore,
    ProjectionConfig,
    ProjectionManager,
)
from lexigram.events.buses.dead_letter import DeadLetterFilter, InMemoryDeadLetterStore
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.stores.inbox import Inbox
from lexigram.events.stores.outbox import OutboxEntry, OutboxRelay
from lexigram.events.testing.scheduler import Trial
from lexigram.events.testing.unreliable_broker import UnreliableBroker
from tests.backends import open_store
from tests.faults.projection_worker import Balances, Moved

LEASE_SECONDS = 0.5


@dataclass
class Durable:
    """What survives a crash: stores in memory, or the address of a database.

    Args:
        where: What a store of the backend is opened on; nothing in memory.
    """

    backend: str = "memory"
    where: Any = None
    memory: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Parts]:
        """Yield fresh stores on a database, closed afterwards; in memory those that there are."""
        if self.backend == "memory":
            if not self.memory:
                self.memory = {
                    "sagas": InMemorySagaStore(),
                    "checkpoints": InMemoryCheckpointStore(),
                    "marks": InMemoryIdempotencyStore(),
                    "letters": InMemoryDeadLetterStore(),
                    "store": InMemoryEventStore(),
                }
            yield Parts(**self.memory)
            return
        store = open_store(self.backend, self.where)
        async with store:
            if self.backend == "sqlite":
                from lexigram.events import SqlSagaStore
                from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore
                from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore

                parts = (SqlSagaStore(store), SqliteIdempotencyStore(store), SqliteDeadLetterStore(store))
            else:
                from lexigram.events.sagas.postgres import PostgresSagaStore
                from lexigram.events.stores.postgres.dead_letters import PostgresDeadLetterStore
                from lexigram.events.stores.postgres.idempotency_store import PostgresIdempotencyStore

                parts = (PostgresSagaStore(store), PostgresIdempotencyStore(store), PostgresDeadLetterStore(store))  # type: ignore[assignment]
            sagas, marks, letters = parts
            checkpoints = store.checkpoint_store()
            assert checkpoints is not None
            async with sagas, marks, letters, checkpoints:
                yield Parts(store, sagas, checkpoints, marks, letters)


@dataclass
class Parts:
    """Open stores on one database."""

    store: Any
    sagas: Any
    checkpoints: Any
    marks: Any
    letters: Any


async def together(*work: Coroutine[Any, Any, Any]) -> None:
    """Run all at the same time; none goes on when this is cancelled."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


class Did(DomainEvent):
    """Something that a saga has done."""

    what: str


class DurableTrial(Trial):
    """A trial on one database."""

    def __init__(self, durable: Durable | None = None) -> None:
        self.durable = Durable() if durable is None else durable

    async def prepare(self) -> None:
        """Create the tables."""
        async with self.durable.open() as parts:
            await self.begin(parts)

    async def begin(self, parts: Parts) -> None:
        """Store what the run finds."""

    async def run(self) -> None:
        """Do the work on fresh objects."""
        async with self.durable.open() as parts:
            await self.work(parts)

    async def recover(self) -> None:
        """Do it again."""
        await self.run()

    async def work(self, parts: Parts) -> None:
        """What is interrupted, and repeated after a crash: a program that starts does this."""
        raise NotImplementedError

    async def check(self) -> None:
        """Look at the database through fresh objects."""
        async with self.durable.open() as parts:
            await self.verify(parts)
        if self.durable.backend == "sqlite":
            left = [thread.name for thread in threading.enumerate() if str(self.durable.where) in thread.name]
            assert not left, f"an engine was not closed: {left}"

    async def verify(self, parts: Parts) -> None:
        """Compare with what must be true."""
        raise NotImplementedError


# Projections


class Projection(DurableTrial):
    """Catches up in batches, then follows live; in the store's database exactly once, in memory with rows by position."""

    events = 7

    def __init__(self, durable: Durable | None = None) -> None:
        super().__init__(durable)
        self.rows: dict[int, tuple[str, int]] = {}

    async def begin(self, parts: Parts) -> None:
        if self.durable.backend != "memory":
            async with parts.store.unit_of_work() as unit:
                await unit.execute("DROP TABLE IF EXISTS balances")
        for number in range(self.events):
            stream = f"s{number % 2}"
            await parts.store.append(stream, [Moved(account=f"a{number % 3}", amount=number, aggregate_id=stream)])

    def manager(self, parts: Parts) -> ProjectionManager:
        """Return a manager with the projection."""
        config = ProjectionConfig(batch_size=2, checkpoint_interval=2)
        manager = ProjectionManager(parts.store, parts.checkpoints, config=config)
        manager.register(self.projection())
        return manager

    def projection(self) -> Any:
        """Return the projection under test, named `balances`."""
        if self.durable.backend != "memory":
            return Balances()
        inline = InlineProjection("balances")

        @inline.handle(Moved)
        async def moved(event: Moved) -> None:
            await asyncio.sleep(0)
            assert event.sequence_number is not None
            self.rows[event.sequence_number] = (event.account, event.amount)
            await asyncio.sleep(0)

        return inline

    async def work(self, parts: Parts) -> None:
        async with self.manager(parts) as manager:
            await parts.store.append("live", [Moved(account="a0", amount=100)])
            await manager.wait_for("balances", await parts.store.head())

    async def verify(self, parts: Parts) -> None:
        expected: Counter[tuple[str, str]] = Counter()
        for event in await parts.store.read_all():
            expected[event.account, "amount"] += event.amount
            expected[event.account, "moves"] += 1
        found: Counter[tuple[str, str]] = Counter()
        if self.durable.backend == "memory":
            for account, amount in self.rows.values():
                found[account, "amount"] += amount
                found[account, "moves"] += 1
        else:
            async with parts.store.unit_of_work() as unit:
                rows = await unit.fetch_all("SELECT account, amount, moves FROM balances")
            found.update({(account, "amount"): amount for account, amount, _ in rows})
            found.update({(account, "moves"): moves for account, _, moves in rows})
        assert found == expected


class Rebuilt(Projection):
    """The same while the read model is built anew, again and again."""

    async def begin(self, parts: Parts) -> None:
        await super().begin(parts)
        async with self.manager(parts) as manager:
            await manager.wait_for("balances", await parts.store.head())

    async def work(self, parts: Parts) -> None:
        async with self.manager(parts) as manager:
            await manager.rebuild("balances", batch_size=2)
            await manager.wait_for("balances", await parts.store.head())

    async def recover(self) -> None:
        """Catch up only: what an interrupted rebuild has left must be enough for that."""
        async with self.durable.open() as parts, self.manager(parts) as manager:
            await manager.wait_for("balances", await parts.store.head())


class Once(DurableProjection):
    """Appends an effect for each event in the transaction of its checkpoint: exactly once, in memory too."""

    name = "once"
    handles = (Moved,)

    def __init__(self, store: Any) -> None:
        super().__init__()
        self._store = store

    async def handle_event(self, event: Moved) -> None:
        await self._store.append(f"effects:{event.account}", [Did(what=str(event.amount))])


class Shared(DurableTrial):
    """Two workers share two partitions of a projection by leases; one of them leaves early."""

    events = 6

    async def begin(self, parts: Parts) -> None:
        for number in range(self.events):
            await parts.store.append(f"s{number % 3}", [Moved(account=f"a{number % 3}", amount=number)])

    async def work(self, parts: Parts) -> None:
        config = ProjectionConfig(
            shared=True, partitions=2, lease_seconds=LEASE_SECONDS, batch_size=2, checkpoint_interval=2
        )

        async def worker(*, leaves: bool) -> None:
            manager = ProjectionManager(parts.store, parts.checkpoints, config=config)
            manager.register(Once(parts.store))
            async with manager:
                if leaves:
                    await asyncio.sleep(LEASE_SECONDS)
                else:
                    await manager.wait_for("once", self.events)

        await together(worker(leaves=True), worker(leaves=False))

    async def verify(self, parts: Parts) -> None:
        for account in range(3):
            effects = [event.what for event in await parts.store.read(f"effects:a{account}")]
            assert effects == [str(number) for number in range(account, self.events, 3)], (account, effects)


# Outbox and inbox


class Relay(DurableTrial):
    """Relays, a broker that refuses, loses confirmations and duplicates, and a consumer with an inbox."""

    keys = ("a", "b")
    each = 3

    async def begin(self, parts: Parts) -> None:
        async with parts.store.outbox() as box:
            for number in range(self.each):
                for key in self.keys:
                    await parts.store.append(key, [Moved(account=key, amount=number)])
            assert (await box.stats()).waiting == self.each * len(self.keys)

    async def work(self, parts: Parts) -> None:
        """Two relays at once deliver until nothing waits."""
        async with parts.store.outbox() as box:

            async def deliver() -> None:
                relay = OutboxRelay(
                    box, Consumer(parts), batch_size=4, lease_seconds=LEASE_SECONDS, backoff_seconds=0.1
                )
                while (stats := await box.stats()).waiting or stats.set_aside:
                    await relay.process_pending()
                    await asyncio.sleep(0.1)

            await together(deliver(), deliver())

    async def verify(self, parts: Parts) -> None:
        for key in self.keys:
            effects = [event.amount for event in await parts.store.read(f"effects:{key}")]
            assert effects == list(range(self.each)), f"{key}: {effects}"


class Consumer(UnreliableBroker):
    """Handles each message once, in the transaction of its mark, and appends an effect; fails about one time in three."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(0.3, 0.2, seed=5)
        self._store = parts.store
        self._inbox = Inbox("consumer", parts.store, parts.marks)

    async def send(self, entry: OutboxEntry) -> None:
        """Handle what the broker takes; the effects themselves are not handled again."""
        if entry.key is None or entry.key.startswith("effects:"):
            return
        before = len(self.received)
        try:
            await super().send(entry)
        finally:
            for key, entry_id, message in self.received[before:]:
                await self._inbox.once(entry_id, lambda key=key, message=message: self._handle(key, message))

    async def _handle(self, key: str, message: Moved) -> None:
        await self._store.append(f"effects:{key}", [Moved(account=key, amount=message.amount)])


# Dead letters


class Parked(Projection):
    """One event cannot be applied and is parked with the later ones of its stream; then it is repaired and replayed."""

    bad = 2

    def manager(self, parts: Parts, *, repaired: bool = False) -> ProjectionManager:
        config = ProjectionConfig(batch_size=3, checkpoint_interval=2)
        manager = ProjectionManager(
            parts.store, parts.checkpoints, config=config, dead_letters=parts.letters, on_error="park"
        )
        projection = self.projection()
        apply = projection.handle_event

        async def handle_event(event: Moved) -> None:
            if event.amount == self.bad and not repaired:
                raise ValueError("cannot be applied")
            await apply(event)

        projection.handle_event = handle_event
        manager.register(projection)
        return manager

    async def recover(self) -> None:
        await super().recover()
        async with self.durable.open() as parts, self.manager(parts, repaired=True) as manager:
            wanted = DeadLetterFilter(handler_name="projection:balances", replayed=False)
            while await parts.letters.count(wanted):
                await parts.letters.replay_all(manager, wanted)


class Unparked(Parked):
    """What is parked is replayed by a projection that has been repaired."""

    async def begin(self, parts: Parts) -> None:
        await super().begin(parts)
        async with self.manager(parts) as manager:
            await manager.wait_for("balances", await parts.store.head())
        assert await parts.letters.count(DeadLetterFilter(replayed=False)) == 3

    async def run(self) -> None:
        async with self.durable.open() as parts, self.manager(parts, repaired=True) as manager:
            wanted = DeadLetterFilter(handler_name="projection:balances", replayed=False)
            while await parts.letters.count(wanted):
                await parts.letters.replay_all(manager, wanted, limit=2)

    async def recover(self) -> None:
        await self.run()
