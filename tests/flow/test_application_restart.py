"""What survives the end of an application, and what happens when a boot goes wrong."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lexigram import Application
from lexigram.contracts.core import ProviderPriority
from lexigram.contracts.observability.metrics import MetricsRecorderProtocol
from lexigram.contracts.observability.tracing import TracerProtocol
from lexigram.di.provider import Provider
from lexigram.events import (
    AbstractEventStore,
    Command,
    CommandBus,
    CommandHandlerProtocol,
    DeadLetterStore,
    DomainEvent,
    EventBusImpl,
    EventHandlerProtocol,
    EventsConfig,
    EventsModule,
    EventStoreConnectionError,
    ProjectionManager,
    SagaBase,
    SagaContext,
    SagaError,
    SagaManager,
    SagaStatus,
    saga_step,
)
from lexigram.events.middleware.metrics import InMemoryMetricsRecorder

pytestmark = pytest.mark.usefixtures("own_handlers")


class Moved(DomainEvent):
    place: str


class Move(Command):
    place: str


class MoveHandler(CommandHandlerProtocol[Move, None]):
    def __init__(self, store: AbstractEventStore, bus: EventBusImpl) -> None:
        self.store, self.bus = store, bus

    async def handle(self, command: Move) -> None:
        moved = Moved(place=command.place)
        await self.store.append("places", [moved])
        await self.bus.publish(moved)


class Refusing(EventHandlerProtocol[Moved]):
    refuse: ClassVar[bool] = True
    handled: ClassVar[list[str]] = []

    async def handle(self, event: Moved) -> None:
        if self.refuse:
            raise RuntimeError("not today")
        self.handled.append(event.place)


class Journey(SagaBase):
    """A saga whose second step waits until it may go on."""

    name = "journey"
    steps: ClassVar[list[str]] = []
    may_go_on: ClassVar[bool] = False

    @saga_step
    async def pack(self, ctx: SagaContext) -> None:
        self.steps.append("pack")

    @saga_step
    async def travel(self, ctx: SagaContext) -> None:
        while not type(self).may_go_on:
            await asyncio.sleep(0.01)
        self.steps.append("travel")


class Places:
    """A projection in memory."""

    name = "restart_places"
    handles = (Moved,)
    in_memory = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def apply(self, event: Moved) -> None:
        self.seen.append(event.place)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Refusing.refuse = True
    Refusing.handled.clear()
    Journey.may_go_on = False
    Journey.steps.clear()


def durable(folder: Path, **values: Any) -> EventsConfig:
    return EventsConfig(event_store_backend="sqlite", sqlite={"database": str(folder / "events.db")}, **values)


async def test_an_unfinished_saga_goes_on_at_the_next_boot(tmp_path: Path) -> None:
    """Its finished step is not run again, and nobody has to start it."""
    modules = [EventsModule.configure(durable(tmp_path, event_bus={"shutdown_timeout_seconds": 0.05}))]
    modules.append(EventsModule.scope(Journey))
    async with Application.boot(modules=modules) as app:
        sagas = await app.container.resolve(SagaManager)
        saga_id = await sagas.start("journey", wait=False)
        async with asyncio.timeout(5):
            while Journey.steps != ["pack"]:
                await asyncio.sleep(0.01)
    Journey.may_go_on = True
    async with Application.boot(modules=modules) as app:
        sagas = await app.container.resolve(SagaManager)
        record = await sagas.wait_for(saga_id, timeout=5)
        assert record.status is SagaStatus.COMPLETED
    assert Journey.steps == ["pack", "travel"]


async def test_dead_letters_survive_and_can_be_replayed(tmp_path: Path) -> None:
    """An event that its handler refused is in the database, and the next application can replay it."""
    config = durable(tmp_path, event_bus={"max_handler_retries": 0})
    modules = [EventsModule.configure(config), EventsModule.scope(MoveHandler, Refusing)]
    async with Application.boot(modules=modules) as app:
        await (await app.container.resolve(CommandBus)).dispatch(Move(place="Rome"))
        await (await app.container.resolve(EventBusImpl)).flush()
    Refusing.refuse = False
    async with Application.boot(modules=modules) as app:
        letters = await app.container.resolve(DeadLetterStore)
        entries = await letters.list_entries()
        assert [entry.event.place for entry in entries] == ["Rome"]
        await letters.replay_all(await app.container.resolve(EventBusImpl))
        assert Refusing.handled == ["Rome"]
        assert await letters.get_count(replayed=False) == 0


async def test_projections_catch_up_on_what_was_stored_before(tmp_path: Path) -> None:
    """A projection that is registered later sees the events of earlier applications."""
    modules = [EventsModule.configure(durable(tmp_path)), EventsModule.scope(MoveHandler)]
    async with Application.boot(modules=modules) as app:
        await (await app.container.resolve(CommandBus)).dispatch(Move(place="Rome"))
    async with Application.boot(modules=[*modules[:1], EventsModule.scope(Places, MoveHandler)]) as app:
        projections = await app.container.resolve(ProjectionManager)
        await projections.wait_for("restart_places", 1, timeout=5)
        places: Any = projections.get("restart_places")
        assert getattr(places, "wrapped", places).seen == ["Rome"]


async def test_a_store_that_cannot_be_opened_stops_the_boot_with_one_error(tmp_path: Path) -> None:
    """A folder where the file should be is reported as such, and the folder is left alone."""
    (tmp_path / "events.db").mkdir()
    with pytest.raises(EventStoreConnectionError):
        async with Application.boot(modules=[EventsModule.configure(durable(tmp_path))]):
            pass
    assert list((tmp_path / "events.db").iterdir()) == []


class Failing(Provider):
    """Fails after the events provider has booted."""

    name = "failing"
    priority = ProviderPriority.LOW

    async def boot(self, container: Any) -> None:
        self.store = await container.resolve(AbstractEventStore)
        await self.store.append("places", [Moved(place="Rome")])
        raise RuntimeError("the last provider fails")


async def test_stores_are_closed_when_a_later_provider_fails(tmp_path: Path) -> None:
    """The framework rolls the boot back, and so do we."""
    failing = Failing()
    with pytest.raises(RuntimeError, match="the last provider fails"):
        async with Application.boot(modules=[EventsModule.configure(durable(tmp_path))], providers=[failing]):
            pass
    with pytest.raises(EventStoreConnectionError):
        await failing.store.read("places")
    async with Application.boot(modules=[EventsModule.configure(durable(tmp_path))]) as app:
        assert await (await app.container.resolve(AbstractEventStore)).head() == 1


class Span:
    """A span that only notes what it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *args: object) -> None: ...


