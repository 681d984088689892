"""The module with Redis: one section of the configuration, and every store is there after a restart."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

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

pytestmark = pytest.mark.usefixtures("own_handlers")


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


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No application.yaml of the checkout is seen."""
    monkeypatch.chdir(tmp_path)


def settings(url: str) -> EventsConfig:
    return EventsConfig(
        event_store_backend="redis",
        redis={"url": url, "namespace": f"test:{uuid4().hex}", "require_durable": True},
        snapshots={"event_count_threshold": 2},
    )


async def test_everything_is_there_after_a_restart(redis_url: str) -> None:
    """Commands of three applications, one after the other, go on from what the last one stored, snapshots included."""
    config = settings(redis_url)
    for expected in (1, 2, 3):
        modules = [EventsModule.configure(config), EventsModule.scope(OpenBoxHandler)]
        async with Application.boot(modules=modules) as app:
            commands = await app.container.resolve(CommandBus)
            assert await commands.dispatch(OpenBox(box="b1")) == expected
            snapshots = await app.container.resolve(AbstractSnapshotStore)
            found = await snapshots.get_latest("b1")
            assert (found is not None) == (expected >= 2)
            store = await app.container.resolve(AbstractEventStore)
            assert type(store).__name__ == "RedisEventStore"
            for other in (AbstractIdempotencyStore, DeadLetterStore):
                assert type(await app.container.resolve(other)).__name__.startswith("Redis")


async def test_all_stores_follow_the_backend(redis_url: str) -> None:
    """Choosing Redis chooses it for events, snapshots, checkpoints, idempotency, dead letters and sagas."""
    stores = StoreSubProvider(settings(redis_url))
    await stores.setup()
    assert len({type(store) for store in stores.stores}) == 6
    assert all(type(store).__name__.startswith("Redis") for store in stores.stores)


async def test_a_server_out_of_reach_stops_the_boot() -> None:
    """Never silently memory; the error names the address without its password."""
    config = settings("redis://user:secret@127.0.0.1:1/0")
    with pytest.raises(EventStoreConnectionError, match=r"127\.0\.0\.1:1") as caught:
        async with Application.boot(modules=[EventsModule.configure(config)]):
            pass
    assert "secret" not in str(caught.value)
