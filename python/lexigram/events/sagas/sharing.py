"""Several processes share the sagas of one database, by leases on partitions of their ids. Source: design, sagas."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.engine import SagaEngine
from lexigram.events.sagas.types import now
from lexigram.events.stores._settled import stopped
from lexigram.events.stores.lease import LeaseGroup
from lexigram.events.stores.partition import partition_of

if TYPE_CHECKING:
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore
    from lexigram.events.stores.lease import Claim

_log = logging.getLogger(__name__)

_LOOK_SHARE = 20.0
"""So many times as long as a look takes, the next one waits at least."""
_LONGEST_PAUSE_SECONDS = 2.0
"""Unless that would be longer than this."""


class SagaSharing:
    """Lets a manager run its share of all unfinished sagas, while it is open.

    Every process opens one on the same database. A saga belongs to one process at a time; when that ends, or is not heard of
    for `lease_seconds`, another one goes on behind the last step that was stored. A process that was stopped and wakes up
    cannot store anything more: the saga's record has another version by then, and what its step appended in the same
    transaction is rolled back. Effects elsewhere may happen twice in that one case; give them `ctx.idempotency_key`.

    Args:
        engine: The saga manager or orchestrator, with all kinds of sagas registered.
        checkpoints: Where the leases are; usually the event store's `checkpoint_store()`.
        partitions: How finely sagas are divided, from 1; the same everywhere. More than there will ever be workers.
        works: False for a process that only starts sagas and waits for them.
        owner: Identifies this worker; a fresh name if None.
        lease_seconds: After so long without a sign of life others take over. Above 0.
        poll_seconds: How often the store is asked for sagas that others have started or left. Above 0.
    """

    def __init__(
        self,
        engine: SagaEngine,
        checkpoints: AbstractCheckpointStore,
        *,
        partitions: int = 64,
        works: bool = True,
        owner: str | None = None,
        lease_seconds: float = 30.0,
        poll_seconds: float = 0.5,
    ) -> None:
        if not isinstance(partitions, int) or partitions < 1:
            raise EventValidationError(f"partitions must be at least 1, got {partitions!r}", field="partitions")
        if not isinstance(poll_seconds, int | float) or not poll_seconds > 0:
            raise EventValidationError(f"poll_seconds must be above 0, got {poll_seconds!r}", field="poll_seconds")
        self._engine, self._partitions, self._poll = engine, partitions, float(poll_seconds)
        self._patience = float(lease_seconds)
        names = [f"sagas/{index + 1}of{partitions}" for index in range(partitions)] if works else []
        self.group = LeaseGroup(checkpoints, "sagas", names, owner=owner, lease_seconds=lease_seconds)
        self._works = works
        self._claims = [self.group.claims[name] for name in names]
        self._epochs = [0] * len(names)
        self._leaving: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None

    def owns(self, saga_id: str) -> bool:
        """Return whether this process runs the saga now."""
        if not self._works:
            return False
        index = partition_of(saga_id, self._partitions)
        return self._claims[index].is_held and index not in self._leaving

    async def start(self) -> None:
        """Take a share and go on with its unfinished sagas; twice is fine.

        Raises:
            SagaError: LEX_ERR_EVT_026; the steps of a saga in flight have changed. Nothing was started.
        """
        if self._task is None:
            if self._works:
                await self._engine.check_in_flight()
                await self.group.start()
            self._engine.sharing = self
            self._task = asyncio.get_running_loop().create_task(self._run(), name="shared sagas")

    async def stop(self, timeout: float = 10.0) -> None:
        """Give running sagas `timeout` seconds to end, then leave all of them to the others; twice is fine."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await stopped(task)
            await self._engine.close(timeout)
        finally:
            self._engine.sharing = None
            await self.group.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            began = time()
            try:
                await self._look()
            except Exception as error:  # the database may be away for a while
                _log.warning("shared sagas cannot be looked up: %s: %s", type(error).__name__, error)
            # A look reads every saga that is due: where thousands wait for their turn, the time is theirs.
            await asyncio.sleep(max(self._poll, min(_LOOK_SHARE * (time() - began), _LONGEST_PAUSE_SECONDS)))

    async def _look(self) -> None:
        """Leave what was lost or is wanted back, and run what is here and does not run."""
        for index, claim in enumerate(self._claims):
            if not claim.is_held or claim.epoch != self._epochs[index]:
                self._epochs[index] = claim.epoch if claim.is_held else 0
                self._leaving.pop(index, None)
                self._drop(index)
            elif claim.should_release:
                await self._leave(index, claim)
        if not any(claim.is_held for claim in self._claims):
            return
        soon = now() + timedelta(seconds=self._poll)
        for record in await self._engine.store.list_due(self._engine.saga_names, soon):
            if self.owns(record.saga_id):
                self._engine.go_on(record)

    async def _leave(self, index: int, claim: Claim) -> None:
        """Let the sagas of a partition end, for as long as a lease lasts; then hand it over."""
        present = asyncio.get_running_loop().time()
        until = self._leaving.setdefault(index, present + self._patience)
        if self._here(index) and present < until:
            return
        self._drop(index)
        del self._leaving[index]
        self._epochs[index] = 0
        await self.group.release(claim)

    def _here(self, index: int) -> list[str]:
        running = self._engine.running
        return [saga_id for saga_id in running if partition_of(saga_id, self._partitions) == index]

    def _drop(self, index: int) -> None:
        """Stop the sagas of a partition; a step in progress is rolled back where the store can do that."""
        for saga_id in self._here(index):
            self._engine.interrupt(saga_id)
