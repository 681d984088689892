"""One saga in this process, from its start or resumption to its end or next wait."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from lexigram.events.exceptions import AdapterConnectionError, EventLoadError, EventPersistenceError, SagaError
from lexigram.events.projections.base import settled
from lexigram.events.sagas.executor import SagaExecutor
from lexigram.events.sagas.progress import seconds_left
from lexigram.events.sagas.types import SagaRecord, check_readable

if TYPE_CHECKING:
    from lexigram.events.sagas.engine import SagaEngine

_log = logging.getLogger(__name__)

_AWAY = (AdapterConnectionError, EventLoadError, EventPersistenceError, ConnectionError)
_LONGEST_PAUSE_SECONDS = 5.0


class SagaRun:
    """Lets the executor do what there is to do, waits for the next moment without taking a place, and so on.

    Args:
        fresh: The record, if it has just been stored; otherwise it is read.
    """

    def __init__(self, engine: SagaEngine, saga_id: str, fresh: SagaRecord | None) -> None:
        self._engine, self._saga_id, self._fresh = engine, saga_id, fresh
        self._woken = False

    async def to_the_end(self) -> SagaRecord:
        """Return the record once the saga has ended, waits for events, or waits for an operator.

        A database that is away is waited for: the saga goes on from what was stored last.

        Raises:
            SagaError: LEX_ERR_EVT_026; another process runs the saga, or it is not there.
        """
        pause = 0.05
        while True:
            try:
                record = await self._go_on()
            except _AWAY as error:
                _log.warning("saga %s waits for its database: %s: %s", self._saga_id, type(error).__name__, error)
                self._fresh = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause = 0.05
            if record is not None:
                return record

    async def _go_on(self) -> SagaRecord | None:
        """Do what there is to do and wait until there is more; return the record if there is nothing to wait for here."""
        record = await self._until_owned()
        if record is not None:
            return record
        engine = self._engine
        async with engine._slots, engine.turn(self._saga_id):
            record = self._fresh or await engine._load(self._saga_id)
            if record.status.is_unfinished:
                check_readable(record)
            definition = engine._definition(record.saga_name)
            executor = engine._executor(definition, record, await settled(definition.make()))
            was_fresh, self._fresh = self._fresh is not None, None
            try:
                record = await executor.run(woken=self._woken)
            except SagaError:
                if executor.taken_over and (was_fresh or await self._may_go_on(executor)):
                    return None
                raise
        self._woken = executor.waits_for is None
        if not record.status.is_unfinished:
            return record
        if executor.waits_for is not None:
            await self._wait_for_child(record, executor.waits_for)
        elif record.waits_for_events:
            engine._alarms.set(self._saga_id, record.due_at)
            return record
        else:
            pause = executor.pause if executor.pause is not None else seconds_left(record.wake_at)
            limit = seconds_left(record.deadline) if record.status.is_forward else None
            left = [seconds for seconds in (pause, limit) if seconds is not None]
            await asyncio.sleep(max(0.0, min(left, default=0.0)))
        return None

    async def _may_go_on(self, executor: SagaExecutor) -> bool:
        """Return whether a saga that was changed meanwhile can be read again and go on here."""
        engine = self._engine
        interfered = self._saga_id in engine._interfered
        engine._interfered.discard(self._saga_id)
        return interfered or engine.sharing is not None or await executor.was_ours()

    async def _until_owned(self) -> SagaRecord | None:
        """Wait until this process runs the saga; return its record if there is nothing to run any more."""
        engine, pause = self._engine, 0.01
        while engine.sharing is not None and not engine.sharing.owns(self._saga_id):
            record = await engine._load(self._saga_id)
            if record.waits_for_events or not record.status.is_unfinished:
                return record
            await asyncio.sleep(pause)  # another process runs it, or will
            pause = min(pause * 2, 0.25)
        return None

    async def _wait_for_child(self, record: SagaRecord, child_id: str) -> None:
        """Return when another saga has ended, here or elsewhere, or this one's time is up."""
        engine = self._engine
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_left(record.deadline) if record.status.is_forward else None):
                await engine._end_of(child_id)
                while (await engine._load(child_id)).status.is_unfinished:  # noqa: ASYNC110 - events may end it anywhere
                    await asyncio.sleep(0.25)
