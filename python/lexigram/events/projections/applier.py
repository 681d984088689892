"""Applies a batch of events to one projection: rows and checkpoint in one transaction where the database is shared.

This is the only place that moves a projection's position. Source: design, section projections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeGuard

from lexigram.events.exceptions import ConcurrencyError, EventValidationError, ProjectionBuildError
from lexigram.events.messages.context import enter_message, leave_message
from lexigram.events.messages.texts import words_of
from lexigram.events.projections.base import Positioned, ProjectionProtocol, raise_if_err, settled, wanted_by
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.read_model import ReadModel
from lexigram.events.stores.checkpoints import moved_elsewhere

if TYPE_CHECKING:
    from lexigram.events.projections.parking import ParkedEvents
    from lexigram.events.stores.base import AbstractCheckpointStore

EFFECTS = ":effects"
"""Behind a checkpoint's name: the checkpoint of what was processed before the last rebuild or reset."""


class BatchApplier:
    """Applies events to one projection and keeps its checkpoint.

    Args:
        store: The event store, for `unit_of_work()`; needed for `DurableProjection`.
        checkpoints: Where positions are kept; None keeps them on the projection object only.
        checkpoint_interval: Events between two stored checkpoints where rows and checkpoint cannot commit together.
        parked: Takes over events that fail; None lets a failure stop the projection.
        checkpoint_name: Name of the checkpoint, where it is not that of the projection (partitions).
    """

    def __init__(
        self,
        projection: ProjectionProtocol,
        store: Any = None,
        checkpoints: AbstractCheckpointStore | None = None,
        *,
        checkpoint_interval: int = 100,
        parked: ParkedEvents | None = None,
        checkpoint_name: str | None = None,
    ) -> None:
        self.projection = projection
        self.checkpoint_name = projection.name if checkpoint_name is None else checkpoint_name
        self._store = store
        self._checkpoints = None if projection.in_memory else checkpoints
        self._interval = checkpoint_interval
        self._parked = parked
        projection.may_park = parked is not None
        self.epoch: int | None = None
        """Epoch of the lease on this projection, where several processes share it; None = this process is alone."""
        self.applied = 0
        """How many events were applied since the program started."""
        self._stored = 0
        self._prepared = False
        self._transactional = isinstance(projection, DurableProjection)
        self._moves_in_jobs = False
        self._read_model: ReadModel | None = None
        if _has_versions(projection):
            self._read_model = ReadModel(store, projection.read_model)
            if projection.name != f"{projection.read_model}@{projection.version}":
                raise EventValidationError(f"{projection.name!r} has a read_model; do not name it", field="name")
            if getattr(getattr(checkpoints, "database", None), "names", None) != store.database.names:
                raise EventValidationError(
                    "versions of a read model need their positions beside the events; leave checkpoint_store out",
                    field="checkpoint_store",
                )
        if self._transactional and not hasattr(store, "unit_of_work"):
            raise EventValidationError(
                f"{type(projection).__name__} keeps its rows in the event store's database; "
                "pass event_store=… to the ProjectionManager",
                field="event_store",
            )

    async def prepare(self) -> None:
        """Create the tables and load the position; cheap when it was done before."""
        if self._prepared:
            return
        projection = self.projection
        if isinstance(projection, DurableProjection) and (projection.schema or self._read_model is not None):
            async with self._store.unit_of_work() as unit:
                await unit.lock_schema()
                if self._read_model is not None:
                    await self._read_model.begin(projection)
                await projection.create_schema()
                if self._read_model is not None:
                    await self._read_model.register(projection)
                    projection._model_state = await self._read_model.check(projection.version)
        if self._checkpoints is not None:
            connect = getattr(self._checkpoints, "connect", None)
            if connect is not None:  # it may have been closed with the manager
                await connect()
            self._moves_in_jobs = await self._can_move_in_jobs(self._checkpoints)
            self._stored = await self._checkpoints.get_checkpoint(self.checkpoint_name)
            if self._transactional or self.epoch is not None:
                projection.checkpoint.position = self._stored
            projection.advance(self._stored)
            if isinstance(projection, DurableProjection):
                projection._effects_after = await self._checkpoints.get_checkpoint(self.checkpoint_name + EFFECTS)
        self._prepared = True

    async def _can_move_in_jobs(self, checkpoints: Any) -> bool:
        """Return whether positions can be moved by the thread that writes events: on SQLite, in the events' own file."""
        if not (self._transactional and hasattr(checkpoints, "move") and hasattr(type(self._store), "engine")):
            return False
        await self._store._ready()
        return checkpoints.database.engine is self._store.engine

    @property
    def is_building(self) -> bool:
        """Whether it builds a version of a read model that readers have not seen yet."""
        projection = self.projection
        state = projection._model_state if isinstance(projection, DurableProjection) else None
        return state is not None and projection.version not in state.seen  # type: ignore[attr-defined]

    @property
    def is_prepared(self) -> bool:
        """Whether the position is as loaded or stored by this process."""
        return self._prepared

    def forget(self) -> None:
        """Load the position again before the next batch: after a cancelled write its outcome is not known."""
        self._prepared = False

    async def apply(self, batch: Sequence[Positioned], *, strict: bool = False) -> int:
        """Apply every wanted event and move the position to that of the last one; return how many were applied.

        In a shared database the whole batch is one transaction; if that fails, halves of it are tried, so that the
        position stops exactly before the poisonous event. Elsewhere events are applied one by one.

        Args:
            batch: Events in order of position, all after the projection's present position.
            strict: Never park a failing event (rebuilds never skip).

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015, naming the event; the position is that of the event before it.
            ConcurrencyError: Another process has moved the checkpoint; nothing was changed.
        """
        wanted = wanted_by(self.projection, batch)
        last, before = batch[-1][1], self.applied
        parked = None if strict or self.is_building else self._parked
        if self._transactional and wanted:
            await self._apply_range(wanted, last, parked)
        else:
            for item in wanted:
                await self._apply_range([item], item[1], parked)
        await self.skip_to(last)
        return self.applied - before

    async def flush(self) -> None:
        """Store the position, where it lags behind what was processed."""
        position = self.projection.position
        if self._checkpoints is not None and position != self._stored:
            if self._moves_in_jobs:
                await self._store.engine.run(lambda connection: self._move(connection, position))
            else:
                async with self.transaction():
                    await self._check_alone()
                    await self._save(position)
            self._stored = position

    async def stored_position(self) -> int:
        """Return the stored position, whichever process has moved it."""
        return (
            self.projection.position
            if self._checkpoints is None
            else await self._checkpoints.get_checkpoint(self.checkpoint_name)
        )

    async def restart(self, position: int = 0) -> None:
        """Set the position without touching the read model, which another partition of it has emptied."""
        async with self.transaction():
            await self._start_over(position)
        self._stored = position
        self.projection.checkpoint.position = position

    async def reset(self, position: int = 0) -> None:
        """Set the position and empty the read model, in one transaction where there is one.

        Elsewhere the position comes first: what a failure or a crash leaves emptied is then built again.
        """
        async with self.transaction():
            await self._check_alone()
            if self._parked is not None and self.projection.needs_parked and await self._parked.any():
                raise ProjectionBuildError(
                    f"Projection {self.projection.name!r} has parked events: replay or purge them before a reset"
                )
            await self._start_over(position)
            if not self._transactional:
                self._stored = self.projection.checkpoint.position = position
            if self._parked is not None:
                await self._parked.forget()
            await self.projection.reset()
        self._stored = position
        self.projection.checkpoint.position = position

    async def _start_over(self, position: int) -> None:
        """Store an earlier position; what was processed before has no effects again, whoever processes it."""
        projection = self.projection
        if isinstance(projection, DurableProjection) and self._checkpoints is not None:
            done = max(projection._effects_after, await self._checkpoints.get_checkpoint(self.checkpoint_name))
            await self._checkpoints.save_checkpoint(self.checkpoint_name + EFFECTS, done)
            projection._effects_after = done
        await self._save(position)

    async def join(self, batch: Sequence[Positioned]) -> int:
        """Apply a batch and move the position in the current transaction; whoever began it rolls back what failed.

        Returns:
            How many events were applied.
        """
        wanted = wanted_by(self.projection, batch)
        if wanted:
            await self._call(wanted)
        await self._save(batch[-1][1])
        return len(wanted)

    async def redeliver(self, event: Any) -> None:
        """Apply one event that was parked, without moving the position."""
        async with self.transaction():
            await self._call([(event, 0)])
            if self._parked is not None:
                await self._parked.settle(event)

    async def _apply_range(self, wanted: Sequence[Positioned], last: int, parked: ParkedEvents | None) -> None:
        """Apply events together; where that fails, the first half and then the second, down to the failing event.

        As soon as an event is parked, each one after it is asked whether it has to wait.
        """
        if parked is not None and await parked.any():
            for event, position in wanted:
                await self._apply_or_park(parked, event, position)
            return
        try:
            await self._apply_together(wanted, last)
            return
        except ProjectionBuildError:
            if len(wanted) == 1 and parked is None:
                raise
        if len(wanted) == 1 and parked is not None:
            await self._apply_or_park(parked, *wanted[0])
            return
        middle = len(wanted) // 2
        await self._apply_range(wanted[:middle], wanted[middle - 1][1], parked)
        await self._apply_range(wanted[middle:], last, parked)

    async def _apply_together(self, wanted: Sequence[Positioned], last: int) -> None:
        store = self._checkpoints is not None and (self._transactional or last - self._stored >= self._interval)
        if self._moves_in_jobs and self.projection.takes_batches:  # type: ignore[attr-defined]
            await self._apply_as_job(wanted, last)
            return
        if self._defers:
            with suppress(ConcurrencyError):  # then once more, with nobody else writing meanwhile
                await self._apply_deferred(wanted, last)
                return
        async with self.transaction():
            await self._check_alone()
            await self._call(wanted)
            if store:
                await self._save(last)
        self._moved(last, store)
        self.applied += len(wanted)

    @property
    def _defers(self) -> bool:
        """Whether all writes of the projection can wait for the end of a batch."""
        projection: Any = self.projection
        return self._moves_in_jobs and projection.defers and self._store.database.provider is None

    async def _apply_as_job(self, wanted: Sequence[Positioned], last: int) -> None:
        """Apply a batch in the database thread, where it shares the commit of whatever else is waiting."""
        projection, events = self.projection, [event for event, _ in wanted]

        def job(connection: Any) -> None:
            self._move(connection, last)
            try:
                projection.project_batch(connection, events)  # type: ignore[attr-defined]
            except Exception as error:
                raise self._poison(*wanted[0], error) from error

        await self._store.engine.run(job)
        self._moved(last, True)
        self.applied += len(wanted)

    async def _apply_deferred(self, wanted: Sequence[Positioned], last: int) -> None:
        """Apply a batch whose writes are checked and made together at its end; others can write meanwhile.

        Raises:
            ConcurrencyError: Something that it relied on has changed; nothing was written.
        """
        async with self._store.deferred_unit_of_work() as unit:
            unit.defer(lambda connection: self._move(connection, last))
            await self._call(wanted)
        self._moved(last, True)
        self.applied += len(wanted)

    def _move(self, connection: Any, position: int) -> None:
        """In the database thread: move the stored position, if nobody else has and the version was not dropped."""
        projection: Any = self.projection
        checkpoints: Any = self._checkpoints
        if self._read_model is not None:
            projection._model_state = self._read_model.look(connection, projection.version)
        checkpoints.move(connection, self.checkpoint_name, self._stored, position, self.epoch)

    async def _apply_or_park(self, parked: ParkedEvents, event: Any, position: int) -> None:
        """Apply one event, or park it: because it fails, or because an earlier one of its aggregate is parked."""
        async with parked.holding(event):
            failure: ProjectionBuildError | None = None
            if not await parked.must_wait(event):
                try:
                    await self._apply_together([(event, position)], position)
                    return
                except ProjectionBuildError as error:
                    failure = error
            async with self.transaction():
                await self._check_alone()
                await parked.park(event, failure)
                await self._save(position)
            self._moved(position, True)

    async def _call(self, wanted: Sequence[Positioned]) -> None:
        projection = self.projection
        if isinstance(projection, DurableProjection) and projection.takes_batches:
            events = [event for event, _ in wanted]
            try:
                await projection.db.unit.run(lambda connection: projection.project_batch(connection, events))
            except Exception as error:
                raise self._poison(*wanted[0], error) from error
            return
        for event, position in wanted:
            token = enter_message(event)
            try:
                outcome = projection.handle_event(event) if position else projection.handle_late(event)
                raise_if_err(await settled(outcome))
            except Exception as error:
                raise self._poison(event, position, error) from error
            finally:
                leave_message(token)

    async def skip_to(self, last: int) -> None:
        """Note events that do not concern the projection; stored now and then, as losing that costs nothing."""
        self.projection.advance(last)
        if last - self._stored >= self._interval:
            await self.flush()

    async def _save(self, position: int) -> None:
        if self._checkpoints is not None:
            fence = {} if self.epoch is None else {"epoch": self.epoch}
            await self._checkpoints.save_checkpoint(self.checkpoint_name, position, **fence)

    def _moved(self, position: int, stored: bool) -> None:
        self.projection.advance(position)
        if stored:
            self._stored = position

    async def _check_alone(self) -> None:
        """Refuse to write if somebody else has moved the checkpoint meanwhile, or the version was dropped."""
        if self._read_model is not None:
            projection: Any = self.projection
            projection._model_state = await self._read_model.check(projection.version)
        if self._transactional and self._checkpoints is not None:
            stored = await self._checkpoints.get_checkpoint(self.checkpoint_name)
            if stored != self._stored:
                raise moved_elsewhere(self.checkpoint_name, self._stored, stored)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Run a block in one transaction of the read model's database, where there is one; a transaction inside joins it."""
        if self._transactional:
            async with self._store.unit_of_work():
                yield
        else:
            yield

    def _poison(self, event: Any, position: int, error: Exception) -> ProjectionBuildError:
        return ProjectionBuildError(
            f"Projection {self.projection.name!r} cannot apply {event.event_type} at position {position}: "
            f"{type(error).__name__}: {words_of(error)}",
            cause=error,
            details={"projection": self.projection.name, "position": position, "event_id": str(event.event_id)},
        )


def _has_versions(projection: ProjectionProtocol) -> TypeGuard[DurableProjection]:
    return isinstance(projection, DurableProjection) and projection._has_versions
