"""Dead letters on Redis: they survive restarts with their typed event. Source: spec/reference-surface.md."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any, Final

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, Lane
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.redis.operations import SmallOperation
from lexigram.events.stores.redis.shared import RedisPart, log_of
from lexigram.events.stores.redis.small_scripts import LETTER_LIST_SCRIPT
from lexigram.events.stores.unit_of_work import current_unit_of_work

_PAGE_SIZE: Final = 500
_PLAIN: Final = tuple(
    field.name for field in dataclasses.fields(DeadLetterEntry) if field.name not in ("event", "position")
)


class RedisDeadLetterStore(RedisPart, DeadLetterStore):
    """Dead letters in a namespace of Redis. Filters other than entry id and pending lane look at all entries.

    Args:
        store: As for `RedisEventStore`; usually the event store itself.
        namespace: As for `RedisEventStore`.
        codec: Encodes the events.
    """

    def __init__(self, store: Any, namespace: str = "lexigram:events", *, codec: EventCodec | None = None) -> None:
        DeadLetterStore.__init__(self)
        self._use(log_of(store, namespace))
        self._codec = EventCodec() if codec is None else codec

    async def _put(self, entry: DeadLetterEntry) -> None:
        log = await self._ready()
        lane = "" if entry.lane is None or entry.replayed else "\0".join(entry.lane)
        operation = SmallOperation("letter", (entry.entry_id, lane, self._data(entry)))
        unit: Any = current_unit_of_work(log)
        position = await log.apply(operation)
        if unit is None:
            entry.position = position
            return
        outcome = unit.outcome

        def committed() -> None:
            entry.position = outcome.answer

        unit.on_commit(committed)

    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        found: list[DeadLetterEntry] = []
        async for entry in self._matching(wanted, after):
            found.append(entry)
            if len(found) == limit:
                break
        return found

    async def _count(self, wanted: DeadLetterFilter) -> int:
        return len([entry async for entry in self._matching(wanted)])

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        ids = [entry.entry_id async for entry in self._matching(wanted)]
        if not ids:
            return 0
        return int(await self.log.apply(SmallOperation("drop_letters", (len(ids), *ids))))

    async def _pending_lanes(self) -> list[Lane]:
        log = await self._ready()
        lanes = await log.connection.read("ZRANGE", f"{log.prefix}pending_lanes", 0, -1)
        return [(handler, aggregate) for handler, _, aggregate in (lane.decode().partition("\0") for lane in lanes)]

    async def _matching(self, wanted: DeadLetterFilter, after: int = 0) -> AsyncIterator[DeadLetterEntry]:
        """Yield the entries that match, by position: cost follows the lane where one is asked for."""
        log = await self._ready()
        if wanted.entry_id is not None:
            position = await log.connection.read("ZSCORE", f"{log.prefix}letters", wanted.entry_id)
            data = await log.connection.read("HGET", f"{log.prefix}letter_data", wanted.entry_id)
            pages = [] if position is None or data is None else [[int(float(position)), data]]
            for entry in map(self._entry, pages):
                if entry.position > after and wanted.matches(entry):
                    yield entry
            return
        source = "letters"
        if wanted.handler_name is not None and wanted.aggregate_id is not None and wanted.replayed is False:
            source = f"lane:{wanted.handler_name}\0{wanted.aggregate_id}"
        while True:
            letters = await log.evaluate(LETTER_LIST_SCRIPT, source, after, _PAGE_SIZE)
            for entry in map(self._entry, letters):
                if wanted.matches(entry):
                    yield entry
            if len(letters) < _PAGE_SIZE:
                return
            after = letters[-1][0]

    def _data(self, entry: DeadLetterEntry) -> bytes:
        event: Any = entry.event
        data: dict[str, Any] = {name: getattr(entry, name) for name in _PLAIN}
        if event is not None:
            encoded = self._codec.encode(event)
            data["event"] = (encoded.type_name, encoded.payload, event.version, event.sequence_number)
        return self._codec.encode_value(data)

    def _entry(self, letter: list[Any]) -> DeadLetterEntry:
        position, data = letter
        values = self._codec.decode_value(data)
        stored = values.pop("event", None)
        event: Any = None
        if stored is not None:
            type_name, payload, version, sequence_number = stored
            event = self._codec.decode(type_name, values["event_type"], payload, version or 0, sequence_number)
        known = {name: value for name, value in values.items() if name in _PLAIN}
        return DeadLetterEntry(**known, event=event, position=position)
