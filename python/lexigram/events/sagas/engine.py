"""Starts, resumes and ends sagas, each in a task of its own. Source: design, section sagas."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from lexigram.events.exceptions import EventValidationError, SagaError
from lexigram.events.projections.base import settled
from lexigram.events.sagas.alarms import Alarms
from lexigram.events.sagas.children import Children
from lexigram.events.sagas.context import SagaContext, Services
from lexigram.events.sagas.definition import SagaDefinition
from lexigram.events.sagas.executor import Defaults, SagaExecutor
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.progress import describe
from lexigram.events.sagas.run import SagaRun
from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.sagas.types import UNFINISHED, SagaRecord, SagaStatus, check_readable, copy_record, now
from lexigram.events.stores._settled import stopped
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.config import SagaConfig
    from lexigram.events.sagas.sharing import SagaSharing

_log = logging.getLogger(__name__)

MAX_CONCURRENT_SAGAS = 64


class SagaEngine:
    """Runs sagas of all registered definitions, each in a task of its own, at most one task per saga.

    Args:
        store: Where sagas are kept; None keeps them in this process only.
        event_store: Steps run in its unit of work; None takes that of the saga store, if it has one.
        services: What steps find in `ctx.services`: a mapping, an object, or a container.
        config: Retries, timeouts, compensation.
        max_concurrent: Sagas that run at the same time, from 1; further ones wait.
    """

    def __init__(
        self,
        store: SagaStore | None = None,
        *,
        event_store: Any | None = None,
        services: Any | None = None,
        config: SagaConfig | None = None,
        max_concurrent: int = MAX_CONCURRENT_SAGAS,
    ) -> None:
        if config is None:
            from lexigram.events.config import SagaConfig as config_class

            config = config_class()
        if max_concurrent < 1:
            raise EventValidationError(
                f"max_concurrent must be at least 1, not {max_concurrent}", field="max_concurrent"
            )
        self.store: SagaStore = InMemorySagaStore() if store is None else store
        self._log = event_store
        self._transactions = getattr(event_store, "unit_of_work", None) or getattr(self.store, "unit_of_work", None)
        self._deferred = getattr(event_store, "deferred_unit_of_work", None)
        self._services = services if isinstance(services, Services) else Services(services)
        self._timeout = config.default_timeout_seconds
        self._defaults = Defaults(config.max_retries_per_step, config.retry_delay_seconds, config.enable_compensation)
        self._definitions: dict[str, SagaDefinition] = {}
        self._running: dict[str, asyncio.Task[SagaRecord]] = {}
        self._slots = asyncio.Semaphore(max_concurrent)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self._interfered: set[str] = set()
        self._unread: set[str] = set()
        self._alarms = Alarms(self._ring)
        self._children = Children(self)
        self._bus: Any | None = None
        self.sharing: SagaSharing | None = None
        """Says which sagas this process runs, where several share them; set by `SagaSharing`."""

    @property
    def saga_names(self) -> list[str]:
        """Names of all registered sagas."""
        return list(self._definitions)

    @property
    def running(self) -> list[str]:
        """Ids of the sagas that run in this process now."""
        return list(self._running)

    # Starting

    async def start(
        self,
        saga_name: str,
        data: Mapping[str, Any] | None = None,
        saga_id: UUID | str | None = None,
        *,
        wait: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Store a new saga, run it, and return its id.

        The saga runs in a task of its own: cancelling the caller does not stop it. Starting an id that exists already
        starts nothing and returns it, so a repeated request has one effect.

        Args:
            data: What its steps find in `ctx.data`.
            saga_id: Its id, kept as text; a random one if None.
            wait: Return when it has ended (or waits for an operator, or for events); False returns when it is stored.

        Raises:
            SagaError: LEX_ERR_EVT_026; the name is unknown, or the id belongs to another kind of saga.
            EventValidationError: LEX_ERR_EVT_024; the data is no mapping, or the id neither str nor UUID.
        """
        definition = self._definition(saga_name)
        if data is not None and not isinstance(data, Mapping):
            raise EventValidationError(f"data must be a dict, not {type(data).__name__}", field="data")
        if saga_id is not None and not isinstance(saga_id, str | UUID):
            raise EventValidationError(f"saga_id must be a str or UUID, not {type(saga_id).__name__}", field="saga_id")
        if saga_id == "":
            raise EventValidationError("saga_id must not be empty", field="saga_id")
        record = self._new_record(definition, dict(data or {}), str(saga_id or uuid4()), metadata)
        fresh = await self.store.create(record)
        if not fresh:
            known = await self.store.load(record.saga_id)
            if known is not None and known.saga_name != saga_name:
                raise SagaError(f"{record.saga_id!r} is a saga of kind {known.saga_name!r}, not {saga_name!r}")
            if known is None or not known.status.is_unfinished:
                return record.saga_id
        self._spawn(record.saga_id, copy_record(record) if fresh and current_unit_of_work() is None else None)
        if wait:
            await self._end_of(record.saga_id)
        return record.saga_id

    async def resume(self, *, wait: bool = True) -> list[str]:
        """Go on with every saga that had not ended when its process stopped; return their ids.

        Call it once after registration, when the program starts. A finished step is not run again.

        Args:
            wait: Return when they have ended, or wait for events; False returns when all of them run.

        Raises:
            SagaError: LEX_ERR_EVT_026; the steps of a saga in flight have changed. Names them; none was resumed.
        """
        records = await self.check_in_flight()
        tasks = [self._spawn(record.saga_id) for record in records if not self._is_unread(record)]
        if wait:
            await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        return [record.saga_id for record in records]

    async def check_in_flight(self) -> list[SagaRecord]:
        """Return every saga of a registered kind that has not ended; the log warns of those of other kinds.

        Raises:
            SagaError: LEX_ERR_EVT_026; the steps of some of them have changed. Names them.
        """
        records = await self.store.list_by_status(UNFINISHED, self.saga_names)
        await self._check_steps(records)
        await self._warn_of_strangers()
        return records

    async def _warn_of_strangers(self) -> None:
        """Tell of sagas in flight that no class is registered for: it was removed or renamed, or another program has it."""
        names = set(await self.store.list_names()) - self._definitions.keys()
        strangers = Counter(record.saga_name for record in await self.store.list_by_status(UNFINISHED, names))
        for name, count in sorted(strangers.items()):
            _log.warning(
                "%d sagas named %r are in flight and do not go on here, as no saga of this name is registered: "
                "register one, or end them with force_complete, unless another program runs them",
                count,
                name,
            )

    def go_on(self, record: SagaRecord) -> None:
        """Run a stored saga in the background, unless it runs already, has nothing to do yet, or cannot be read here."""
        if self._is_unread(record):
            return
        if record.waits_for_events and record.saga_id not in self._running:
            self._alarms.set(record.saga_id, record.due_at)
        else:
            self._spawn(record.saga_id)

    def _is_unread(self, record: SagaRecord) -> bool:
        """Return whether a saga cannot go on here; the log says so once."""
        try:
            check_readable(record)
        except SagaError as error:
            if record.saga_id not in self._unread:
                self._unread.add(record.saga_id)
                _log.warning("%s", error.message)
            return True
        return False

    def interrupt(self, saga_id: str) -> None:
        """Stop running a saga here; it goes on behind the last step stored, wherever it is run next."""
        self._alarms.cancel(saga_id)
        task = self._running.pop(saga_id, None)
        if task is not None:
            task.cancel()

    # Ending

    async def close(self, timeout: float = 10.0) -> list[str]:
        """Give running sagas `timeout` seconds to end, then stop them; return the ids to be resumed next time."""
        self._alarms.clear()
        tasks = dict(self._running)
        left: list[str] = []
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=timeout)
        finally:
            left += [saga_id for saga_id, task in tasks.items() if not task.done()]
            await stopped(*(tasks[saga_id] for saga_id in left))
        return left

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # For sagas that react to events

    def context_of(self, record: SagaRecord) -> SagaContext:
        """Return what user code sees of a saga between steps."""
        check_readable(record)
        outputs = {name: step.output for name, step in record.steps.items() if step.is_done}
        context = SagaContext(record.saga_id, record.saga_name, record.data, outputs, record.metadata, self._services)
        context.timers = record.timers
        return context

    @asynccontextmanager
    async def turn(self, saga_id: str) -> AsyncIterator[None]:
        """Exclude other events of the same saga, and wait until none of its steps runs.

        Inside a unit of work there is no waiting, as a step in progress may need the database that the unit has locked;
        nor inside a step of the saga itself. The step finds out that the saga was changed meanwhile, is rolled back, and
        runs again.
        """
        running = self._running.get(saga_id)
        is_inside = running is asyncio.current_task() and saga_id in self._turns
        if current_unit_of_work() is not None or is_inside:
            if running is not None:
                self._interfered.add(saga_id)
            yield
            return
        lock, users = self._turns.get(saga_id, (asyncio.Lock(), 0))
        self._turns[saga_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._turns[saga_id][1] - 1
            if users:
                self._turns[saga_id] = (lock, users)
            else:
                del self._turns[saga_id]

    # Internals

    def _define(self, definition: SagaDefinition) -> None:
        if definition.name in self._definitions:
            raise EventValidationError(f"A saga named {definition.name!r} is registered already", field="name")
        self._definitions[definition.name] = definition

    def _definition(self, name: str) -> SagaDefinition:
        try:
            return self._definitions[name]
        except KeyError:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise SagaError(f"No saga is named {name!r}; registered: {known}") from None

    def _new_record(
        self, definition: SagaDefinition, data: dict[str, Any], saga_id: str, metadata: dict[str, Any] | None
    ) -> SagaRecord:
        return SagaRecord(
            saga_id,
            definition.name,
            SagaStatus.STARTED,
            dict(data),
            metadata=dict(metadata or {}),
            cursor=definition.first(),
            step_order=definition.step_names,
            deadline=self._deadline(definition),
        )

    def _deadline(self, definition: SagaDefinition) -> datetime | None:
        seconds = definition.timeout or self._timeout
        return None if math.isinf(seconds) else now() + timedelta(seconds=seconds)

    def _executor(self, definition: SagaDefinition, record: SagaRecord, saga: Any) -> SagaExecutor:
        journal = SagaJournal(self.store, record, self._transactions, self._deferred)
        return SagaExecutor(journal, definition, saga, self._services, self._defaults, self._children, self._bus)

    def _spawn(self, saga_id: str, fresh: SagaRecord | None = None) -> asyncio.Task[SagaRecord]:
        """Run a saga in a task with a context of its own: it must not inherit the caller's unit of work.

        Args:
            fresh: The record, if it has just been stored; otherwise it is read.
        """
        task = self._running.get(saga_id)
        if task is None:
            context = contextvars.Context()
            task = asyncio.get_running_loop().create_task(
                SagaRun(self, saga_id, fresh).to_the_end(), name=f"saga {saga_id}", context=context
            )
            self._running[saga_id] = task
            task.add_done_callback(lambda done: self._ended(saga_id, done))
        return task

    def _ended(self, saga_id: str, task: asyncio.Task[SagaRecord]) -> None:
        if self._running.get(saga_id) is task:
            del self._running[saga_id]
            self._interfered.discard(saga_id)
        if not task.cancelled() and task.exception() is not None:
            from lexigram.logging import get_logger

            get_logger(__name__).error("saga_stopped", saga_id=saga_id, error=describe(task.exception()))  # type: ignore[arg-type]

    def _ring(self, saga_id: str) -> None:
        """Wake a saga whose timer or deadline is due, if it is still this process that runs it."""
        if self.sharing is None or self.sharing.owns(saga_id):
            self._spawn(saga_id)

    async def _end_of(self, saga_id: str) -> None:
        """Return when the saga has ended, or waits for an operator or events; in whatever process that happens."""
        while True:
            task = self._spawn(saga_id)
            try:
                await asyncio.shield(task)
                return
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if self.sharing is None or not task.cancelled() or (caller is not None and caller.cancelling()):
                    raise  # the caller was cancelled, alone or with everything else, or the engine closed

    async def turn_back(self, saga_id: str, error: str) -> SagaRecord:
        """Stop a saga where it is and store that its finished steps are to be undone; `go_on` undoes them."""
        task = self._running.get(saga_id)
        if task is not None:
            await stopped(task)
        self._alarms.cancel(saga_id)
        record = await self._stopped(saga_id, "cancelled")
        definition = self._definition(record.saga_name)
        executor = self._executor(definition, record, await settled(definition.make()))
        if executor.has_to_undo(record):
            check_readable(record)
        async with executor.changing() as draft:
            draft.error, draft.completed_at, draft.wake_at = error, None, None
            executor.begin_compensation(draft, "cancelled")
        return executor.record

    async def _load(self, saga_id: str) -> SagaRecord:
        record = await self.store.load(saga_id)
        if record is None:
            raise SagaError(f"There is no saga {saga_id!r}")
        return record

    async def _stopped(self, saga_id: str, verb: str) -> SagaRecord:
        if saga_id in self._running:
            raise SagaError(f"Saga {saga_id!r} runs now and cannot be {verb}; cancel it or wait for it")
        return await self._load(saga_id)

    async def _check_steps(self, records: Iterable[SagaRecord]) -> None:
        """Refuse to resume anything while the steps of a saga in flight are not those it began with."""
        changed = []
        for record in records:
            definition = self._definition(record.saga_name)
            saga = await settled(definition.make())
            accepts = getattr(saga, "accepts_steps", lambda stored, present: stored == present)
            if not accepts(record.step_order, definition.step_names):
                changed.append((record, definition.step_names))
        if changed:
            lines = [
                f"{record.saga_name} {record.saga_id} ({record.status.value} at {record.cursor}): "
                f"began with {record.step_order}, now {present}"
                for record, present in changed
            ]
            raise SagaError(
                "The steps of sagas in flight have changed; finish them with the old program, cancel them, or override "
                "accepts_steps: " + "; ".join(lines[:20]),
                details={"saga_ids": [record.saga_id for record, _ in changed]},
            )
