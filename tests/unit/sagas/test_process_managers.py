"""Process managers over time: commands, timers, deadlines, restarts, steps that events come in between."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.config import SagaConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.command import Command
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas import alarms, engine, executor, reactions, types
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sharing import SagaSharing
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.outbox import eventually as until

QUICK = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=2)


class Opened(DomainEvent):
    key: str


class Noted(DomainEvent):
    key: str
    number: int = 0


class Closed(DomainEvent):
    key: str


class Do(Command[None]):
    key: str
    what: str


class Waiting(SagaBase):
    """Sends a command for each event, a reminder, and gives up in the end."""

    name = "waiting"
    start_events = (Opened,)
    continue_events = (Noted, Closed)
    timeout = math.inf

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> list[Any]:
        if isinstance(event, Opened):
            self.set_timer("remind", 0.3)
            return [Do(key=event.key, what="open")]
        if isinstance(event, Closed):
            self.complete()
            return [Do(key=event.key, what="close")]
        return [Do(key=event.key, what=f"note {event.number}")]

    async def on_timer(self, name: str) -> list[Any]:
        return [Do(key=self.context.data["key"], what=name)]


class Bus:
    """Notes commands; fails as often as told."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.ids: list[Any] = []
        self.failures = 0

    async def dispatch(self, command: Do) -> None:
        self.ids.append(command.id)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("bus down")
        self.sent.append(command.what)


Make = Callable[..., SagaManager]


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, SagaStore]]:
    if request.param == "memory":
        yield InMemoryEventStore(), InMemorySagaStore()
        return
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:
        yield events, sagas


def manager_of(stores: tuple[Any, SagaStore], bus: Bus, *classes: type[SagaBase], **services: Any) -> SagaManager:
    events, sagas = stores
    manager = SagaManager(sagas, event_store=events, command_bus=bus, config=QUICK, services=services)
    for cls in classes or (Waiting,):
        manager.register(cls)
    return manager


async def found(manager: SagaManager, saga_id: str) -> SagaRecord:
    record = await manager.get(saga_id)
    assert record is not None
    return record


async def test_a_restart_leaves_a_process_that_waits_for_events_waiting(stores: Any) -> None:
    """Going on with all unfinished sagas ends none of them; the next event is handled as if nothing had happened."""
    bus = Bus()
    async with manager_of(stores, bus) as manager:
        await manager.process(Opened(key="a"))
    async with manager_of(stores, bus) as manager:
        assert await manager.resume() == ["waiting:a"]
        assert (await found(manager, "waiting:a")).status is SagaStatus.RUNNING
        await manager.process(Closed(key="a"))
        assert (await found(manager, "waiting:a")).status is SagaStatus.COMPLETED
    assert [what for what in bus.sent if what != "remind"] == ["open", "close"]


