"""The module on each durable backend: one section of the configuration, and every store is there after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram import Application
from lexigram.events import (
    AbstractCheckpointStore,
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
    EventValidationError,
    SagaBase,
    SagaContext,
    SagaManager,
    SagaStatus,
    saga_step,
)
from lexigram.events.buses.dead_letter import DeadLetterEntry
from lexigram.events.sagas.store import SagaStore
from lexigram.events.stores.outbox import AbstractOutboxStore
from tests.postgres_schemas import EmptySchemas

pytestmark = pytest.mark.usefixtures("own_handlers")

CLASSES = {"sqlite": "Sql", "postgres": "Postgres", "mongodb": "MongoDB", "redis": "Redis"}


class BoxOpened(DomainEvent):
    by: str


class Box(AggregateRoot):
    opened: int = 0

    def open(self, by: str) -> None:
        self._apply(BoxOpened(by=by))

    def _handle_box_opened(self, event: BoxOpened) -> None:
        self.opened += 1


class OpenBox(Command):
    box: str


class OpenBoxHandler(CommandHandlerProtocol[OpenBox, int]):
    def __init__(self, boxes: EventSourcingRepository[Box]) -> None:
        self.boxes = boxes

    async def handle(self, command: OpenBox) -> int:
        box = await self.boxes.get(command.box) or Box(id=command.box)
        box.open("me")
        await self.boxes.save(box)
        return box.opened


class Voyage(SagaBase):
    """Waits in its second step until the next application lets it go on."""

    name = "boot_voyage"
    may_go_on: ClassVar[bool] = False
    steps: ClassVar[list[str]] = []

    @saga_step
    async def load(self, ctx: SagaContext) -> None:
        Voyage.steps.append("load")

    @saga_step
    async def sail(self, ctx: SagaContext) -> None:
        while not Voyage.may_go_on:
            await asyncio.sleep(0.01)
        Voyage.steps.append("sail")


@pytest.fixture(params=CLASSES)
def backend(request: pytest.FixtureRequest) -> str:
    """Each durable backend."""
    return str(request.param)


@pytest_asyncio.fixture
async def config(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EventsConfig]:
    """The module's configuration on an empty backend; no application.yaml of the checkout is seen."""
    monkeypatch.chdir(tmp_path)
    name = f"lx_{uuid4().hex}"
    section: Any
    if backend == "sqlite":
        section = {"database": str(tmp_path / "events.db")}
    elif backend == "postgres":
        section = EmptySchemas(request.getfixturevalue("postgres_url"), purpose="boot").config()
    elif backend == "mongodb":
        url = request.getfixturevalue("mongo_url")
        section = {"connection_string": url, "database_name": name, "max_pool_size": 4}
    else:
        section = {"url": request.getfixturevalue("redis_url"), "namespace": name, "require_durable": True}
    yield EventsConfig(
        event_store_backend=backend,
        snapshots={"event_count_threshold": 2},
        event_bus={"shutdown_timeout_seconds": 0.05},
        **{backend: section},
    )
    if backend == "mongodb":
        from pymongo import AsyncMongoClient

        async with AsyncMongoClient[Any](url) as client:
            await client.drop_database(name)


async def test_all_stores_are_on_the_chosen_backend(backend: str, config: EventsConfig) -> None:
    """Events, snapshots, checkpoints, idempotency, dead letters, sagas and the outbox, as the container gives them."""
    async with Application.boot(modules=[EventsModule.configure(config)]) as app:
        bases = (
            AbstractEventStore,
            AbstractSnapshotStore,
            AbstractCheckpointStore,
            AbstractIdempotencyStore,
            DeadLetterStore,
            SagaStore,
        )
        stores = [await app.container.resolve(base) for base in bases]
        assert len({type(store) for store in stores}) == 6
        assert all(type(store).__name__.startswith(CLASSES[backend]) for store in stores)
        for store in stores:
            assert await app.container.resolve(type(store)) is store
        outbox = type(await app.container.resolve(AbstractOutboxStore)).__name__
        # Where a commit is one document or one script, the log itself is the outbox.
        assert outbox.startswith(CLASSES[backend] if backend in ("sqlite", "postgres") else "Log")


