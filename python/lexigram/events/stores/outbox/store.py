"""What relays need from an outbox, the same on all backends."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter
from lexigram.events.messages.clock import now
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._life import StoreLife
from lexigram.events.stores._validation import check_number, check_text
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.identifiers import validate_table_name
from lexigram.events.stores.outbox.entry import OutboxEntry, OutboxEntryStatus, as_event
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore


class Claim(NamedTuple):
    """A lane that a relay has for a while: nobody else delivers its entries until it is settled or expires."""

    lane: int
    epoch: int
    position: int = 0


@dataclass(slots=True)
class OutboxBatch:
    """Entries that were claimed together, in order of their positions."""

    claims: list[Claim] = field(default_factory=list)
    entries: list[OutboxEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How far delivery is behind.

    Args:
        waiting: Entries not yet delivered, without those set aside.
        oldest_age_seconds: Age of the oldest of them; 0 if there is none.
        set_aside: Entries that failed, and those that wait behind them.
    """

    waiting: int
    oldest_age_seconds: float
    set_aside: int


class AbstractOutboxStore(StoreLife):
    """Messages to deliver. Once it is connected, every event appended to its store is in it, from that same commit on.

    What was appended before the first `connect` ever is not delivered. Appends go on being captured after `close`.

    Lanes are parts of the outbox by hash of the key. A relay claims lanes for a time, delivers what they hold and
    settles. Entries that cannot be delivered are set aside among the dead letters under `handler_name`, and later
    entries of their key behind them, so that order per key is kept while all other keys go on.

    Args:
        store: The event store whose appends are delivered.
        checkpoints: Holds the relays' locks; a store in the same database.
        dead_letters: Where entries are set aside; a store in the same database.
        name: Name of the outbox; SQL backends name their table after it.
        retention_seconds: How long delivered entries stay visible; 0 = they are removed at once.
    """

    def __init__(
        self,
        store: AbstractEventStore,
        checkpoints: AbstractCheckpointStore,
        dead_letters: DeadLetterStore,
        name: str = "event_outbox",
        retention_seconds: float = 0.0,
    ) -> None:
        validate_table_name(name, "outbox_table")
        StoreLife.__init__(self)
        self.store = store
        self.codec: EventCodec = getattr(store, "_codec", None) or EventCodec(store._registry)
        self.checkpoints = checkpoints
        self.dead_letters = dead_letters
        self.name = name
        self.retention_seconds = retention_seconds
        # In memory `close` does nothing.
        self._reopens = isinstance(checkpoints, InMemoryCheckpointStore)

    @property
    def handler_name(self) -> str:
        """The name under which entries are set aside among the dead letters."""
        return f"outbox:{self.name}"

    async def _open(self) -> None:
        await self.store._ready()
        try:
            await self.checkpoints.connect()
            await self.dead_letters.connect()
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        self.store._outboxes_in_use.discard(self)
        await self.checkpoints.close()
        await self.dead_letters.close()

    async def _make(self) -> bool:
        await self._set_up()
        await self.store._ready()  # it may have been closed meanwhile, with the outboxes in use
        self.store._outboxes_in_use.add(self)
        return current_unit_of_work() is None

    # Writing

    async def put(self, message: Any, key: str | None = None) -> OutboxEntry:
        """Store a message (command, integration event, …) to be delivered; in a unit of work of the store, with it.

        Args:
            message: An event, command or query: anything that the codec knows and that has an id.
            key: Messages with one key are delivered in order; None = the event's aggregate id, else none.
        """
        event, key = as_event(message, key)
        await self._ready()
        return await self._put(event, check_text(key, "key"))

    async def append_batch(self, events: Sequence[Any]) -> None:
        """Store events to be delivered; one that the outbox has already is not stored again."""
        for event in events:
            await self.put(event)

    async def store_event(self, event: Any) -> OutboxEntry:
        """Store one event to be delivered. The contract's spelling of `put`."""
        return await self.put(event)

    # Relays

    @abstractmethod
    async def claim(self, owner: str, limit: int, lease_seconds: float) -> OutboxBatch:
        """Take lanes that hold entries and that nobody has; never waits for another relay.

        Args:
            owner: Names the relay.
            limit: About how many entries to take at most.
            lease_seconds: Others can take the lanes after this time, unless `settle` comes first.
        """

    @abstractmethod
    async def settle(self, batch: OutboxBatch, done: Sequence[OutboxEntry]) -> None:
        """Record that `done` was delivered or set aside and give the lanes back; a lane lost since is left alone."""

    async def set_aside(self, entry: OutboxEntry, error: BaseException | None, attempts: int = 0) -> None:
        """Put an entry among the dead letters; without `error` it only waits behind an earlier one of its key."""
        letter = DeadLetterEntry.of(entry.event, self.handler_name, error, attempts)
        await self.dead_letters.save(replace(letter, entry_id=f"{self.name}:{entry.entry_id}", aggregate_id=entry.key))

    async def before_removal(self, stream_id: str, up_to_version: int) -> None:
        """Keep what is not delivered yet of a stream's events up to a version: they are about to be removed."""

    async def has_set_aside(self) -> bool:
        """Return whether any entry is set aside."""
        wanted = DeadLetterFilter(handler_name=self.handler_name, replayed=False)
        return bool(await self.dead_letters._select(wanted, 0, 1))

    async def stats(self) -> OutboxStats:
        """Return how far delivery is behind. Cost: a count of what waits."""
        await self._ready()
        waiting, oldest = await self._waiting()
        age = 0.0 if oldest is None else max(0.0, (now() - oldest).total_seconds())
        aside = await self.dead_letters.count(DeadLetterFilter(handler_name=self.handler_name, replayed=False))
        return OutboxStats(waiting, age, aside)

    async def purge(self) -> int:
        """Remove delivered entries older than `retention_seconds` and return how many."""
        await self._ready()
        return await self._purge(self.retention_seconds)

    # The contract's view

    async def get_pending(self, *, limit: int = 100) -> list[OutboxEntry]:
        """Return entries that wait for delivery, oldest first; those set aside are among the dead letters."""
        await self._ready()
        return await self._pending(check_number(limit, "limit", 1))

    async def fetch_pending(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return what `get_pending` does, as dictionaries."""
        names = ("entry_id", "event_type", "payload", "metadata", "created_at", "attempts", "error", "event", "key")
        return [
            {"id": entry.entry_id, "event_id": entry.entry_id, "status": str(entry.status)}
            | {name: getattr(entry, name) for name in names}
            for entry in await self.get_pending(limit=limit)
        ]

    async def mark_published(self, entry_id: str) -> None:
        """Record that an entry was delivered by other means; an unknown one is ignored."""
        await self._ready()
        await self._mark(entry_id)

    async def mark_delivered(self, event_id: str) -> None:
        """Record that an event was delivered by other means. The contract's spelling of `mark_published`."""
        await self.mark_published(event_id)

    async def mark_failed(self, entry_id: str, error: str) -> None:
        """Set an entry aside with this error; an unknown one is ignored."""
        await self._ready()
        entry = await self._find(entry_id)
        if entry is not None:
            entry.status, entry.error = OutboxEntryStatus.FAILED, error
            await self.set_aside(entry, RuntimeError(error), 1)
            await self._mark(entry_id)

    # Backends

    @abstractmethod
    async def _set_up(self) -> None:
        """Begin to capture appends, unless they are captured already; a rollback of the unit of work may undo it."""

    @abstractmethod
    async def _put(self, event: Any, key: str) -> OutboxEntry:
        """Store the entry of one event in the current unit of work, unless its id is there already."""

    @abstractmethod
    async def _pending(self, limit: int) -> list[OutboxEntry]: ...

    @abstractmethod
    async def _find(self, entry_id: str) -> OutboxEntry | None: ...

    @abstractmethod
    async def _mark(self, entry_id: str) -> None: ...

    @abstractmethod
    async def _waiting(self) -> tuple[int, datetime | None]:
        """Return how many entries wait and when the oldest of them was created."""

    @abstractmethod
    async def _purge(self, age_seconds: float) -> int: ...