async def test_sharing_leaves_a_process_that_waits_for_events_waiting(tmp_path: Path) -> None:
    """The look for sagas that others have left ends none of them either, and fires their timers."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:
        bus = Bus()
        async with manager_of((events, sagas), bus) as manager:
            await manager.process(Opened(key="a"))
        manager = manager_of((events, sagas), bus)
        async with (
            events.checkpoint_store() as leases,
            SagaSharing(manager, leases, partitions=2, poll_seconds=0.02),
        ):
            await until(lambda: bus.sent == ["open", "remind"])
            assert (await found(manager, "waiting:a")).status is SagaStatus.RUNNING


async def test_a_timer_fires_once_after_a_restart_too(stores: Any) -> None:
    """Its commands are dispatched, and a further restart does not repeat them."""
    bus = Bus()
    async with manager_of(stores, bus) as manager:
        await manager.process(Opened(key="a"))
    await asyncio.sleep(0.35)
    for _ in range(2):
        async with manager_of(stores, bus) as manager:
            await manager.resume()
            await until(lambda: bus.sent == ["open", "remind"])
            await manager.drain()
    assert (await found(manager, "waiting:a")).timers == {}


async def test_a_timer_fires_in_the_process_that_has_set_it(stores: Any) -> None:
    """Nobody has to ask for it."""
    bus = Bus()
    async with manager_of(stores, bus) as manager:
        await manager.process(Opened(key="a"))
        await until(lambda: bus.sent == ["open", "remind"])


class Ticking(SagaBase):
    """Reminds three times, each time setting the next timer, and forgets another one."""

    start_events = (Opened,)
    timeout = math.inf

    def correlation_key(self, event: Opened) -> str:
        return event.key

    async def handle(self, event: Opened) -> list[Any]:
        self.set_timer("tick", 0)
        self.set_timer("never", 3600)
        return []

    async def on_timer(self, name: str) -> list[Any]:
        ticks = self.context.data["ticks"] = self.context.data.get("ticks", 0) + 1
        self.cancel_timer("never")
        if ticks < 3:
            self.set_timer(name, 0.01)
        else:
            self.complete()
        return [Do(key="a", what=f"{name} {ticks}")]


async def test_a_timer_may_set_the_next_one_and_cancel_others(stores: Any) -> None:
    """What `on_timer` sets is kept like what `handle` sets."""
    bus = Bus()
    async with manager_of(stores, bus, Ticking) as manager:
        await manager.process(Opened(key="a"))
        await until(lambda: bus.sent == ["tick 1", "tick 2", "tick 3"])
        await manager.drain()
        record = await found(manager, "Ticking:a")
        assert (record.status, record.timers) == (SagaStatus.COMPLETED, {})


async def test_a_timer_that_is_cancelled_does_not_fire(stores: Any) -> None:
    """Setting one again replaces it; negative delays are refused."""

    class Careful(Waiting):
        name = "careful"

        async def handle(self, event: Any) -> list[Any]:
            if isinstance(event, Opened):
                self.set_timer("never", timedelta(milliseconds=10))
                self.set_timer("later", 0.0)
                self.set_timer("later", 0.03)
            self.cancel_timer("never")
            self.cancel_timer("unknown")
            return []

    class Wrong(Waiting):
        name = "wrong"

        async def handle(self, event: Any) -> list[Any]:
            self.set_timer("x", -1)
            return []

    bus = Bus()
    async with manager_of(stores, bus, Careful) as manager:
        await manager.process(Opened(key="a"))
        await until(lambda: bool(bus.sent))
        assert bus.sent == ["later"]
    async with manager_of(stores, bus, Wrong) as manager:
        with pytest.raises(EventValidationError, match="after must be at least 0 seconds"):
            await manager.process(Opened(key="a"))


async def test_a_process_that_waits_too_long_times_out_once(stores: Any) -> None:
    """The commands of `on_timeout` are dispatched first; later events find it ended."""

    class Impatient(Waiting):
        name = "impatient"
        timeout = 0.05

        async def handle(self, event: Any) -> list[Any]:
            return []

        async def on_timeout(self) -> list[Any]:
            return [Do(key="a", what="give up")]

    bus = Bus()
    async with manager_of(stores, bus, Impatient) as manager:
        await manager.process(Opened(key="a"))
        await until(lambda: bus.sent == ["give up"])
        await manager.drain()
        record = await found(manager, "impatient:a")
        assert (record.status, record.reason) == (SagaStatus.TIMED_OUT, "timeout")
        assert record.error is not None
        assert record.error.startswith("the saga's deadline was")
        await manager.process(Noted(key="a"))
    async with manager_of(stores, bus, Impatient) as manager:
        assert await manager.resume() == []
    assert bus.sent == ["give up"]


async def test_a_failing_command_is_tried_again_with_its_id_and_before_later_ones(stores: Any) -> None:
    """Commands keep their order; what follows waits."""
    bus = Bus()
    async with manager_of(stores, bus) as manager:
        bus.failures = 2
        await manager.process(Opened(key="a"))
        await manager.process(Noted(key="a", number=1))
        assert bus.sent[:2] == ["open", "note 1"]
        assert len(set(bus.ids[:3])) == 1
        assert (await found(manager, "waiting:a")).error is None


async def test_a_saga_may_answer_a_command_that_failed(stores: Any) -> None:
    """What it returns is dispatched instead, and the saga goes on."""

    class Answering(Waiting):
        name = "answering"

        async def command_failed(self, command: Any, error: Exception) -> list[Any] | None:
            self.context.data["failed"] = f"{command.what}: {error}"
            return [Do(key=command.key, what="instead")]

    bus = Bus()
    async with manager_of(stores, bus, Answering) as manager:
        bus.failures = 3
        await manager.process(Opened(key="a"))
        record = await found(manager, "answering:a")
        assert record.status is SagaStatus.RUNNING
        assert record.data["failed"] == "open: bus down"
        assert bus.sent[0] == "instead"


async def test_commands_left_by_a_crash_are_dispatched_after_it(stores: Any) -> None:
    """They are stored with the saga: whoever goes on with it sends them, each once, before the saga ends."""
    bus = Bus()
    manager = manager_of(stores, bus)
    await manager.process(Opened(key="a"))
    await manager.accept(Noted(key="a", number=1))  # and then the process dies
    await manager.accept(Closed(key="a"))
    await manager.close()
    assert (await found(manager, "waiting:a")).status is SagaStatus.RUNNING
    async with manager_of(stores, bus) as manager:
        await manager.resume()
        assert (await found(manager, "waiting:a")).status is SagaStatus.COMPLETED
    assert [what for what in bus.sent if what != "remind"] == ["open", "note 1", "close"]


async def test_a_command_of_an_unknown_class_stops_its_own_saga_only(tmp_path: Path) -> None:
    """It is kept as stored; the error names the class, sagas can be listed, and the right program sends it."""
    bus = Bus()
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:

        async def rename(old: str, new: str) -> None:
            await events.engine.execute("UPDATE event_sagas SET record = replace(record, ?, ?)", (old, new))

        manager = manager_of((events, sagas), bus)
        await manager.accept(Opened(key="a"))
        await manager.close()
        await rename("test_process_managers.Do", "test_process_managers.Gone")
        async with manager_of((events, sagas), bus) as manager:
            assert await manager.resume() == ["waiting:a"]
            (record,) = await manager.list("waiting")
            assert (record.status, bus.sent) == (SagaStatus.FAILED, [])
            assert record.error is not None
            assert "Gone' is not known; import the module that defines it" in record.error
            await rename("test_process_managers.Gone", "test_process_managers.Do")
            assert (await manager.retry("waiting:a")).status is SagaStatus.RUNNING
    assert bus.sent[0] == "open"


async def test_what_a_command_appends_and_the_note_that_it_was_sent_commit_together(tmp_path: Path) -> None:
    """A command whose handler fails behind its append leaves nothing behind; one that succeeds is there once."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:

        class Appending(Bus):
            async def dispatch(self, command: Do) -> None:
                await events.append("done", [Noted(key=command.what)])
                await super().dispatch(command)

        bus = Appending()
        async with manager_of((events, sagas), bus) as manager:
            bus.failures = 2
            await manager.process(Opened(key="a"))
            await manager.process(Closed(key="a"))
        assert [event.key for event in await events.read("done") if event.key != "remind"] == ["open", "close"]


