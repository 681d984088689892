"""The contract suites of checkpoint and idempotency stores. Subclass and write `make_store`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores.base import AbstractCheckpointStore, AbstractIdempotencyStore
from lexigram.events.testing.samples import refuses


class CheckpointStoreContract:
    """Everything that a checkpoint store promises."""

    pytestmark = pytest.mark.asyncio
    lease_seconds = 0.05
    """What expires in these tests does so after this time; more for a server that is slow."""

    @abstractmethod
    async def make_store(self) -> AbstractCheckpointStore:
        """Return a new, empty store."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AbstractCheckpointStore]:
        """A new, empty store, closed after the test."""
        async with await self.make_store() as store:
            yield store

    async def test_positions_are_kept_by_name(self, store: AbstractCheckpointStore) -> None:
        """0 until saved; the last save counts, lower ones too."""
        assert await store.get_checkpoint("orders") == 0
        await store.save_checkpoint("orders", 10)
        await store.save_checkpoint("users", 2**40)
        await store.save_checkpoint("orders", 7)
        assert await store.get_checkpoint("orders") == 7
        assert await store.list_checkpoints() == {"orders": 7, "users": 2**40}
        await store.delete_checkpoint("orders")
        await store.delete_checkpoint("orders")
        assert await store.get_checkpoint("orders") == 0
        assert await store.list_checkpoints() == {"users": 2**40}

    async def test_a_lock_has_one_owner(self, store: AbstractCheckpointStore) -> None:
        """Renewing is allowed, taking is not, releasing gives it to the next."""
        assert await store.acquire_lock("orders", "a")
        assert await store.acquire_lock("orders", "a")
        assert not await store.acquire_lock("orders", "b")
        assert await store.acquire_lock("users", "b")
        await store.release_lock("orders", "b")
        assert not await store.acquire_lock("orders", "b")
        await store.release_lock("orders", "a")
        assert await store.acquire_lock("orders", "b")

    async def test_of_racing_owners_exactly_one_gets_the_lock(self, store: AbstractCheckpointStore) -> None:
        """Ten at once, one success."""
        got = await asyncio.gather(*(store.acquire_lock("orders", f"o{n}") for n in range(10)))
        assert sum(got) == 1

    async def test_an_expired_lock_can_be_taken(self, store: AbstractCheckpointStore) -> None:
        """After its time without renewal the lock is free."""
        assert await store.acquire_lock("orders", "a", timeout=self.lease_seconds)
        assert not await store.acquire_lock("orders", "b")
        await asyncio.sleep(2 * self.lease_seconds)
        assert await store.acquire_lock("orders", "b")
        assert not await store.acquire_lock("orders", "a")

    async def test_an_owner_that_lost_the_lock_is_fenced(self, store: AbstractCheckpointStore) -> None:
        """The epoch rises with each new owner, not with renewals; a save with an old one changes nothing."""
        assert await store.lock_epoch("orders") == 0
        await store.acquire_lock("orders", "a", timeout=self.lease_seconds)
        epoch = await store.lock_epoch("orders")
        await store.acquire_lock("orders", "a", timeout=self.lease_seconds)
        assert await store.lock_epoch("orders") == epoch
        await store.save_checkpoint("orders", 5, epoch=epoch)
        await asyncio.sleep(2 * self.lease_seconds)
        await store.acquire_lock("orders", "b")
        assert await store.lock_epoch("orders") == epoch + 1
        with pytest.raises(ConcurrencyError):
            await store.save_checkpoint("orders", 6, epoch=epoch)
        assert await store.get_checkpoint("orders") == 5
        await store.save_checkpoint("orders", 7, epoch=epoch + 1)
        assert await store.get_checkpoint("orders") == 7

    async def test_the_locks_that_are_held_are_listed(self, store: AbstractCheckpointStore) -> None:
        """With their owners, by prefix; not those that expired or were given back."""
        await store.acquire_lock("w:short", "a", timeout=self.lease_seconds)
        await asyncio.sleep(2 * self.lease_seconds)
        await store.acquire_lock("w:1", "a", timeout=60)
        await store.acquire_lock("w:2", "b", timeout=60)
        await store.acquire_lock("w:3", "b", timeout=60)
        await store.acquire_lock("x:1", "c", timeout=60)
        await store.release_lock("w:3", "b")
        await store.save_checkpoint("w:4", 1)
        assert await store.list_locks("w:") == {"w:1": "a", "w:2": "b"}
        assert await store.list_locks() == {"w:1": "a", "w:2": "b", "x:1": "c"}

    async def test_a_fault_stays_until_somebody_takes_the_lock(self, store: AbstractCheckpointStore) -> None:
        """Kept by the owner's release only, in one step with it; whoever takes the lock next begins anew."""
        await store.acquire_lock("orders", "a")
        await store.release_lock("orders", "b", fault="not mine")
        assert await store.list_faults() == {}
        await store.save_checkpoint("orders", 5)
        await store.release_lock("orders", "a", fault="bad event \0 at 6: ü" + "x" * 20_000)
        found = await store.list_faults()
        assert list(found) == ["orders"]
        assert found["orders"].startswith("bad event \ufffd at 6: ü")
        assert (await store.list_locks(), await store.get_checkpoint("orders")) == ({}, 5)
        await store.save_checkpoint("orders", 4)
        assert list(await store.list_faults()) == ["orders"]
        assert await store.acquire_lock("orders", "b")
        assert await store.list_faults() == {}
        await store.release_lock("orders", "b")
        assert await store.list_faults() == {}

    async def test_bad_arguments_are_refused(self, store: AbstractCheckpointStore) -> None:
        """Each error names the field."""
        bad: Any
        for bad in ("", "x" * 256, None, 5):
            await refuses(store.get_checkpoint(bad), "name")
            await refuses(store.save_checkpoint(bad, 1), "name")
            await refuses(store.acquire_lock("orders", bad), "owner")
        await refuses(store.save_checkpoint("orders", -1), "position")
        await refuses(store.acquire_lock("orders", "a", timeout=0), "timeout")
        assert await store.acquire_lock("kept", "a", timeout=float("inf"))
        assert not await store.acquire_lock("kept", "b")