async def test_commands_go_on_after_a_restart(config: EventsConfig) -> None:
    """Three applications, one after the other, go on from what the last one stored, snapshots included."""
    for expected in (1, 2, 3):
        modules = [EventsModule.configure(config), EventsModule.scope(OpenBoxHandler)]
        async with Application.boot(modules=modules) as app:
            commands = await app.container.resolve(CommandBus)
            assert await commands.dispatch(OpenBox(box="b1")) == expected
            snapshots = await app.container.resolve(AbstractSnapshotStore)
            found = await snapshots.get_latest("b1")
            assert (found is not None) == (expected >= 2)


async def test_dead_letters_and_sagas_are_there_after_a_restart(config: EventsConfig) -> None:
    """What one application left unfinished the next one finds; a step that was done is not done again."""
    Voyage.may_go_on = False
    Voyage.steps.clear()
    event = BoxOpened(by="ann")
    modules = [EventsModule.configure(config), EventsModule.scope(Voyage)]
    async with Application.boot(modules=modules) as app:
        letters = await app.container.resolve(DeadLetterStore)
        await letters.save(DeadLetterEntry.of(event, "harbour-master", ValueError("closed"), 1))
        saga_id = await (await app.container.resolve(SagaManager)).start("boot_voyage", wait=False)
        async with asyncio.timeout(30):
            while Voyage.steps != ["load"]:
                await asyncio.sleep(0.01)
    Voyage.may_go_on = True
    async with Application.boot(modules=modules) as app:
        (entry,) = await (await app.container.resolve(DeadLetterStore)).list_entries()
        assert entry.event == event
        record = await (await app.container.resolve(SagaManager)).wait_for(saga_id, timeout=30)
        assert record.status is SagaStatus.COMPLETED
    assert Voyage.steps == ["load", "sail"]


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("postgres", {"dsn": "postgresql://ada:secret@127.0.0.1:1/x"}),
        ("mongodb", {"uri": "mongodb://ada:secret@127.0.0.1:1/", "server_selection_timeout": 200}),
        ("redis", {"url": "redis://ada:secret@127.0.0.1:1/0"}),
    ],
)
async def test_a_server_out_of_reach_stops_the_boot(name: str, section: dict[str, Any]) -> None:
    """Never silently memory; the error names the address without its password."""
    config = EventsConfig(event_store_backend=name, **{name: section})
    with pytest.raises(EventStoreConnectionError, match=r"127\.0\.0\.1:1") as caught:
        async with Application.boot(modules=[EventsModule.configure(config)]):
            pass
    assert "secret" not in str(caught.value)


class Opening(SagaBase):
    """Started by the log, in one of two applications."""

    name = "boot_opening"
    start_events = (BoxOpened,)
    boxes: ClassVar[list[str]] = []

    def correlation_key(self, event: BoxOpened) -> str:
        return event.by

    @saga_step
    async def note(self, ctx: SagaContext) -> None:
        Opening.boxes.append(ctx.data["by"])


async def test_two_applications_share_sagas_and_their_follower(config: EventsConfig) -> None:
    """With `saga.shared` each event starts one saga, which runs in one of them."""
    Opening.boxes.clear()
    section = {"shared": True, "partitions": 4, "lease_seconds": 30.0}
    shared = EventsConfig(
        **{field: getattr(config, field) for field in ("event_store_backend", backend_of(config))}, saga=section
    )
    modules = [EventsModule.configure(shared), EventsModule.scope(Opening)]
    names = [f"n{number}" for number in range(10)]
    async with Application.boot(modules=modules) as first, Application.boot(modules=modules):
        store = await first.container.resolve(AbstractEventStore)
        for name in names:
            await store.append(f"box-{name}", [BoxOpened(by=name)])
        async with asyncio.timeout(30):
            while sorted(Opening.boxes) != names:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.7)  # time for the other one to take what it should not
    assert sorted(Opening.boxes) == names


async def test_sagas_in_memory_cannot_be_shared() -> None:
    """The boot says what to change."""
    config = EventsConfig(saga={"shared": True, "persist_state": False})
    with pytest.raises(EventValidationError, match="choose a durable event_store_backend"):
        async with Application.boot(modules=[EventsModule.configure(config)]):
            pass


def backend_of(config: EventsConfig) -> str:
    """Return the name of the backend's section."""
    return str(config.event_store_backend.value)