async def test_many_events_of_one_process_in_one_batch_all_count(stores: Any) -> None:
    """The follower handles them in one transaction, in which each sees what the one before has left."""

    class Counting(Waiting):
        name = "counting"

        async def handle(self, event: Any) -> list[Any]:
            self.context.data["count"] = self.context.data.get("count", 0) + 1
            return []

    events, _ = stores
    await events.append("log", [Opened(key="a"), *[Noted(key="a", number=n) for n in range(20)]])
    async with manager_of(stores, Bus(), Counting) as manager:
        projections = ProjectionManager(events)
        projections.register(manager.follower())
        async with projections:
            await projections.wait_for("sagas", await events.head(), timeout=5)
            await manager.drain()
        assert (await found(manager, "counting:a")).data["count"] == 21


class Slow(SagaBase):
    """A step that takes a while, and events meanwhile."""

    name = "slow"
    start_events = (Opened,)
    continue_events = (Noted,)

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> list[Any]:
        self.context.data["events"] = self.context.data.get("events", 0) + 1
        return []

    @saga_step
    async def work(self, ctx: SagaContext) -> None:
        ctx.services.started.set()
        await ctx.services.go_on.wait()
        await ctx.services.store.append("worked", [Noted(key=ctx.saga_id)])

    @saga_step
    async def finish(self, ctx: SagaContext) -> None:
        ctx.data["finished"] = True


