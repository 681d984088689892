"""Stores the state of one running saga, together with what the step changed in the same database."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from lexigram.events.exceptions import ConcurrencyError, SagaError
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord

Transactions = Callable[[], AbstractAsyncContextManager[Any]]


class SagaJournal:
    """The last stored state of one saga. Changes are made on a draft and count once they are committed.

    Args:
        transactions: Opens a unit of work on the event store, or None where there is none.
    """

    def __init__(self, store: SagaStore, record: SagaRecord, transactions: Transactions | None) -> None:
        self.record = record
        self._store = store
        self._transactions = transactions
        self.taken_over = False

    @asynccontextmanager
    async def changing(self, *, atomic: bool = False) -> AsyncIterator[SagaRecord]:
        """Yield a draft of the record and store it at the end; on any exception nothing has happened.

        Args:
            atomic: Run the block in a unit of work, so that what it appends and the record commit together.
        """
        draft = copy.deepcopy(self.record)
        if atomic and self._transactions is not None:
            async with self._transactions():
                yield draft
                await self._save(draft)
        else:
            yield draft
            await self._save(draft)
        self.record = draft

    async def _save(self, draft: SagaRecord) -> None:
        try:
            await self._store.save(draft)
        except ConcurrencyError as error:
            self.taken_over = True
            raise SagaError(
                f"Saga {draft.saga_id!r} was changed by another process while this one ran it; nothing was written",
                cause=error,
            ) from error
