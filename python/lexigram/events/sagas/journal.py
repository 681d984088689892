"""Stores the state of one running saga, together with what the step changed in the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from lexigram.events.exceptions import ConcurrencyError, SagaError
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, copy_record

Transactions = Callable[[], AbstractAsyncContextManager[Any]]


class SagaJournal:
    """The last stored state of one saga. Changes are made on a draft and count once they are committed.

    Args:
        transactions: Opens a unit of work on the event store, or None where there is none.
        deferred: Opens one that locks nothing and is checked at its end, where there is such a thing.
    """

    def __init__(
        self,
        store: SagaStore,
        record: SagaRecord,
        transactions: Transactions | None,
        deferred: Transactions | None = None,
    ) -> None:
        self.record = record
        self.deferred = deferred
        self._store = store
        self._transactions = transactions
        self.taken_over = False
        self._attempted: SagaRecord | None = None

    @asynccontextmanager
    async def changing(self, *, atomic: bool = False, deferred: bool = False) -> AsyncIterator[SagaRecord]:
        """Yield a draft of the record and store it at the end; on any exception nothing has happened.

        Args:
            atomic: Run the block in a unit of work, so that what it appends and the record commit together.
            deferred: Take the unit of work that locks nothing; `ConcurrencyError` at its end means: once more, locked.
        """
        draft = copy_record(self.record)
        transactions = self.deferred if deferred else self._transactions
        if atomic and transactions is not None:
            async with transactions() as unit:
                yield draft
                together = self._store.joins(unit)
                if together:
                    await self._save(draft)
            if not together:  # another database: a crash just here repeats the step, and never loses it
                await self._save(draft)
        else:
            yield draft
            await self._save(draft)
        self.record = draft
        self._attempted = None

    async def was_ours(self) -> bool:
        """Return whether what is stored is our own last change, whose answer was lost: the commit came through."""
        return self._attempted is not None and await self._store.load(self.record.saga_id) == self._attempted

    async def check(self) -> None:
        """Find out whether the saga was changed by others.

        Raises:
            SagaError: LEX_ERR_EVT_026; it was.
        """
        stored = await self._store.load(self.record.saga_id)
        if stored is None or stored.version != self.record.version:
            self.taken_over = True
            raise SagaError(f"Saga {self.record.saga_id!r} was changed while this one ran it; nothing was written")

    async def _save(self, draft: SagaRecord) -> None:
        attempted, self._attempted = self._attempted, draft
        try:
            await self._store.save(draft)
        except ConcurrencyError as error:
            self._attempted = attempted
            self.taken_over = True
            raise SagaError(
                f"Saga {draft.saga_id!r} was changed by another process while this one ran it; nothing was written",
                cause=error,
            ) from error