async def test_an_event_that_comes_while_a_step_runs_is_not_kept_waiting_by_it(stores: Any) -> None:
    """The follower's transaction goes through; the step is rolled back, runs again and has one effect."""
    events, _ = stores
    started, go_on = asyncio.Event(), asyncio.Event()
    async with manager_of(stores, Bus(), Slow, store=events, started=started, go_on=go_on) as manager:
        projections = ProjectionManager(events)
        projections.register(manager.follower())
        async with projections:
            await events.append("log", [Opened(key="a")])
            await asyncio.wait_for(started.wait(), 5)
            await events.append("log", [Noted(key="a")])
            await asyncio.sleep(0.05)
            go_on.set()
            await projections.wait_for("sagas", await events.head(), timeout=5)
            await asyncio.wait_for(manager.drain(), 5)
        record = await found(manager, "slow:a")
        assert record.status is SagaStatus.COMPLETED
        assert (record.data["events"], record.data["finished"]) == (2, True)
        assert len(await events.read("worked")) == 1


async def test_a_step_may_hand_in_an_event_of_its_own_saga() -> None:
    """It does not wait for itself; the event counts once, and the step ends."""

    class Talking(SagaBase):
        name = "talking"
        start_events = (Opened,)
        continue_events = (Noted,)

        def correlation_key(self, event: Any) -> str:
            return str(event.key)

        async def handle(self, event: Any) -> list[Any]:
            self.context.data["events"] = self.context.data.get("events", 0) + 1
            return []

        @saga_step
        async def talk(self, ctx: SagaContext) -> None:
            await ctx.services.manager.process(note)
            ctx.data["talked"] = True

    note = Noted(key="a")
    services: dict[str, Any] = {}
    manager = SagaManager(InMemorySagaStore(), config=QUICK, services=services)
    services["manager"] = manager
    manager.register(Talking)
    await asyncio.wait_for(manager.process(Opened(key="a")), 5)
    record = await found(manager, "talking:a")
    assert record.status is SagaStatus.COMPLETED
    assert (record.data["events"], record.data["talked"]) == (2, True)


async def test_an_event_does_not_turn_a_saga_round_that_is_being_undone(stores: Any) -> None:
    """It is handled, and the compensation goes on."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Undone(SagaBase):
        name = "undone"
        start_events = (Opened,)
        continue_events = (Noted,)

        def correlation_key(self, event: Any) -> str:
            return str(event.key)

        async def handle(self, event: Any) -> list[Any]:
            self.complete()
            return []

        async def undo(self, ctx: SagaContext) -> None:
            entered.set()
            await go_on.wait()

        @saga_step(compensation="undo")
        async def first(self, ctx: SagaContext) -> None: ...

        @saga_step
        async def second(self, ctx: SagaContext) -> None:
            raise KeyError("fails")

    class Quiet(Undone):
        name = "quiet"

        async def handle(self, event: Any) -> list[Any]:
            if isinstance(event, Noted):
                self.complete()
            return []

    async with manager_of(stores, Bus(), Quiet) as manager:
        task = asyncio.create_task(manager.process(Opened(key="a")))
        await asyncio.wait_for(entered.wait(), 5)
        go_on.set()
        await manager.process(Noted(key="a"))
        await task
        assert (await found(manager, "quiet:a")).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("place", ["retry", "timer", "deadline"])
async def test_a_clock_that_jumps_leaves_each_saga_one_end(
    hours: int, place: str, stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour forward or back, between a failed attempt and the next, or while a process waits; then a restart."""
    offset = timedelta(0)
    real = types.now
    for module in (alarms, engine, executor, reactions, types):
        monkeypatch.setattr(module, "now", lambda: real() + offset)
    monkeypatch.setattr("lexigram.events.sagas.base.now", lambda: real() + offset)

    class Jumping(SagaBase):
        name = "jumping"
        start_events = (Opened,) if place != "retry" else ()
        timeout = 2 * 3600.0 if place != "deadline" else 0.05

        async def handle(self, event: Any) -> list[Any]:
            if place == "timer":
                self.set_timer("end", 0.05)
            return []

        def correlation_key(self, event: Any) -> str:
            return "a"

        async def on_timer(self, name: str) -> list[Any]:
            self.complete()
            return []

    class Retrying(Jumping):
        @saga_step(max_retries=3, retry_delay=0.05)
        async def flaky(self, ctx: SagaContext) -> None:
            if ctx.attempt < 3:
                raise ConnectionError("not yet")

    bus = Bus()
    cls = Retrying if place == "retry" else Jumping
    async with manager_of(stores, bus, cls) as manager:
        if place == "retry":
            await manager.start("jumping", saga_id="jumping:a", wait=False)
            await until(lambda: "jumping:a" in manager.running)
        else:
            await manager.process(Opened(key="a"))
        offset = timedelta(hours=hours)
        await asyncio.sleep(0.2)
    offset += timedelta(hours=max(0, -hours) + 0.01)  # real time goes on: what waits by the clock is due then
    for _ in range(2):
        async with manager_of(stores, bus, cls) as manager:
            await manager.resume()
            await manager.drain()
    ended = {"retry": SagaStatus.COMPLETED, "timer": SagaStatus.COMPLETED, "deadline": SagaStatus.TIMED_OUT}
    assert (await found(manager, "jumping:a")).status is ended[place]


