"""The inbox: a message that is delivered again has no second effect. Source: design/semantics.md, section 7."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.messages.context import id_of
from lexigram.events.stores._validation import check_text
from lexigram.events.stores.idempotency import check_expiry

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.idempotency import AbstractIdempotencyStore


class Inbox:
    """Runs a handler once per message id, with the mark in the transaction of what the handler writes.

    Where events and marks share a database (memory, SQLite, PostgreSQL, Redis) effect and mark are stored together.
    On MongoDB the mark is claimed before and confirmed after the commit: a process that ends in between leaves the
    message refused for five minutes, and then free to be handled a second time.

    Args:
        consumer_id: Names the consumer; each consumer handles every message once.
        store: The event store whose unit of work the handler runs in.
        marks: Where messages are marked; a store in the same database.
        expires_in: Seconds after which a mark is forgotten, above 0: longer than a broker redelivers. None = never.
    """

    def __init__(
        self,
        consumer_id: str,
        store: AbstractEventStore,
        marks: AbstractIdempotencyStore,
        *,
        expires_in: float | None = None,
    ) -> None:
        self.consumer_id = check_text(consumer_id, "consumer_id")
        self._store = store
        self._marks = marks
        self._expires_in = check_expiry(expires_in)

    async def once(self, message_id: str | UUID, work: Callable[[], Awaitable[Any] | Any]) -> bool:
        """Run `work` in a unit of work, unless this message was handled before; tell whether it ran.

        If it raises, nothing is stored and the next delivery runs it again.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, the message is being handled elsewhere right now; have it delivered
                again, do not confirm it.
            EventValidationError: LEX_ERR_EVT_024, the marks are in another database than the events.
        """
        async with self._store.unit_of_work():
            if not await self._marks._is_joined():
                raise EventValidationError(
                    "marks are not in the event store's database: a message whose handler fails would count as handled; "
                    "make them of the store or of its configuration",
                    field="marks",
                )
            if await self._marks.claim(self.consumer_id, message_id, self._expires_in):
                outcome = work()
                if inspect.isawaitable(outcome):
                    await outcome
                return True
        if not await self._marks.is_settled(self.consumer_id, message_id):
            raise ConcurrencyError(f"message {message_id} is being handled elsewhere; deliver it again")
        return False

    def handler(self, handle: Callable[[Any], Any]) -> Callable[[Any], Awaitable[bool]]:
        """Return `handle` as a handler that runs once per message; works as a decorator.

        The id is the message's `event_id`, else its `id`.
        """

        @functools.wraps(handle)
        async def handle_once(message: Any) -> bool:
            message_id = id_of(message)
            if message_id is None:
                raise EventValidationError(f"{type(message).__name__} has no id to be recognised by", field="message")
            return await self.once(message_id, lambda: handle(message))

        return handle_once
