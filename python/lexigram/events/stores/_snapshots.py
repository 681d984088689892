"""Snapshots: the state of an aggregate at a version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lexigram.contracts.events.protocols.store import SnapshotStoreProtocol
from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._life import StoreLife
from lexigram.events.stores._validation import check_id, check_number
from lexigram.events.types import Snapshot

if TYPE_CHECKING:
    from uuid import UUID


class AbstractSnapshotStore(StoreLife, SnapshotStoreProtocol, ABC):
    """Base of all snapshot stores. Ids are UUID or string and compared as strings.

    Backends implement `_open`, `_close`, `_save`, `_load` and `_delete_old`.
    """

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Store a snapshot; one of the same aggregate and version is replaced.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. SerializationError: LEX_ERR_EVT_025.
        """
        if not isinstance(snapshot, Snapshot):
            raise EventValidationError(f"snapshot must be a Snapshot, got {type(snapshot).__name__}", field="snapshot")
        check_number(snapshot.version, "version")
        aggregate_id = check_id(snapshot.aggregate_id, "aggregate_id")
        await self._ready()
        await self._save(aggregate_id, snapshot)

    async def save(self, aggregate_id: Snapshot | UUID | str, snapshot: Any = None, version: int | None = None) -> None:
        """Store a snapshot, given as a `Snapshot` alone or as id, state and version (the contract's form).

        Args:
            aggregate_id: A `Snapshot`, then nothing else; or the aggregate's id.
            snapshot: The state, a mapping; or a `Snapshot`, whose state is then taken.
            version: Version of the aggregate, at least 0.
        """
        if isinstance(aggregate_id, Snapshot):
            if snapshot is not None or version is not None:
                raise EventValidationError("save(Snapshot) takes nothing else", field="snapshot")
            await self.save_snapshot(aggregate_id)
            return
        if version is None:
            raise EventValidationError("save(id, state, version) needs the version", field="version")
        check_id(aggregate_id, "aggregate_id")
        is_full = isinstance(snapshot, Snapshot)
        state = snapshot.state if is_full else snapshot
        if not isinstance(state, Mapping):
            raise EventValidationError(f"the state must be a mapping, got {type(state).__name__}", field="snapshot")
        await self.save_snapshot(
            Snapshot(
                aggregate_id=aggregate_id,
                aggregate_type=snapshot.aggregate_type if is_full else "",
                version=check_number(version, "version"),
                state=dict(state),
            )
        )

    async def load(self, aggregate_id: UUID | str) -> tuple[Any, int] | None:
        """Return (state, version) of the latest snapshot, or None."""
        snapshot = await self.get_latest(aggregate_id)
        return None if snapshot is None else (snapshot.state, snapshot.version)

    async def get_latest(self, aggregate_id: UUID | str) -> Snapshot | None:
        """Return the snapshot with the highest version, or None."""
        key = check_id(aggregate_id, "aggregate_id")
        await self._ready()
        return await self._load(key, None)

    async def get_by_version(self, aggregate_id: UUID | str, version: int) -> Snapshot | None:
        """Return the snapshot of exactly this version, or None."""
        key = check_id(aggregate_id, "aggregate_id")
        check_number(version, "version")
        await self._ready()
        return await self._load(key, version)

    async def delete_old_snapshots(self, aggregate_id: UUID | str, keep_count: int = 3) -> int:
        """Remove all but the `keep_count` latest snapshots of an aggregate; return how many were removed."""
        key = check_id(aggregate_id, "aggregate_id")
        check_number(keep_count, "keep_count")
        await self._ready()
        return await self._delete_old(key, keep_count)

    async def delete(self, aggregate_id: UUID | str) -> None:
        """Remove all snapshots of an aggregate."""
        key = check_id(aggregate_id, "aggregate_id")
        await self._ready()
        await self._delete_old(key, 0)

    @abstractmethod
    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        """Store or replace; later changes of `snapshot.state` must not reach what is stored."""

    @abstractmethod
    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        """Return the snapshot of a version (None: the highest); the caller may change what it gets."""

    @abstractmethod
    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        """Remove all but the latest `keep_count`; return how many."""
