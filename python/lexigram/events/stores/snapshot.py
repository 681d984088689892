"""When snapshots are taken, and loading with their help. Source: spec/architecture.md, "Snapshot strategies"."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol
from lexigram.events.exceptions import EventLoadError, EventValidationError
from lexigram.events.messages.callables import check_event_store, check_snapshot_store
from lexigram.events.messages.clock import now
from lexigram.events.types import Snapshot, SnapshotStrategy

if TYPE_CHECKING:
    from lexigram.events.config import SnapshotConfig

logger = logging.getLogger(__name__)

TAggregate = TypeVar("TAggregate")

DEFAULT_KEEP_COUNT = 5


class SnapshotPolicy(ABC):
    """Decides after each save whether a snapshot is due."""

    @abstractmethod
    def should_snapshot(
        self,
        events_since_snapshot: int,
        last_snapshot_time: datetime | None = None,
        aggregate_version: int = 0,
    ) -> bool:
        """Return whether a snapshot is due.

        Args:
            events_since_snapshot: Events saved after the latest snapshot, at least 0.
            last_snapshot_time: When the latest snapshot was taken, timezone-aware; None if there is none.
            aggregate_version: Version just saved.
        """


class EventCountPolicy(SnapshotPolicy):
    """A snapshot after every `event_threshold` events.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, the threshold is not an int of at least 1.
    """

    def __init__(self, event_threshold: int = 100) -> None:
        self.event_threshold = _at_least_one(event_threshold, "event_threshold")

    def should_snapshot(
        self,
        events_since_snapshot: int,
        last_snapshot_time: datetime | None = None,
        aggregate_version: int = 0,
    ) -> bool:
        """Return whether the threshold is reached."""
        return events_since_snapshot >= self.event_threshold


class TimeBasedPolicy(SnapshotPolicy):
    """A snapshot at the first save that is `interval_seconds` or more after the latest one (or if there is none).

    Raises:
        EventValidationError: LEX_ERR_EVT_024, the interval is not an int of at least 1.
    """

    def __init__(self, interval_seconds: int = 3600) -> None:
        self.interval_seconds = _at_least_one(interval_seconds, "interval_seconds")

    def should_snapshot(
        self,
        events_since_snapshot: int,
        last_snapshot_time: datetime | None = None,
        aggregate_version: int = 0,
    ) -> bool:
        """Return whether the interval has passed; without new events nothing is due."""
        if events_since_snapshot <= 0:
            return False
        if last_snapshot_time is None:
            return True
        if last_snapshot_time.tzinfo is None:
            last_snapshot_time = last_snapshot_time.replace(tzinfo=UTC)
        # A snapshot of the future was taken before the clock was set back.
        return abs((now() - last_snapshot_time).total_seconds()) >= self.interval_seconds


class OnDemandPolicy(SnapshotPolicy):
    """No snapshot by itself; only `force_snapshot` takes one."""

    def should_snapshot(
        self,
        events_since_snapshot: int,
        last_snapshot_time: datetime | None = None,
        aggregate_version: int = 0,
    ) -> bool:
        """Return False."""
        return False


class CompositePolicy(SnapshotPolicy):
    """Several policies: a snapshot is due if any of them (or, with `require_all`, each of them) says so.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, no policy given or not a policy.
    """

    def __init__(self, policies: list[SnapshotPolicy], require_all: bool = False) -> None:
        if not policies or not all(isinstance(policy, SnapshotPolicy) for policy in policies):
            raise EventValidationError("policies must be a non-empty list of SnapshotPolicy objects", field="policies")
        self.policies = list(policies)
        self.require_all = require_all

    def should_snapshot(
        self,
        events_since_snapshot: int,
        last_snapshot_time: datetime | None = None,
        aggregate_version: int = 0,
    ) -> bool:
        """Return what the policies say together."""
        votes = (p.should_snapshot(events_since_snapshot, last_snapshot_time, aggregate_version) for p in self.policies)
        return all(votes) if self.require_all else any(votes)


def policy_from_config(config: SnapshotConfig) -> SnapshotPolicy:
    """Return the policy that a configuration section describes; one that is not enabled is `OnDemandPolicy`."""
    if not config.enabled or config.strategy == SnapshotStrategy.ON_DEMAND:
        return OnDemandPolicy()
    if config.strategy == SnapshotStrategy.TIME_BASED:
        return TimeBasedPolicy(config.time_threshold_seconds)
    return EventCountPolicy(config.event_count_threshold)


async def latest_snapshot(store: Any, aggregate_id: UUID | str) -> Snapshot | None:
    """Return the latest snapshot from a store that has `get_latest`, or only the contract's `load`; None without one.

    A snapshot that cannot be read back is reported as a warning and taken as absent: events are the truth.
    """
    try:
        if hasattr(store, "get_latest"):
            found = await store.get_latest(str(aggregate_id))
            return found if found is None or isinstance(found, Snapshot) else None
        pair = await store.load(str(aggregate_id))
        return None if pair is None else Snapshot(aggregate_id, "", pair[1], dict(pair[0]))
    except Exception as error:
        logger.warning("snapshot of %s cannot be loaded, replaying its events: %s", aggregate_id, error)
        return None


async def keep_snapshot(store: Any, snapshot: Snapshot, keep_count: int | None) -> None:
    """Save a snapshot in a store that has `save_snapshot`, or only the contract's `save`; remove the oldest ones."""
    if not hasattr(store, "save_snapshot"):
        await store.save(str(snapshot.aggregate_id), snapshot.state, snapshot.version)
        return
    await store.save_snapshot(snapshot)
    if keep_count is not None and hasattr(store, "delete_old_snapshots"):
        await store.delete_old_snapshots(snapshot.aggregate_id, keep_count)


