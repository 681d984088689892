"""Marks of processed messages on Redis. Source: spec/reference-surface.md."""

from __future__ import annotations

from typing import Any

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores.idempotency import AbstractIdempotencyStore
from lexigram.events.stores.redis.operations import Argument, SmallOperation
from lexigram.events.stores.redis.shared import RedisPart, log_of
from lexigram.events.stores.redis.small_scripts import IS_MARKED_SCRIPT
from lexigram.events.stores.unit_of_work import current_unit_of_work


class RedisIdempotencyStore(RedisPart, AbstractIdempotencyStore):
    """Marks in a namespace of Redis; they expire by the server's clock.

    Inside a unit of work of an event store that shares the namespace a mark counts once it is committed. A claim there
    is checked again at the end: if somebody else has claimed the message meanwhile, the unit of work fails with
    `ConcurrencyError` and writes nothing.

    Args:
        store: As for `RedisEventStore`; usually the event store itself.
        namespace: As for `RedisEventStore`.
    """

    def __init__(self, store: Any, namespace: str = "lexigram:events") -> None:
        self._use(log_of(store, namespace))

    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""
        return int(await (await self._ready()).execute(SmallOperation("clear_marks", ())))

    async def _is_joined(self) -> bool:
        return current_unit_of_work(await self._ready()) is not None

    async def _is_processed(self, consumer_id: str, message_id: str) -> bool:
        log = await self._ready()
        return bool(await log.evaluate(IS_MARKED_SCRIPT, _mark(consumer_id, message_id)))

    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        log = await self._ready()
        await log.apply(SmallOperation("mark", (_mark(consumer_id, message_id), _milliseconds(expires_in))))

    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        log = await self._ready()
        mark, lasts = _mark(consumer_id, message_id), _milliseconds(expires_in)
        unit: Any = current_unit_of_work(log)
        if unit is None:
            return bool(await log.execute(SmallOperation("claim", (mark, lasts, 0))))
        if ("claim", mark) in unit.notes:
            return False
        unit.notes["claim", mark] = True
        if await self._is_processed(consumer_id, message_id):
            return False

        def refused(_: int | None) -> ConcurrencyError:
            return ConcurrencyError(f"message {message_id} was claimed by somebody else meanwhile; nothing was written")

        await unit.add(SmallOperation("claim", (mark, lasts, 1), refused))
        return True


def _mark(consumer_id: str, message_id: str) -> str:
    return f"{consumer_id}\0{message_id}"


def _milliseconds(seconds: float | None) -> Argument:
    return "" if seconds is None else max(round(seconds * 1000), 1)
