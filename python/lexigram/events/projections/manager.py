"""Runs projections: follows the log, rebuilds, tells where each one is. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from lexigram.events.exceptions import EventValidationError, ProjectionBuildError, ProjectionNotFoundError
from lexigram.events.projections.adapter import as_projection
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.feed import hand_in, hand_in_batch, redeliver
from lexigram.events.projections.inline import InlineRunner
from lexigram.events.projections.log import LogReader, PartitionReader
from lexigram.events.projections.order import in_dependency_order
from lexigram.events.projections.parking import PREFIX, ParkedEvents
from lexigram.events.projections.parts import ProjectionParts
from lexigram.events.projections.read_model import ReadModel
from lexigram.events.projections.rebuild import rebuild, reset
from lexigram.events.projections.runner import ProjectionRunner
from lexigram.events.stores.lease import Claim, LeaseGroup

if TYPE_CHECKING:
    from lexigram.contracts.core.result import Result
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.config import ProjectionConfig


class ProjectionManager:
    """Keeps registered projections up to date.

    After `start()` every projection follows the log in a task of its own: it catches up from its checkpoint, then is
    woken by each append. Without `start()`, `process` or `process_batch` hand events in. Projections fail independently.

    A projection runs in one process; a second one is refused by its checkpoint. With `config.shared` any number of
    processes may run managers with the same projections on one database: each projection, or each of its
    `config.partitions`, belongs to one of them at a time, by a lease. When a process ends, others take over.

    Args:
        event_store: The log to follow and to rebuild from.
        checkpoint_store: Where positions are kept. None: in the event store's database where it has one, else on the
            projection objects, so that they start from position 0 in each process.
        config: Batch sizes, checkpoint interval, whether projections run in parallel.
        dead_letters: Where failing events go with `on_error="park"`.
        on_error: `"fault"` stops the projection before the failing event; `"park"` puts it in the dead letters with
            the later events of its aggregate behind it, and goes on.
        owner: With `config.shared`: identifies this worker; a fresh name if None.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; arguments that do not fit together.
    """

    def __init__(
        self,
        event_store: Any | None = None,
        checkpoint_store: Any | None = None,
        *,
        config: ProjectionConfig | None = None,
        dead_letters: DeadLetterStore | None = None,
        on_error: Literal["fault", "park"] = "fault",
        owner: str | None = None,
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
        self._parts: dict[str, ProjectionParts] = {}
        self._started = False
        self._owner = owner
        if config.shared and self._checkpoints is None:
            missing = "shared projections need a checkpoint store in a database; pass checkpoint_store=…"
            raise EventValidationError(missing, field="checkpoint_store")

    @property
    def event_store(self) -> Any:
        """The log that is followed."""
        return self._store

    def parts(self, name: str) -> ProjectionParts:
        """Return what runs a projection in this process.

        Raises:
            ProjectionNotFoundError: LEX_ERR_EVT_017.
        """
        return self._need(name)

    # Registration

    def register(self, projection: ProjectionProtocol | Any) -> None:
        """Add a projection; any object with `apply(event)` or `handle_event(event)`. A started manager starts it.

        Raises:
            EventValidationError: It is no projection, its name is taken, or its dependencies form a circle.
        """
        projection = as_projection(projection)
        name = projection.name
        if name in self._parts:
            raise EventValidationError(f"A projection named {name!r} is registered already", field="name")
        if projection.inline and self._started:
            raise EventValidationError(f"register {name!r} before start(): it is inline", field="inline")
        in_dependency_order([*(known.projection for known in self._parts.values()), projection])
        # A read model in memory is needed whole in every process.
        shared = self._config.shared and not projection.in_memory and not projection.inline
        parts = ProjectionParts(
            projection,
            self._reader,
            make_applier=self._applier,
            make_runner=partial(self._runner, projection),
            partitions=self._config.partitions if shared and not projection.needs_whole_order else 1,
            group=self._group(name) if shared else None,
        )
        self._parts[name] = parts
        if self._started:
            parts.start_soon()

    def _applier(self, projection: ProjectionProtocol, checkpoint_name: str) -> BatchApplier:
        return BatchApplier(
            projection,
            self._store,
            self._checkpoints,
            checkpoint_interval=self._config.checkpoint_interval,
            parked=None if self._dead_letters is None else ParkedEvents(self._dead_letters, projection.name),
            checkpoint_name=checkpoint_name,
        )

    def _runner(
        self,
        projection: ProjectionProtocol,
        applier: BatchApplier,
        reader: LogReader | PartitionReader | None,
        lease: tuple[LeaseGroup, Claim] | None,
    ) -> ProjectionRunner:
        versioned = getattr(projection, "_has_versions", False)
        make = partial(InlineRunner, self._store) if projection.inline else ProjectionRunner
        return make(
            applier,
            reader,
            turn=self._turn,
            # A version that is built beside another has a long way to go; live, batches are small anyway.
            batch_size=self._config.rebuild_batch_size if versioned else self._config.batch_size,
            before=lambda: [
                runner
                for other in projection.depends_on
                if other in self._parts
                for runner in self._parts[other].runners
            ],
            lease=lease,
        )

    def _group(self, name: str) -> LeaseGroup:
        assert self._checkpoints is not None
        return LeaseGroup(
            self._checkpoints,
            f"projection:{name}"[:100],
            owner=self._owner,
            lease_seconds=self._config.lease_seconds,
            watches_faults=True,
        )

    def unregister(self, name: str) -> bool:
        """Stop and forget a projection; its rows and checkpoint stay. Return whether it was registered."""
        parts = self._parts.pop(name, None)
        if parts is not None:
            parts.abandon()
        return parts is not None

    def get(self, name: str) -> ProjectionProtocol | None:
        """Return the projection of this name, or None."""
        parts = self._parts.get(name)
        return None if parts is None else parts.projection

    def get_all(self) -> list[ProjectionProtocol]:
        """Return all registered projections in order of registration."""
        return [parts.projection for parts in self._parts.values()]

    def get_status(self, name: str) -> dict[str, Any] | None:
        """Return name, state, position, lag, rate, errors of a projection; None if it is unknown."""
        parts = self._parts.get(name)
        return None if parts is None else parts.status()

    def list_status(self) -> list[dict[str, Any]]:
        """Return the status of every projection."""
        return [parts.status() for parts in self._parts.values()]

    # Following the log

    async def start(self) -> None:
        """Create the tables, load the positions and begin to follow the log; a second call does nothing.

        Returns before the projections have caught up, see `wait_for`. One that cannot be prepared is faulted.

        Raises:
            EventValidationError: The manager has no event store.
        """
        self._need_reader()
        self._started = True
        for parts in self._in_order():
            await parts.start()

    async def stop(self) -> None:
        """Stop following; batches in progress end or are rolled back, positions are stored. Twice is fine."""
        self._started = False
        try:
            await asyncio.gather(*(parts.stop() for parts in self._parts.values()))
        except asyncio.CancelledError:
            for parts in self._parts.values():
                parts.abandon()
            raise
        finally:
            if self._own_checkpoints is not None:
                await self._own_checkpoints.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait_for(self, name: str, position: int, timeout: float | None = None) -> None:
        """Return once the projection has processed everything up to `position`: read your own writes.

        The name of a read model stands for the version that its readers see.

        Args:
            position: Global position, as in `event.sequence_number` after an append.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It did not get there in time.
            ProjectionBuildError: LEX_ERR_EVT_015; the projection is faulted, in whatever process that happened.
            ProjectionNotFoundError: LEX_ERR_EVT_017.
        """
        parts = self._need(name if name in self._parts else await self._seen_version(name))
        try:
            async with asyncio.timeout(timeout):
                await parts.wait_for(position)
        except TimeoutError:
            status = parts.status()
            raise TimeoutError(
                f"Projection {name!r} is {status['state']} at position {status['position']}, "
                f"not yet at {position}, after {timeout} s"
            ) from None

    def pause(self, name: str) -> bool:
        """Stop a projection (a shared one everywhere); a batch in progress ends. Return whether the name is known."""
        parts = self._parts.get(name)
        if parts is not None:
            parts.pause()
        return parts is not None

    def resume(self, name: str) -> bool:
        """Let a paused or faulted projection go on from its position. Return whether the name is known.

        A shared one goes on everywhere; one that is faulted belongs to nobody, and this process takes it.
        """
        parts = self._parts.get(name)
        if parts is not None:
            parts.resume()
        return parts is not None

    # Handing in events

    async def process(self, event: Any, position: int | None = None) -> list[str]:
        """Hand one event to every projection that wants it, and return the names of those that applied it.

        A projection that follows the log is waited for instead. One that is past `position` ignores the event; one
        that fails is faulted and missing from the result; others are not affected.

        Args:
            position: Global position; the event's own `sequence_number` if None. Without either, positions stay.
        """
        number = position if position is not None else event.sequence_number
        return [runner.projection.name for runner in self._alone() if await hand_in(runner, event, number)]

    async def apply(self, event: Any) -> None:
        """`process`, as the framework's `ProjectionProtocol` names it."""
        await self.process(event)

    async def process_batch(self, events: list[tuple[Any, int]], parallel: bool = False) -> dict[str, int]:
        """Hand events with their positions, in order, to every projection; return how many each one applied.

        Args:
            parallel: Run projections concurrently; those that others depend on are finished first either way.
        """
        runners = self._alone()
        if parallel and not any(runner.projection.depends_on for runner in runners):
            counts = await asyncio.gather(*(hand_in_batch(runner, events) for runner in runners))
        else:
            counts = [await hand_in_batch(runner, events) for runner in runners]
        return {runner.projection.name: count for runner, count in zip(runners, counts, strict=True)}

    async def redeliver(self, event: Any, handler_name: str) -> Result[None, ProjectionBuildError]:
        """Apply one parked event again; `DeadLetterStore.replay(entry_id, manager)` calls this."""
        parts = self._parts.get(handler_name.removeprefix(PREFIX))
        return await redeliver(None if parts is None else parts.runners[0], event, handler_name)

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
        self._need_reader()
        runners, size = self._need(name).runners, self._batch(batch_size)
        return await rebuild(runners, from_position=from_position, batch_size=size, on_progress=on_progress)

    async def resume_rebuild(self, name: str, batch_size: int | None = None) -> int:
        """Go on with a rebuild that stopped or was killed, from its position; return how many events it handled."""
        self._need_reader()
        return await rebuild(self._need(name).runners, from_position=None, batch_size=self._batch(batch_size))

    async def rebuild_all(
        self, from_position: int = 0, batch_size: int | None = None, parallel: bool = False
    ) -> dict[str, int]:
        """Rebuild every projection, each after those it depends on; return the number of events each one handled."""
        names = [parts.name for parts in self._in_order()]
        if parallel and not any(parts.projection.depends_on for parts in self._parts.values()):
            counts = await asyncio.gather(*(self.rebuild(name, from_position, batch_size) for name in names))
            return dict(zip(names, counts, strict=True))
        return {name: await self.rebuild(name, from_position, batch_size) for name in names}

    async def reset_all(self) -> None:
        """Empty every read model and set every position to 0; a started manager then catches up again."""
        for parts in self._in_order():
            await reset(parts.runners, 0)

    # Internals

    def _in_order(self) -> list[ProjectionParts]:
        ordered = in_dependency_order([parts.projection for parts in self._parts.values()])
        return [self._parts[projection.name] for projection in ordered]

    def _alone(self) -> list[ProjectionRunner]:
        """Return the runners in order, for events that are handed in: nothing says to which partition those belong."""
        runners = [parts.runners for parts in self._in_order()]
        if any(len(several) > 1 for several in runners):
            raise EventValidationError("partitioned projections follow the log; use start()", field="partitions")
        return [runner for several in runners for runner in several]

    def _need(self, name: str) -> ProjectionParts:
        try:
            return self._parts[name]
        except KeyError:
            known = ", ".join(sorted(self._parts)) or "none"
            raise ProjectionNotFoundError(f"No projection is named {name!r}; registered: {known}") from None

    async def _seen_version(self, name: str) -> str:
        """Return the name of the version of a read model that readers see; the name itself if it has none here."""
        versions = [key for key, parts in self._parts.items() if getattr(parts.projection, "read_model", "") == name]
        if len(versions) < 2:  # then readers see this one, or cannot be waited for here
            return versions[0] if versions else name
        state = await ReadModel(self._store, name).state(self._need_reader().store.engine)
        return versions[0] if state is None else f"{name}@{state.active}"

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