class Tracer:
    """A tracer that counts its spans."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start_span(self, name: str, attributes: Any = None, context: Any = None) -> Any:
        self.names.append(name)
        return Span()

    def get_current_span(self) -> None:
        return None

    def inject_context(self, carrier: dict[str, str], context: Any = None) -> None: ...

    def extract_context(self, carrier: dict[str, str]) -> None:
        return None


async def test_tracer_and_metrics_of_the_application_are_used() -> None:
    """Both are optional; where the container has them, the buses use them."""
    tracer, recorder = Tracer(), InMemoryMetricsRecorder()

    class Observability(Provider):
        name = "observability"
        priority = ProviderPriority.CRITICAL

        async def register(self, container: Any) -> None:
            container.singleton(TracerProtocol, tracer)
            container.singleton(MetricsRecorderProtocol, recorder)

    Refusing.refuse = False
    modules = [EventsModule.stub(), EventsModule.scope(MoveHandler, Refusing)]
    async with Application.boot(modules=modules, providers=[Observability()]) as app:
        await (await app.container.resolve(CommandBus)).dispatch(Move(place="Rome"))
        await (await app.container.resolve(EventBusImpl)).flush()
    assert any("Refusing" in name or "Moved" in name for name in tracer.names)
    assert recorder.count("events.messages", type="Move", outcome="success") == 1


class Choosy:
    """A projection that cannot apply one event."""

    name = "restart_choosy"
    handles = (Moved,)
    in_memory = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def apply(self, event: Moved) -> None:
        if event.place == "Nowhere":
            raise ValueError("no such place")
        self.seen.append(event.place)


@pytest.mark.parametrize(
    ("on_error", "seen", "state"), [("fault", ["Rome"], "faulted"), ("park", ["Rome", "Oslo"], "live")]
)
async def test_what_a_poisonous_event_does_is_configured(on_error: str, seen: list[str], state: str) -> None:
    """It stops its projection, or it is parked among the dead letters and the projection goes on."""
    modules = [EventsModule.stub(EventsConfig(projection={"on_error": on_error})), EventsModule.scope(Choosy)]
    async with Application.boot(modules=modules) as app:
        store = await app.container.resolve(AbstractEventStore)
        for place in ("Rome", "Nowhere", "Oslo"):
            await store.append(place, [Moved(place=place)])
        projections = await app.container.resolve(ProjectionManager)
        async with asyncio.timeout(5):
            while (
                (status := projections.get_status("restart_choosy")) is None
                or status["state"] != state
                or status["lag"] * (state == "live")
            ):
                await asyncio.sleep(0.01)
        choosy: Any = projections.get("restart_choosy")
        assert getattr(choosy, "wrapped", choosy).seen == seen
        assert await (await app.container.resolve(DeadLetterStore)).get_count() == (on_error == "park")


@pytest.mark.parametrize(("hours", "kept"), [(24, False), (0, True)])
async def test_sagas_that_ended_long_ago_are_removed(hours: int, kept: bool, tmp_path: Path) -> None:
    """Only those that have ended, and only if the configuration wants it."""
    Journey.may_go_on = True
    config = durable(tmp_path, saga={"cleanup_completed_after_hours": hours})
    modules = [EventsModule.configure(config), EventsModule.scope(Journey)]
    async with Application.boot(modules=modules) as app:
        sagas = await app.container.resolve(SagaManager)
        for saga_id in ("old", "new"):
            await sagas.start("journey", saga_id=saga_id)
        record = await sagas.store.load("old")
        assert record is not None
        record.completed_at = datetime.now(UTC) - timedelta(hours=25)
        await sagas.store.save(record)
    async with Application.boot(modules=modules) as app:
        sagas = await app.container.resolve(SagaManager)
        async with asyncio.timeout(5):
            while not kept and await sagas.get("old") is not None:
                await asyncio.sleep(0.01)
        assert (await sagas.get("old") is not None) is kept
        assert await sagas.get("new") is not None


class ChangedJourney(SagaBase):
    """The same saga with other steps: a new release of the program."""

    name = "journey"

    @saga_step
    async def fly(self, ctx: SagaContext) -> None: ...


async def test_changed_steps_of_a_saga_in_flight_stop_the_boot(tmp_path: Path) -> None:
    """The error names the saga; nothing is resumed, and the file is closed again."""
    events = EventsModule.configure(durable(tmp_path, event_bus={"shutdown_timeout_seconds": 0.05}))
    async with Application.boot(modules=[events, EventsModule.scope(Journey)]) as app:
        await (await app.container.resolve(SagaManager)).start("journey", saga_id="j1", wait=False)
        async with asyncio.timeout(5):
            while Journey.steps != ["pack"]:
                await asyncio.sleep(0.01)
    with pytest.raises(SagaError, match="journey j1"):
        async with Application.boot(modules=[events, EventsModule.scope(ChangedJourney)]):
            pass
    Journey.may_go_on = True
    async with Application.boot(modules=[events, EventsModule.scope(Journey)]) as app:
        record = await (await app.container.resolve(SagaManager)).wait_for("j1", timeout=5)
        assert record.status is SagaStatus.COMPLETED
