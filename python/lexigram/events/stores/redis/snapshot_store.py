"""Snapshots on Redis. Source: spec/reference-surface.md."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores.redis.operations import SmallOperation
from lexigram.events.stores.redis.shared import RedisPart, log_of
from lexigram.events.stores.redis.small_scripts import SNAPSHOT_SCRIPT
from lexigram.events.types import Snapshot


class RedisSnapshotStore(RedisPart, AbstractSnapshotStore):
    """Snapshots in a namespace of Redis; a unit of work of an event store that shares it includes them.

    Args:
        store: As for `RedisEventStore`; usually the event store itself.
        namespace: As for `RedisEventStore`.
        codec: Encodes the states; values of every type that events can hold survive.
    """

    def __init__(self, store: Any, namespace: str = "lexigram:events", *, codec: EventCodec | None = None) -> None:
        self._use(log_of(store, namespace))
        self._codec = EventCodec() if codec is None else codec

    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        taken = snapshot.timestamp if snapshot.timestamp.tzinfo else snapshot.timestamp.replace(tzinfo=UTC)
        data = {
            "aggregate_id": snapshot.aggregate_id,
            "aggregate_type": snapshot.aggregate_type,
            "version": snapshot.version,
            "state": snapshot.state,
            "timestamp": taken,
            "metadata": snapshot.metadata,
        }
        values = (aggregate_id, snapshot.version, self._codec.encode_value(data))
        await self.log.apply(SmallOperation("snapshot", values))

    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        data = await self.log.evaluate(SNAPSHOT_SCRIPT, aggregate_id, "" if version is None else version)
        return None if data is None else Snapshot(**self._codec.decode_value(data))

    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        operation = SmallOperation("drop_snapshots", (aggregate_id, min(keep_count, 2**31)))
        return int(await self.log.apply(operation))
