"""Runs projections: follows the log, rebuilds, tells where each one is. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from lexigram.events.exceptions import EventValidationError, ProjectionBuildError, ProjectionNotFoundError
from lexigram.events.projections.adapter import as_projection
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.feed import hand_in, hand_in_batch, redeliver
from lexigram.events.projections.log import LogReader
from lexigram.events.projections.order import in_dependency_order
from lexigram.events.projections.parking import PREFIX, ParkedEvents
from lexigram.events.projections.rebuild import rebuild
from lexigram.events.projections.runner import ProjectionRunner

if TYPE_CHECKING:
    from lexigram.contracts.core.result import Result
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.config import ProjectionConfig


class ProjectionManager:
    """Keeps registered projections up to date.

    After `start()` every projection follows the log in a task of its own: it catches up from its checkpoint, then is
    woken by each append. Without `start()`, events are handed in with `process` or `process_batch`. Projections fail
    independently. Each projection may run in one process only; a second one is refused by its checkpoint.

    Args:
        event_store: The log to follow and to rebuild from.
        checkpoint_store: Where positions are kept. None: in the event store's database where it has one, else on the
            projection objects, so that they start from position 0 in each process.
        config: Batch sizes, checkpoint interval, whether projections run in parallel.
        dead_letters: Where failing events go with `on_error="park"`.
        on_error: `"fault"` stops the projection before the failing event; `"park"` puts it in the dead letters with
            the later events of its aggregate behind it, and goes on.
    """

    def __init__(
        self,
        event_store: Any | None = None,
        checkpoint_store: Any | None = None,
        *,
        config: ProjectionConfig | None = None,
        dead_letters: DeadLetterStore | None = None,
        on_error: Literal["fault", "park"] = "fault",
    ) -> None:
        if config is None:
            from lexigram.events.config import ProjectionConfig as config_class

            config = config_class()
        if on_error not in ("fault", "park"):
            raise EventValidationError(f"on_error must be 'fault' or 'park', not {on_error!r}", field="on_error")
        if on_error == "park" and dead_letters is None:
            raise EventValidationError("on_error='park' needs dead_letters=…", field="dead_letters")
        self._store = event_store
        beside_events = getattr(event_store, "checkpoint_store", lambda: None)
        self._own_checkpoints = beside_events() if checkpoint_store is None else None
        self._checkpoints = self._own_checkpoints if checkpoint_store is None else checkpoint_store
        self._config = config
        self._dead_letters = dead_letters if on_error == "park" else None
        self._reader = None if event_store is None else LogReader(event_store, config.max_catch_up_events)
        self._turn = None if config.enable_parallel_projections else asyncio.Lock()
        self._runners: dict[str, ProjectionRunner] = {}
        self._started = False

    # Registration

    def register(self, projection: ProjectionProtocol | Any) -> None:
        """Add a projection; any object with `apply(event)` or `handle_event(event)`. A started manager starts it.

        Raises:
            EventValidationError: It is no projection, its name is taken, or its dependencies form a circle.
        """
        projection = as_projection(projection)
        name = projection.name
        if name in self._runners:
            raise EventValidationError(f"A projection named {name!r} is registered already", field="name")
        applier = BatchApplier(
            projection,
            self._store,
            self._checkpoints,
            checkpoint_interval=self._config.checkpoint_interval,
            parked=None if self._dead_letters is None else ParkedEvents(self._dead_letters, name),
        )
        runner = ProjectionRunner(
            applier,
            self._reader,
            turn=self._turn,
            batch_size=self._config.batch_size,
            before=lambda: [self._runners[other] for other in projection.depends_on if other in self._runners],
        )
        in_dependency_order([*(known.projection for known in self._runners.values()), projection])
        self._runners[name] = runner
        if self._started:
            runner.start()

    def unregister(self, name: str) -> bool:
        """Stop and forget a projection; its rows and checkpoint stay. Return whether it was registered."""
        runner = self._runners.pop(name, None)
        if runner is not None:
            runner.abandon()
        return runner is not None

    def get(self, name: str) -> ProjectionProtocol | None:
        """Return the projection of this name, or None."""
        runner = self._runners.get(name)
        return None if runner is None else runner.projection

    def get_all(self) -> list[ProjectionProtocol]:
        """Return all registered projections in order of registration."""
        return [runner.projection for runner in self._runners.values()]

    def get_status(self, name: str) -> dict[str, Any] | None:
        """Return name, state, position, lag, rate, errors of a projection; None if it is unknown."""
        runner = self._runners.get(name)
        return None if runner is None else runner.status()

    def list_status(self) -> list[dict[str, Any]]:
        """Return the status of every projection."""
        return [runner.status() for runner in self._runners.values()]

    # Following the log

    async def start(self) -> None:
        """Create the tables, load the positions and begin to follow the log; a second call does nothing.

        Returns before the projections have caught up, see `wait_for`. One that cannot be prepared is faulted.

        Raises:
            EventValidationError: The manager has no event store.
        """
        self._need_reader()
        self._started = True
        for runner in self._in_order():
            await runner.prepare()
            runner.start()

    async def stop(self) -> None:
        """Stop following; batches in progress end or are rolled back, positions are stored. Twice is fine."""
        self._started = False
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))
        if self._own_checkpoints is not None:
            await self._own_checkpoints.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait_for(self, name: str, position: int, timeout: float | None = None) -> None:
        """Return once the projection has processed everything up to `position`: read your own writes.

        Args:
            position: Global position, as in `event.sequence_number` after an append.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It did not get there in time.
            ProjectionBuildError: LEX_ERR_EVT_015; the projection is faulted.
            ProjectionNotFoundError: LEX_ERR_EVT_017.
        """
        runner = self._runner(name)
        try:
            async with asyncio.timeout(timeout):
                await runner.wait_for(position)
        except TimeoutError:
            raise TimeoutError(
                f"Projection {name!r} is {runner.state.value} at position {runner.projection.position}, "
                f"not yet at {position}, after {timeout} s"
            ) from None

    def pause(self, name: str) -> bool:
        """Stop a projection where it is; a batch in progress still ends. Return whether the name is known."""
        runner = self._runners.get(name)
        if runner is None:
            return False
        runner.projection.pause()
        runner.notify()
        return True

    def resume(self, name: str) -> bool:
        """Let a paused or faulted projection go on from its position. Return whether the name is known."""
        runner = self._runners.get(name)
        if runner is None:
            return False
        runner.projection.resume()
        runner.notify()
        return True

    # Handing in events

    async def process(self, event: Any, position: int | None = None) -> list[str]:
        """Hand one event to every projection that wants it, and return the names of those that applied it.

        A projection that follows the log is waited for instead. One that is past `position` ignores the event; one
        that fails is faulted and missing from the result; others are not affected.

        Args:
            position: Global position; the event's own `sequence_number` if None. Without either, positions stay.
        """
        number = position if position is not None else event.sequence_number
        return [runner.projection.name for runner in self._in_order() if await hand_in(runner, event, number)]

    async def process_batch(self, events: list[tuple[Any, int]], parallel: bool = False) -> dict[str, int]:
        """Hand events with their positions, in order, to every projection; return how many each one applied.

        Args:
            parallel: Run projections concurrently; those that others depend on are finished first either way.
        """

        runners = self._in_order()
        if parallel and not any(runner.projection.depends_on for runner in runners):
            counts = await asyncio.gather(*(hand_in_batch(runner, events) for runner in runners))
        else:
            counts = [await hand_in_batch(runner, events) for runner in runners]
        return {runner.projection.name: count for runner, count in zip(runners, counts, strict=True)}

    async def redeliver(self, event: Any, handler_name: str) -> Result[None, ProjectionBuildError]:
        """Apply one parked event again; `DeadLetterStore.replay(entry_id, manager)` calls this."""
        return await redeliver(self._runners.get(handler_name.removeprefix(PREFIX)), event, handler_name)

    # Rebuilding

    async def rebuild(
        self,
        name: str,
        from_position: int = 0,
        batch_size: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Empty a read model and build it again up to the present head; then it goes on live if the manager is started.

        Args:
            from_position: Last position considered processed; 0 = everything is replayed.
            batch_size: Events per transaction; None = `rebuild_batch_size` of the configuration.
            on_progress: Called with (positions done, positions in total) after each batch.

        Returns:
            Number of events that the projection handled.

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; position kept, see `resume_rebuild`.
            ProjectionNotFoundError: LEX_ERR_EVT_017.
        """
        runner, reader = self._runner(name), self._need_reader()
        size = self._batch(batch_size)
        return await rebuild(runner, reader, from_position=from_position, batch_size=size, on_progress=on_progress)

    async def resume_rebuild(self, name: str, batch_size: int | None = None) -> int:
        """Go on with a rebuild that stopped or was killed, from its position; return how many events it handled."""
        runner, reader = self._runner(name), self._need_reader()
        return await rebuild(runner, reader, from_position=None, batch_size=self._batch(batch_size))

    async def rebuild_all(
        self, from_position: int = 0, batch_size: int | None = None, parallel: bool = False
    ) -> dict[str, int]:
        """Rebuild every projection, each after those it depends on; return the number of events each one handled."""
        names = [runner.projection.name for runner in self._in_order()]
        if parallel and not any(runner.projection.depends_on for runner in self._runners.values()):
            counts = await asyncio.gather(*(self.rebuild(name, from_position, batch_size) for name in names))
            return dict(zip(names, counts, strict=True))
        return {name: await self.rebuild(name, from_position, batch_size) for name in names}

    async def reset_all(self) -> None:
        """Empty every read model and set every position to 0; a started manager then catches up again."""
        for runner in self._in_order():
            async with runner.exclusively():
                await runner.applier.reset()
            runner.notify()

    # Internals

    def _in_order(self) -> list[ProjectionRunner]:
        ordered = in_dependency_order([runner.projection for runner in self._runners.values()])
        return [self._runners[projection.name] for projection in ordered]

    def _runner(self, name: str) -> ProjectionRunner:
        try:
            return self._runners[name]
        except KeyError:
            known = ", ".join(sorted(self._runners)) or "none"
            raise ProjectionNotFoundError(f"No projection is named {name!r}; registered: {known}") from None

    def _need_reader(self) -> LogReader:
        if self._reader is None:
            raise EventValidationError(
                "The ProjectionManager has no log to read; pass event_store=…", field="event_store"
            )
        return self._reader

    def _batch(self, size: int | None) -> int:
        size = self._config.rebuild_batch_size if size is None else size
        if not isinstance(size, int) or size < 1:
            raise EventValidationError(f"batch_size must be at least 1, not {size!r}", field="batch_size")
        return size