class IdempotencyStoreContract:
    """Everything that an idempotency store promises."""

    pytestmark = pytest.mark.asyncio
    lease_seconds = 0.05
    """What expires in these tests does so after this time; more for a server that is slow."""

    @abstractmethod
    async def make_store(self) -> AbstractIdempotencyStore:
        """Return a new, empty store."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AbstractIdempotencyStore]:
        """A new, empty store, closed after the test."""
        async with await self.make_store() as store:
            yield store

    async def test_marks_are_per_consumer_and_message(self, store: AbstractIdempotencyStore) -> None:
        """UUID and string are the same id."""
        message = uuid4()
        assert not await store.is_processed("c1", message)
        await store.mark_processed("c1", message)
        await store.mark_processed("c1", message)
        assert await store.is_processed("c1", str(message))
        assert not await store.is_processed("c2", message)
        assert not await store.is_processed("c1", uuid4())

    async def test_of_racing_claims_exactly_one_is_first(self, store: AbstractIdempotencyStore) -> None:
        """Ten at once, one True."""
        got = await asyncio.gather(*(store.claim("c1", "m1") for _ in range(10)))
        assert sum(got) == 1
        assert await store.is_processed("c1", "m1")

    async def test_marks_expire(self, store: AbstractIdempotencyStore) -> None:
        """An expired mark is as if it had never been; clearing returns how many went."""
        await store.mark_processed("c1", "short", expires_in=self.lease_seconds)
        await store.mark_processed("c1", "long", expires_in=60)
        await store.mark_processed("c1", "ever")
        await asyncio.sleep(2 * self.lease_seconds)
        assert not await store.is_processed("c1", "short")
        assert await store.is_processed("c1", "long")
        assert await store.claim("c1", "short", expires_in=self.lease_seconds)
        await asyncio.sleep(2 * self.lease_seconds)
        assert await store.clear_expired() == 1
        assert await store.clear_expired() == 0
        assert await store.is_processed("c1", "ever")

    async def test_bad_arguments_are_refused(self, store: AbstractIdempotencyStore) -> None:
        """Each error names the field."""
        await refuses(store.is_processed("", "m"), "consumer_id")
        await refuses(store.mark_processed("c", ""), "message_id")
        await refuses(store.mark_processed("c", 5), "message_id")  # type: ignore[arg-type]
        await refuses(store.mark_processed("c", "m", expires_in=0), "expires_in")
        await store.mark_processed("c", "for ever", expires_in=float("inf"))
        assert await store.is_processed("c", "for ever")
