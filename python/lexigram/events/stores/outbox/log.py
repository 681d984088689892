"""The outbox of a store without tables: the log itself holds what is to be delivered.

An append is one atomic write of the log, so nothing can be appended and not be delivered, and appends cost nothing
extra. Each lane has a checkpoint: how far it has been delivered.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores.outbox.entry import OutboxEntry, OutboxMessage
from lexigram.events.stores.outbox.store import AbstractOutboxStore, Claim, OutboxBatch
from lexigram.events.stores.partition import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore

LANES = 8
_SETUP_SECONDS = 30.0


class LogOutboxStore(AbstractOutboxStore):
    """Delivers from the log of an event store, for backends without tables (memory, MongoDB, Redis).

    What is put is appended to streams of its own, as `OutboxMessage` events around it.
    What is compacted before it is delivered goes among the dead letters first, and is delivered from there.

    Args:
        store: The event store.
        checkpoints: Where each lane has come to; a store in the same database.
        dead_letters: Where entries are set aside.
        name: Name of the outbox, at most 200 characters.
        retention_seconds: Not used: the log keeps events anyway.
    """

    def __init__(
        self,
        store: AbstractEventStore,
        checkpoints: AbstractCheckpointStore,
        dead_letters: DeadLetterStore,
        name: str = "event_outbox",
        retention_seconds: float = 0.0,
    ) -> None:
        super().__init__(store, checkpoints, dead_letters, name, retention_seconds)
        self._lanes = [f"{name}:{lane}" for lane in range(LANES)]
        self._own_streams = f"{name}:"
        self._marked: set[str] = set()
        self._turn = 0
        self._owners: dict[tuple[int, int], str] = {}

    async def _set_up(self) -> None:
        setup = f"{self.name}:setup"
        owner = f"setup-{id(self)}"
        while not await self.checkpoints.acquire_lock(setup, owner, _SETUP_SECONDS):
            await self.store._wakeup.wait(self.store._wakeup.count, 0.05)
        try:
            known = await self.checkpoints.list_checkpoints()
            missing = [name for name in self._lanes if name not in known]
            head = await self.store.head() if missing else 0
            for name in missing:
                await self.checkpoints.save_checkpoint(name, head)
        finally:
            await self.checkpoints.release_lock(setup, owner)

    async def claim(self, owner: str, limit: int, lease_seconds: float) -> OutboxBatch:
        """Take lanes that hold entries; see `AbstractOutboxStore.claim`. Cost: reads the log once per lane behind."""
        await self._ready()
        batch = OutboxBatch()
        known, head = await self.checkpoints.list_checkpoints(), await self.store.head()
        turn = self._turn = (self._turn + 1) % LANES  # kept here: another relay of this process may claim meanwhile
        for number in range(LANES):
            lane = (turn + number) % LANES
            name = self._lanes[lane]
            if known.get(name, 0) < head and await self.checkpoints.acquire_lock(name, owner, lease_seconds):
                await self._read_lane(batch, lane, limit - len(batch.entries), owner)
                if len(batch.entries) >= limit:
                    break
        return batch

    async def _read_lane(self, batch: OutboxBatch, lane: int, limit: int, owner: str) -> None:
        name = self._lanes[lane]
        epoch = await self.checkpoints.lock_epoch(name)
        after = await self.checkpoints.get_checkpoint(name)
        entries, position = await self._page(lane, after, limit)
        if not entries:
            if position > after:
                await self._save(Claim(lane, epoch, position))
            await self.checkpoints.release_lock(name, owner)
            return
        self._owners[lane, epoch] = owner
        batch.claims.append(Claim(lane, epoch, position))
        batch.entries += [entry for entry in entries if entry.entry_id not in self._marked]

    async def _page(self, lane: int, after: int, limit: int | None) -> tuple[list[OutboxEntry], int]:
        request = ReadRequest(after, limit, partition=(lane, LANES), with_stream_ids=True)
        page = await self.store._page(request)
        entries = [
            self._entry(event, stream_id, lane) for event, stream_id in zip(page.events, page.stream_ids, strict=True)
        ]
        return entries, page.position

    def _entry(self, event: Any, stream_id: str, lane: int) -> OutboxEntry:
        created_at, position = event.occurred_at, event.sequence_number
        if isinstance(event, OutboxMessage) and isinstance(event.message, DomainEvent):
            event = event.message  # an event that was put: publishers get it like any other
        encoded = self.codec.encode(event)
        return OutboxEntry.of(
            event,
            encoded.payload,
            encoded.type_name,
            created_at=created_at,
            key=stream_id.removeprefix(self._own_streams),
            position=position,
            lane=lane,
        )

    async def settle(self, batch: OutboxBatch, done: Sequence[OutboxEntry]) -> None:
        """Move the lanes on behind what was delivered; see `AbstractOutboxStore.settle`."""
        delivered = {entry.entry_id for entry in done}
        left: dict[int, int] = {}
        for entry in batch.entries:
            if entry.entry_id not in delivered:
                left[entry.lane] = min(entry.position, left.get(entry.lane, entry.position))
        for claim in batch.claims:
            await self._save(claim._replace(position=left.get(claim.lane, claim.position + 1) - 1), release=True)
        self._marked -= delivered

    async def _save(self, claim: Claim, release: bool = False) -> None:
        name = self._lanes[claim.lane]
        owner = self._owners.pop((claim.lane, claim.epoch), "")
        try:
            await self.checkpoints.save_checkpoint(name, claim.position, epoch=claim.epoch)
        except ConcurrencyError:
            return  # another relay has taken the lane over and delivers these entries again
        if release:
            await self.checkpoints.release_lock(name, owner)

    async def before_removal(self, stream_id: str, up_to_version: int) -> None:
        """Set aside the events that the log is about to lose; relays deliver them from there, in order."""
        if not up_to_version:
            return
        lane = partition_of(stream_id, LANES)
        delivered = await self.checkpoints.get_checkpoint(self._lanes[lane])
        for event in await self.store._read(stream_id, 1, up_to_version, None):
            if event.sequence_number > delivered:
                await self.set_aside(self._entry(event, stream_id, lane), None)

    async def _put(self, event: Any, key: str) -> OutboxEntry:
        if not isinstance(event, OutboxMessage):
            event = OutboxMessage(event_id=event.event_id, aggregate_id=key, message=event)
        stream_id = self._own_streams + key
        await self.store.append(stream_id, [event])
        return self._entry(event, stream_id, partition_of(stream_id, LANES))

    async def _all_pending(self, limit: int | None) -> list[OutboxEntry]:
        pending: list[OutboxEntry] = []
        for lane, name in enumerate(self._lanes):
            entries, _ = await self._page(lane, await self.checkpoints.get_checkpoint(name), limit)
            pending += [entry for entry in entries if entry.entry_id not in self._marked]
        return sorted(pending, key=lambda entry: entry.position)[:limit]

    async def _pending(self, limit: int) -> list[OutboxEntry]:
        return await self._all_pending(limit)

    async def _find(self, entry_id: str) -> OutboxEntry | None:
        return next((entry for entry in await self._all_pending(None) if entry.entry_id == entry_id), None)

    async def _mark(self, entry_id: str) -> None:
        self._marked.add(entry_id)

    async def _waiting(self) -> tuple[int, datetime | None]:
        waiting, oldest = 0, None
        for lane, name in enumerate(self._lanes):
            after = await self.checkpoints.get_checkpoint(name)
            count = await self.store._count(ReadRequest(after, partition=(lane, LANES)))
            if count:
                waiting += count
                entries, _ = await self._page(lane, after, 1)
                if entries:
                    oldest = entries[0].created_at if oldest is None else min(oldest, entries[0].created_at)
        return waiting, oldest

    async def _purge(self, age_seconds: float) -> int:
        return 0
