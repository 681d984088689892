"""Snapshots on MongoDB. Source: spec/api-reference.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores.mongodb.database import MongoCollections, MongoDatabase, after_commit, put
from lexigram.events.stores.unit_of_work import current_unit_of_work
from lexigram.events.types import Snapshot

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MongoDBSnapshotStore(MongoCollections, AbstractSnapshotStore):
    """Snapshots in one collection; inside a unit of work they are saved after its commit.

    Args:
        config: `MongoDBConfig`, a URL and everything else that `MongoDBEventStore` takes; often the event store itself.
        codec: Encodes the states; values of every type that events can hold survive.
    """

    indexes = (([("aggregate_id", 1), ("version", -1)], {"name": "by_aggregate", "unique": True}),)

    def __init__(self, config: Any, *, codec: EventCodec | None = None) -> None:
        database = MongoDatabase(config)
        self._use(database, database.settings.snapshots)
        self._codec = EventCodec() if codec is None else codec

    @property
    def snapshots(self) -> Any:
        """The driver's collection. Raises before `connect`."""
        return self.mongo.collection(name=self.mongo.settings.snapshots)

    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        encode = self._codec.encode_value
        taken = snapshot.timestamp if snapshot.timestamp.tzinfo else snapshot.timestamp.replace(tzinfo=UTC)
        document = {
            "_id": {"aggregate_id": aggregate_id, "version": snapshot.version},
            "aggregate_id": aggregate_id,
            "version": snapshot.version,
            "aggregate_type": snapshot.aggregate_type,
            "taken_at": (taken - _EPOCH) // timedelta(microseconds=1),
            "state": stored(encode(snapshot.state)),
            # The id is also kept with its type: a UUID comes back as one.
            "about": stored(encode({"aggregate_id": snapshot.aggregate_id, "metadata": snapshot.metadata})),
        }
        save = partial(self.mongo.write, partial(put, self.snapshots, document), "saving a snapshot")
        await after_commit(self.mongo, save)

    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        wanted: dict[str, Any] = {"aggregate_id": aggregate_id}
        if version is not None:
            wanted["version"] = version
        document = await self.mongo.read(
            lambda: self.snapshots.find_one(wanted, sort=[("version", -1)]), "loading a snapshot"
        )
        if document is None:
            return None
        about = self._codec.decode_value(as_bytes(document["about"]))
        return Snapshot(
            aggregate_id=about["aggregate_id"],
            aggregate_type=document["aggregate_type"],
            version=int(document["version"]),
            state=self._codec.decode_value(as_bytes(document["state"])),
            timestamp=_EPOCH + timedelta(microseconds=int(document["taken_at"])),
            metadata=about["metadata"],
        )

    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        async def delete() -> int:
            found = await self.snapshots.find(
                {"aggregate_id": aggregate_id}, {"version": 1}, sort=[("version", -1)], skip=keep_count, limit=1
            ).to_list(None)
            if not found:
                return 0
            old = {"aggregate_id": aggregate_id, "version": {"$lte": found[0]["version"]}}
            return int((await self.snapshots.delete_many(old)).deleted_count)

        remove = partial(self.mongo.write, delete, "removing snapshots")
        if current_unit_of_work(self.mongo.root) is None:
            return int(await remove())
        wanted = {"aggregate_id": aggregate_id}
        count = await self.mongo.read(lambda: self.snapshots.count_documents(wanted), "counting snapshots")
        await after_commit(self.mongo, remove)
        return max(0, int(count) - keep_count)


def stored(data: bytes) -> str | bytes:
    """Return JSON as text, readable to people, and anything else as it is."""
    try:
        return data.decode() if data[:1] in b'{["' else data
    except UnicodeDecodeError:
        return data


def as_bytes(data: str | bytes) -> bytes:
    """Return what `stored` was given."""
    return data.encode() if isinstance(data, str) else bytes(data)
