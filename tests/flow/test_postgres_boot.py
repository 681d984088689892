"""The module with PostgreSQL: one section of the configuration, and every store is there after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lexigram import Application
from lexigram.events import (
    AbstractEventStore,
    AbstractIdempotencyStore,
    AbstractSnapshotStore,
    AggregateRoot,
    Command,
    CommandBus,
    CommandHandlerProtocol,
    DeadLetterStore,
    DomainEvent,
    EventsConfig,
    EventsModule,
    EventSourcingRepository,
    EventStoreConnectionError,
)
from lexigram.events.di.sub_providers.store_provider import StoreSubProvider
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.postgres import PostgresEventStore
from tests.postgres_schemas import EmptySchemas

pytestmark = pytest.mark.usefixtures("own_handlers")


class CrateOpened(DomainEvent):
    by: str


class Crate(AggregateRoot):
    opened: int = 0

    def open(self, by: str) -> None:
        self._apply(CrateOpened(by=by))

    def _handle_crate_opened(self, event: CrateOpened) -> None:
        self.opened += 1


class OpenCrate(Command):
    crate: str


class OpenCrateHandler(CommandHandlerProtocol[OpenCrate, int]):
    def __init__(self, crates: EventSourcingRepository[Crate]) -> None:
        self.crates = crates

    async def handle(self, command: OpenCrate) -> int:
        crate = await self.crates.get(command.crate) or Crate(id=command.crate)
        crate.open("me")
        await self.crates.save(crate)
        return crate.opened


class Openings(DurableProjection):
    """Counts openings per person, in the event store's database."""

    name = "openings"
    handles = (CrateOpened,)
    schema = ("CREATE TABLE IF NOT EXISTS openings (person text PRIMARY KEY, n bigint NOT NULL)",)
    tables = ("openings",)

    async def handle_event(self, event: Any) -> None:
        if event.by == "poison":
            raise ValueError("poison")
        await self.db.execute(
            "INSERT INTO openings AS o VALUES ($1, $2) ON CONFLICT (person) DO UPDATE SET n = o.n + $2", event.by, 1
        )


class BatchedOpenings(Openings):
    """The same, a batch at a time."""

    name = "batched"

    async def project_batch(self, connection: Any, events: list[Any]) -> None:
        sql = "INSERT INTO openings AS o VALUES ($1, 1) ON CONFLICT (person) DO UPDATE SET n = o.n + 1"
        await connection.executemany(sql, [(event.by,) for event in events])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No application.yaml of the checkout is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(postgres_url: str) -> EventsConfig:
    """The module's configuration on empty tables."""
    return EventsConfig(
        event_store_backend="postgres",
        postgres=EmptySchemas(postgres_url, purpose="boot").config(),
        snapshots={"event_count_threshold": 2},
    )


async def test_everything_is_there_after_a_restart(config: EventsConfig) -> None:
    """Commands of three applications, one after the other, go on from what the last one stored, snapshots included."""
    for expected in (1, 2, 3):
        modules = [EventsModule.configure(config), EventsModule.scope(OpenCrateHandler)]
        async with Application.boot(modules=modules) as app:
            commands = await app.container.resolve(CommandBus)
            assert await commands.dispatch(OpenCrate(crate="b1")) == expected
            snapshots = await app.container.resolve(AbstractSnapshotStore)
            found = await snapshots.get_latest("b1")
            assert (found is not None) == (expected >= 2)
            store = await app.container.resolve(AbstractEventStore)
            assert type(store).__name__ == "PostgresEventStore"
            for other in (AbstractIdempotencyStore, DeadLetterStore):
                assert type(await app.container.resolve(other)).__name__.startswith("Postgres")


async def test_all_stores_follow_the_backend(config: EventsConfig) -> None:
    """Choosing PostgreSQL chooses it for events, snapshots, checkpoints, idempotency, dead letters and sagas."""
    stores = StoreSubProvider(config)
    await stores.setup()
    assert len({type(store) for store in stores.stores}) == 6
    assert all(type(store).__name__.startswith("Postgres") for store in stores.stores)


async def test_a_server_out_of_reach_stops_the_boot() -> None:
    """Never silently memory; the error names the address without its password."""
    config = EventsConfig(event_store_backend="postgres", postgres={"dsn": "postgresql://ada:secret@127.0.0.1:1/x"})
    with pytest.raises(EventStoreConnectionError, match=r"127\.0\.0\.1:1") as caught:
        async with Application.boot(modules=[EventsModule.configure(config)]):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("projection_type", [Openings, BatchedOpenings])
async def test_a_projection_writes_rows_and_checkpoint_in_one_transaction(
    config: EventsConfig, projection_type: type[Openings]
) -> None:
    """`self.db` with `$1` parameters, live; after a restart it goes on where it stopped and counts nothing twice."""
    async with PostgresEventStore(config.postgres) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        for _ in range(2):
            manager = ProjectionManager(store)
            manager.register(projection_type())
            await manager.start()
            for n in range(5):
                await store.append(f"c{n}", [CrateOpened(by="ann"), CrateOpened(by="bob")])
            await manager.wait_for(projection_type.name, await store.head(), timeout=10)
            await manager.stop()
        rows = await store.engine.fetch_all("SELECT person, n FROM openings ORDER BY person")
        assert [tuple(row) for row in rows] == [("ann", 10), ("bob", 10)]
        checkpoints = store.checkpoint_store()
        assert await checkpoints.get_checkpoint(projection_type.name) == 20
        await checkpoints.close()


async def test_a_failing_event_leaves_rows_and_checkpoint_before_it(config: EventsConfig) -> None:
    """What was written for the poisonous event is rolled back with its checkpoint; the events before it stay."""
    async with PostgresEventStore(config.postgres) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        await store.append("c", [CrateOpened(by="ann"), CrateOpened(by="poison"), CrateOpened(by="ann")])
        manager = ProjectionManager(store)
        manager.register(Openings())
        await manager.start()
        async with asyncio.timeout(10):
            while (manager.get_status("openings") or {})["state"] != "faulted":
                await asyncio.sleep(0.01)
        await manager.stop()
        rows = await store.engine.fetch_all("SELECT person, n FROM openings")
        assert [tuple(row) for row in rows] == [("ann", 1)]
        checkpoints = store.checkpoint_store()
        assert await checkpoints.get_checkpoint("openings") == 1
        await checkpoints.close()
