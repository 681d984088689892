"""Projections that run in the transactions of appends: what they write is visible the moment `append` returns.

Such a projection has a stored position like any other. In the transaction of an append it reads the log from there and
applies what it finds, the append's own events at the end. So it also makes good what a process without it has appended,
and an append that is repeated after an unknown outcome is applied once. Source: design, section projections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from lexigram.events.exceptions import AdapterConnectionError, EventValidationError, ProjectionBuildError
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import Positioned, ProjectionProtocol, ProjectionStatus
from lexigram.events.projections.durable import DurableProjection, takes_numbered
from lexigram.events.projections.runner import ProjectionRunner
from lexigram.events.stores._inline import MAX_APPENDS, InlineAppends
from lexigram.events.stores._memory_unit import MemoryUnitOfWork
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.unit_of_work import current_unit_of_work
from lexigram.events.types import ProjectionState

_PAGE: Final = 1000
_MOST_PASSED: Final = 500
"""Events that do not concern it may pass by before the position is stored: so many have to be read to find that out."""


class InlineRunner(ProjectionRunner):
    """Runs one projection in the transactions of appends to a store, instead of following the log in a task.

    Args:
        store: The event store.
        applier: Of the projection.
        reader: Of the log, for what was appended before this runner began.
        options: As for `ProjectionRunner`.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; the store cannot do it for this projection.
    """

    def __init__(self, store: Any, applier: BatchApplier, reader: Any, **options: Any) -> None:
        super().__init__(applier, reader, **options)
        while hasattr(store, "inner"):  # what wraps a store appends to the store inside
            store = store.inner
        self._store = store
        self._in_memory = isinstance(store, InMemoryEventStore)
        self._is_active = False
        self._passed = 0
        self._catching: asyncio.Task[None] | None = None
        _check(store, self.projection, self._in_memory)

    @property
    def following(self) -> bool:
        """Whether appends in this process are applied."""
        return self._is_active

    async def prepare(self) -> None:
        """Create the tables and apply what was appended before; a failure is recorded on the projection."""
        await super().prepare()
        if self.projection.status is not ProjectionStatus.ERROR:
            with suppress(ProjectionBuildError):
                await self.catch_up()

    def start(self) -> None:
        """Take part in the appends of this process from now on."""
        if self._store._inline is None:
            self._store._inline = InlineAppends(self._store, 1 if self._in_memory else MAX_APPENDS)
        if not self._is_active:
            self._store._inline.handlers.append(self)
        self._is_active, self._phase = True, ProjectionState.LIVE

    async def stop(self) -> None:
        """Take no more part; appends that wait are still applied."""
        self.abandon()
        if self._store._inline is not None:
            await self._store._inline.settled()
        self.applier.forget()

    def abandon(self) -> None:
        """Take no more part."""
        if self._is_active:
            self._is_active = False
            self._store._inline.handlers.remove(self)
        super().abandon()

    def notify(self) -> None:
        """Look at the projection's status again: after a pause or a rebuild there is something to make good."""
        super().notify()
        if self._is_active and self.projection.status is ProjectionStatus.RUNNING:
            self._catching = asyncio.get_running_loop().create_task(self._make_good())

    async def wait_for(self, position: int) -> None:
        """Return once everything up to `position` is processed; what is in the log is made good at once."""
        if self.projection.position < position and self.projection.status is ProjectionStatus.RUNNING:
            await self.catch_up()
        await super().wait_for(position)

    # In appends

    def wants(self, events: Sequence[Any]) -> bool:
        """Return whether an append of these events has to be applied in its transaction."""
        if self.projection.status is not ProjectionStatus.RUNNING:
            return False
        self._passed += len(events)
        return self._passed >= _MOST_PASSED or any(map(self.projection.can_handle, events))

    async def follow(self, unit: Any) -> None:
        """Apply what the unit of work has appended, and what is missing before it."""
        if isinstance(unit, MemoryUnitOfWork):
            unit.before_storing(self._take)
            return
        while await self._apply_page(unit):
            pass

    async def catch_up(self) -> None:
        """Apply what is in the log, in transactions of its own.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; an event cannot be applied, the projection is faulted.
        """
        try:
            if self._in_memory:
                async with self._lock:  # not while it is rebuilt, or an append is applied
                    await self._catch_up_in_memory()
                return
            more = True
            while more:
                async with self._lock, self._store.unit_of_work() as unit:  # not while it is rebuilt
                    more = await self._apply_page(unit)
        except ProjectionBuildError as error:
            self._fault(error)
            raise

    async def _catch_up_in_memory(self) -> None:
        while events := await self._store.read_all(self.projection.position, _PAGE):
            await self.apply([(event, event.sequence_number) for event in events], strict=True)

    async def apply(self, batch: list[Positioned], *, strict: bool = False) -> int:
        """Apply events that lie after the position, unless appends, perhaps of another process, have done so meanwhile."""
        if self._in_memory:
            return await super().apply(batch, strict=strict)
        count = 0
        try:
            async with self._store.unit_of_work() as unit:
                await self._take_turn(unit)
                stored = await self.applier.stored_position()
                fresh = [item for item in batch if item[1] > stored] if stored >= self.projection.position else []
                if fresh:
                    count = await self.applier.join(fresh)
                    unit.on_commit(lambda: self._took(batch[-1][1], count))
        except AdapterConnectionError:
            raise
        except Exception as error:
            self._fault(error)
            raise
        if not fresh:
            self.projection.checkpoint.position = stored
        return count

    async def flush(self) -> None:
        """Nothing to do: what was applied is stored, and appends move the position too."""
        if self._in_memory:
            await super().flush()

    async def before_reset(self) -> None:
        """Let an append that has begun end, and take over what it has stored; later ones wait for the transaction."""
        unit = current_unit_of_work()
        if unit is not None:
            await self._take_turn(unit)
            self.applier.forget()
            await self.applier.prepare()

    async def _apply_page(self, unit: Any) -> bool:
        """Apply the next events in the current transaction; return whether there may be more."""
        if self.projection.status is not ProjectionStatus.RUNNING:
            return False
        await self._take_turn(unit)
        events = await self._store.read_all(await self.applier.stored_position(), _PAGE)
        if not events:
            return False
        batch: list[Positioned] = [(event, event.sequence_number) for event in events]
        count = await self.applier.join(batch)
        unit.on_commit(lambda: self._took(batch[-1][1], count))
        return len(events) == _PAGE

    async def _take_turn(self, unit: Any) -> None:
        """Let one transaction at a time apply events. On SQLite it is alone anyway once it has begun."""
        if takes_numbered(unit):
            # An append already has the log's lock, catching up and rebuilding have none.
            name = f"inline {self._store.database.names.checkpoints} {self.applier.checkpoint_name}"
            await unit.fetch_one("SELECT pg_advisory_xact_lock(hashtext($1))", (name,))

    async def _take(self, batch: list[Positioned]) -> None:
        """Apply what is about to be stored in memory."""
        async with self._lock:  # not while it is rebuilt
            if self.projection.status is ProjectionStatus.RUNNING:
                if batch[0][1] > self.projection.position + 1:
                    await self._catch_up_in_memory()
                await self.applier.join(batch)
                self._took(batch[-1][1], 0)

    def _took(self, position: int, count: int) -> None:
        before, self._passed = self.projection.position, 0
        self.projection.advance(position)
        self.applier.applied += count
        self.applier.forget()  # whoever applies events outside of appends loads the position again
        self._moved(self.projection.position - before)

    async def _make_good(self) -> None:
        with suppress(Exception):  # recorded on the projection, or made good by the next append
            await self.catch_up()


def _check(store: Any, projection: ProjectionProtocol, in_memory: bool) -> None:
    durable = isinstance(projection, DurableProjection)
    if getattr(projection, "_has_versions", False):
        raise EventValidationError(f"{projection.name!r} has versions; those follow the log", field="inline")
    if in_memory and not durable:
        return
    if not durable or not hasattr(type(store), "engine"):
        raise EventValidationError(
            f"{projection.name!r} cannot be inline: that needs a DurableProjection on SQLite or PostgreSQL, "
            "or the in-memory store",
            field="inline",
        )
