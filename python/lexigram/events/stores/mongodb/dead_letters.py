"""Dead letters on MongoDB: they survive restarts with their typed event. Source: spec/reference-surface.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, DeadLetterGroup, Lane
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.mongodb.database import (
    MongoCollections,
    MongoDatabase,
    after_commit,
    aggregated,
    insert_missing,
)
from lexigram.events.stores.mongodb.snapshot_store import as_bytes, stored
from lexigram.events.stores.unit_of_work import current_unit_of_work

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN: Final = ("event_type", "handler_name", "aggregate_id", "error", "error_type", "attempts", "waiting", "replayed")
_COUNTER: Final = {"_id": 0}
"""The document that counts positions; entries have texts as ids."""


class MongoDBDeadLetterStore(MongoCollections, DeadLetterStore):
    """Dead letters, one document each; inside a unit of work they are saved and removed after its commit.

    Args:
        config: As for `MongoDBEventStore`; usually the event store itself.
        codec: Encodes the events.
    """

    indexes = (
        ([("position", 1)], {"name": "by_position"}),
        ([("handler_name", 1), ("aggregate_id", 1), ("replayed", 1), ("position", 1)], {"name": "by_lane"}),
    )

    def __init__(self, config: Any, *, codec: EventCodec | None = None) -> None:
        DeadLetterStore.__init__(self)
        database = MongoDatabase(config)
        self._use(database, f"{database.settings.events}_dead_letters")
        self._codec = EventCodec() if codec is None else codec

    async def _put(self, entry: DeadLetterEntry) -> None:
        collection, key, document = await self._ready(), {"_id": entry.entry_id}, self._document(entry)

        async def store() -> int:
            while True:
                found = await collection.find_one(key, {"position": 1})
                if found is None:
                    position = await self._next_position(collection)
                    if await insert_missing(collection, {**key, **document, "position": position}):
                        return position
                elif (await collection.update_one(key, {"$set": document})).matched_count:
                    return int(found["position"])

        async def keep() -> None:
            entry.position = await self.mongo.write(store, "saving a dead letter")

        await after_commit(self.mongo, keep)

    async def _next_position(self, collection: Any) -> int:
        while True:
            counter = await collection.find_one_and_update(_COUNTER, {"$inc": {"count": 1}})
            if counter is not None:
                return int(counter["count"]) + 1
            await insert_missing(collection, {**_COUNTER, "count": 0})

    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        collection, chosen = await self._ready(), _filter(wanted, after)
        found = await self.mongo.read(
            lambda: collection.find(chosen, sort=[("position", 1)], limit=limit).to_list(None), "reading dead letters"
        )
        return [self._entry(document) for document in found]

    async def _count(self, wanted: DeadLetterFilter) -> int:
        collection, chosen = await self._ready(), _filter(wanted)
        return int(await self.mongo.read(lambda: collection.count_documents(chosen), "counting dead letters"))

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        collection, chosen = await self._ready(), _filter(wanted)
        remove = partial(self.mongo.write, lambda: collection.delete_many(chosen), "removing dead letters")
        if current_unit_of_work(self.mongo.root) is None:
            return int((await remove()).deleted_count)
        await after_commit(self.mongo, remove)
        return await self._count(wanted)

    async def _groups(self, wanted: DeadLetterFilter) -> list[tuple[DeadLetterGroup, int]]:
        collection, chosen = await self._ready(), _filter(wanted)
        key = {name: f"${name}" for name in ("error_type", "handler_name", "event_type")}
        numbers = {"count": {"$sum": 1}, "position": {"$min": "$position"}}
        times = {"first": {"$min": "$failed_at"}, "last": {"$max": "$failed_at"}}
        pipeline: list[dict[str, Any]] = [{"$match": chosen}, {"$group": {"_id": key, **numbers, **times}}]
        found = await self.mongo.read(lambda: aggregated(collection, pipeline), "grouping dead letters")
        return [
            (
                DeadLetterGroup(
                    **row["_id"],
                    count=int(row["count"]),
                    first_seen=_EPOCH + timedelta(microseconds=row["first"]),
                    last_seen=_EPOCH + timedelta(microseconds=row["last"]),
                ),
                int(row["position"]),
            )
            for row in found
        ]

    async def _last_position(self) -> int:
        collection = await self._ready()
        newest = [("position", -1)]
        found = await self.mongo.read(
            lambda: collection.find_one(_filter(DeadLetterFilter()), sort=newest), "reading dead letters"
        )
        return int(found["position"]) if found else 0

    async def _pending_lanes(self) -> list[Lane]:
        collection = await self._ready()
        lane = {"handler": "$handler_name", "aggregate": "$aggregate_id"}
        pipeline: list[dict[str, Any]] = [
            {"$match": {"position": {"$gt": 0}, "replayed": False, "aggregate_id": {"$ne": None}}},
            {"$group": {"_id": lane, "first": {"$min": "$position"}}},
            {"$sort": {"first": 1}},
        ]
        found = await self.mongo.read(lambda: aggregated(collection, pipeline), "reading lanes")
        return [(document["_id"]["handler"], document["_id"]["aggregate"]) for document in found]

    def _document(self, entry: DeadLetterEntry) -> dict[str, Any]:
        event: Any = entry.event
        encoded = None if event is None else self._codec.encode(event)
        return {
            **{name: getattr(entry, name) for name in _PLAIN},
            "failed_at": _microseconds(entry.failed_at),
            "replayed_at": None if entry.replayed_at is None else _microseconds(entry.replayed_at),
            "event_data": stored(self._codec.encode_value(entry.event_data)),
            "event": encoded
            and {
                "type_name": encoded.type_name,
                "payload": stored(encoded.payload),
                "version": getattr(event, "version", None) or 0,
                "position": getattr(event, "sequence_number", None),
            },
        }

    def _entry(self, document: dict[str, Any]) -> DeadLetterEntry:
        kept, replayed_at = document["event"], document["replayed_at"]
        event: Any = None
        if kept is not None:
            payload = as_bytes(kept["payload"])
            event = self._codec.decode(
                kept["type_name"], document["event_type"], payload, kept["version"], kept["position"]
            )
        return replace(
            DeadLetterEntry(**{name: document[name] for name in _PLAIN}),
            entry_id=document["_id"],
            position=int(document["position"]),
            failed_at=_EPOCH + timedelta(microseconds=document["failed_at"]),
            replayed_at=None if replayed_at is None else _EPOCH + timedelta(microseconds=replayed_at),
            event_data=self._codec.decode_value(as_bytes(document["event_data"])),
            event=event,
        )


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _filter(wanted: DeadLetterFilter, after: int = 0) -> dict[str, Any]:
    """Return the filter of the collection; the counter has no position and is never selected."""
    chosen: dict[str, Any] = {"position": {"$gt": after}}
    if wanted.up_to is not None:
        chosen["position"]["$lte"] = wanted.up_to
    for name in ("event_type", "handler_name", "aggregate_id", "replayed"):
        value = getattr(wanted, name)
        if value is not None:
            chosen[name] = value
    if wanted.entry_id is not None:
        chosen["_id"] = wanted.entry_id
    if wanted.failed_before is not None:
        chosen["failed_at"] = {"$lt": _microseconds(wanted.failed_before)}
    return chosen