class SnapshotManager(Generic[TAggregate]):
    """Loads and saves with the help of snapshots, for programs that keep state themselves instead of in aggregates.

    Args:
        event_store: Where the events are; an aggregate's stream id is its id as text.
        snapshot_store: Where the snapshots are.
        policy: When `save_and_maybe_snapshot` takes one; by default what `config` describes, else every 100 events.
        config: Strategy and number of snapshots kept per aggregate (default 5).

    Source: spec/api-reference.md, "SnapshotManager".
    """

    def __init__(
        self,
        event_store: EventStoreProtocol,
        snapshot_store: SnapshotStoreProtocol,
        policy: SnapshotPolicy | None = None,
        config: SnapshotConfig | None = None,
    ) -> None:
        check_event_store(event_store)
        check_snapshot_store(snapshot_store)
        self._events: Any = event_store
        self._snapshots: Any = snapshot_store
        self.policy = policy or (policy_from_config(config) if config is not None else EventCountPolicy())
        self.keep_count = config.max_snapshots_per_aggregate if config is not None else DEFAULT_KEEP_COUNT

    async def load_with_snapshot(
        self, aggregate_id: str | UUID, aggregate_type: str
    ) -> tuple[dict[str, Any] | None, list[Any], int]:
        """Return the latest snapshot's state (or None), the events after it, and the version they lead to.

        A snapshot of another aggregate type is ignored with a warning.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, events are missing that no snapshot covers, or that a snapshot contains.
        """
        snapshot = await latest_snapshot(self._snapshots, aggregate_id)
        if snapshot is not None and snapshot.aggregate_type not in ("", aggregate_type):
            logger.warning(
                "snapshot of %s is a %s, not a %s: ignored", aggregate_id, snapshot.aggregate_type, aggregate_type
            )
            snapshot = None
        covered = 0 if snapshot is None else snapshot.version
        events = await self._events.read(str(aggregate_id), start=covered)
        version = covered + len(events)
        stored = getattr(events[-1], "version", version) if events else await self._stream_version(aggregate_id)
        if stored not in (version, 0):
            raise EventLoadError(
                f"stream {str(aggregate_id)!r} is at version {stored}, but there are {len(events)} events after version "
                f"{covered}",
                details={"stream_id": str(aggregate_id), "version": covered + 1},
            )
        return (None if snapshot is None else snapshot.state), events, version

    async def _stream_version(self, aggregate_id: str | UUID) -> int:
        version_of = getattr(self._events, "get_stream_version", None)
        version: int = 0 if version_of is None else await version_of(str(aggregate_id))
        return version

    async def save_and_maybe_snapshot(
        self,
        aggregate_id: str | UUID,
        aggregate_type: str,
        events: list[Any],
        current_state: dict[str, Any],
        expected_version: int,
    ) -> bool:
        """Append events and take a snapshot of `current_state` if the policy says so.

        Returns:
            Whether a snapshot was taken. If taking it fails, the events are stored all the same and a warning says why.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, the stream is not at `expected_version`; nothing was written.
        """
        version = await self._events.append(str(aggregate_id), events, expected_version)
        latest = await latest_snapshot(self._snapshots, aggregate_id)
        since = version - (latest.version if latest is not None else 0)
        if not self.policy.should_snapshot(since, latest.timestamp if latest is not None else None, version):
            return False
        try:
            await self.create_snapshot(aggregate_id, aggregate_type, version, current_state)
        except Exception as error:
            logger.warning("no snapshot of %s at version %s: %s", aggregate_id, version, error)
            return False
        return True

    async def create_snapshot(
        self, aggregate_id: str | UUID, aggregate_type: str, version: int, state: dict[str, Any]
    ) -> Snapshot:
        """Save a snapshot now, remove the oldest ones, and return it."""
        snapshot = Snapshot(aggregate_id, aggregate_type, version, state)
        await keep_snapshot(self._snapshots, snapshot, self.keep_count)
        return snapshot

    async def force_snapshot(
        self, aggregate_id: str | UUID, aggregate_type: str, state_extractor: Callable[[], dict[str, Any]]
    ) -> Snapshot:
        """Save a snapshot of what `state_extractor` returns at the stream's current version, whatever the policy."""
        if hasattr(self._events, "get_stream_version"):
            version = await self._events.get_stream_version(str(aggregate_id))
        else:
            _, _, version = await self.load_with_snapshot(aggregate_id, aggregate_type)
        return await self.create_snapshot(aggregate_id, aggregate_type, version, state_extractor())

    async def cleanup_old_snapshots(self, aggregate_id: str | UUID, keep_count: int | None = None) -> int:
        """Remove all but the latest `keep_count` snapshots (default: as configured); return how many it removed.

        A store that has only the contract's `save` and `load` keeps what it keeps.
        """
        if not hasattr(self._snapshots, "delete_old_snapshots"):
            return 0
        keep = self.keep_count if keep_count is None else keep_count
        removed: int = await self._snapshots.delete_old_snapshots(aggregate_id, keep)
        return removed


def _at_least_one(value: int, field: str) -> int:
    if type(value) is not int or value < 1:
        raise EventValidationError(f"{field} must be an int of at least 1, got {value!r}", field=field)
    return value