async def test_a_clock_that_is_set_back_does_not_prolong_a_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even between the moment that is stored and the waiting."""
    offset = timedelta(0)
    real = types.now

    class Jumping(InMemorySagaStore):
        async def save(self, record: SagaRecord) -> None:
            nonlocal offset
            await super().save(record)
            if record.wake_at is not None:
                offset = timedelta(hours=-1)

    for module in (engine, executor, reactions, types):
        monkeypatch.setattr(module, "now", lambda: real() + offset)

    class Flaky(SagaBase):
        name = "flaky"
        timeout = 36_000.0

        @saga_step(max_retries=1, retry_delay=0.05)
        async def work(self, ctx: SagaContext) -> None:
            if ctx.attempt == 1:
                raise ConnectionError("not yet")

    async with SagaManager(Jumping(), config=QUICK) as manager:
        manager.register(Flaky)
        record = await found(manager, await asyncio.wait_for(manager.start("flaky"), 5))
    assert offset
    assert record.status is SagaStatus.COMPLETED


async def test_a_retry_delay_outlives_a_restart(stores: Any) -> None:
    """The next attempt comes when it was due, neither at once nor never."""
    calls: list[float] = []

    class Patient(SagaBase):
        name = "patient"

        @saga_step(max_retries=1, retry_delay=0.3)
        async def flaky(self, ctx: SagaContext) -> None:
            calls.append(asyncio.get_running_loop().time())
            if len(calls) == 1:
                raise ConnectionError("not yet")

    manager = manager_of(stores, Bus(), Patient)
    await manager.start("patient", saga_id="p", wait=False)
    async with asyncio.timeout(10):
        while (await found(manager, "p")).wake_at is None:  # a failure that is not stored yet is repeated at once
            await asyncio.sleep(0.005)
    await manager.close(0.0)
    async with manager_of(stores, Bus(), Patient) as manager:
        await manager.resume()
        assert (await found(manager, "p")).status is SagaStatus.COMPLETED
    assert calls[1] - calls[0] >= 0.25


async def test_sagas_that_wait_for_their_next_attempt_do_not_keep_others_from_running(stores: Any) -> None:
    """A delay takes none of the places for sagas that run at the same time."""

    class Blocked(SagaBase):
        name = "blocked"

        @saga_step(max_retries=1, retry_delay=30.0)
        async def flaky(self, ctx: SagaContext) -> None:
            raise ConnectionError("not yet")

    class Free(SagaBase):
        name = "free"

        @saga_step
        async def work(self, ctx: SagaContext) -> None: ...

    events, sagas = stores
    manager = SagaManager(sagas, event_store=events, config=QUICK, max_concurrent=1)
    manager.register(Blocked)
    manager.register(Free)
    await manager.start("blocked", wait=False)
    record = await found(manager, await asyncio.wait_for(manager.start("free"), 5))
    assert record.status is SagaStatus.COMPLETED
    await manager.close(0.0)
