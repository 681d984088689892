"""The contract suite of snapshot stores. Subclass `SnapshotStoreContract` and write `make_store`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from lexigram.contracts.events.protocols.store import SnapshotStoreProtocol
from lexigram.events.exceptions import SerializationError
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.testing.samples import refuses
from lexigram.events.types import Snapshot


def snapshot(aggregate_id: UUID | str, version: int, **state: Any) -> Snapshot:
    """Return a snapshot of an order."""
    return Snapshot(aggregate_id=aggregate_id, aggregate_type="Order", version=version, state=state)


class SnapshotStoreContract:
    """Everything that a snapshot store promises."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_store(self) -> AbstractSnapshotStore:
        """Return a new, empty store that keeps at least five snapshots of an aggregate."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AbstractSnapshotStore]:
        """A new, empty store, closed after the test."""
        async with await self.make_store() as store:
            yield store

    async def test_it_fulfils_the_frameworks_protocol(self, store: AbstractSnapshotStore) -> None:
        """isinstance holds at runtime."""
        assert isinstance(store, SnapshotStoreProtocol)

    async def test_the_latest_is_the_highest_version(self, store: AbstractSnapshotStore) -> None:
        """Whatever the order of saving."""
        for version in (10, 30, 20):
            await store.save_snapshot(snapshot("o1", version, total=version))
        latest = await store.get_latest("o1")
        assert latest is not None
        assert (latest.version, latest.state, latest.aggregate_type) == (30, {"total": 30}, "Order")
        by_version = await store.get_by_version("o1", 20)
        assert by_version is not None
        assert by_version.state == {"total": 20}
        assert await store.get_by_version("o1", 25) is None
        assert await store.get_latest("o2") is None

    async def test_ids_are_uuid_or_string_and_compare_as_strings(self, store: AbstractSnapshotStore) -> None:
        """Saved under one, found under the other."""
        aggregate_id = uuid4()
        await store.save_snapshot(snapshot(aggregate_id, 1, a=1))
        assert (await store.load(str(aggregate_id))) == ({"a": 1}, 1)
        await store.save_snapshot(snapshot(str(aggregate_id), 2, a=2))
        assert (await store.load(aggregate_id)) == ({"a": 2}, 2)

    async def test_both_forms_of_save_work(self, store: AbstractSnapshotStore) -> None:
        """A `Snapshot` alone, or id, state and version; `load` returns (state, version)."""
        await store.save(snapshot("o1", 3, total=1))
        assert await store.load("o1") == ({"total": 1}, 3)
        await store.save("o1", {"total": 2}, 4)
        assert await store.load("o1") == ({"total": 2}, 4)
        assert await store.load("o2") is None

    async def test_the_same_version_is_replaced(self, store: AbstractSnapshotStore) -> None:
        """One snapshot for each version."""
        await store.save("o1", {"total": 1}, 3)
        await store.save("o1", {"total": 2}, 3)
        assert await store.load("o1") == ({"total": 2}, 3)
        assert await store.delete_old_snapshots("o1", 1) == 0

    async def test_states_are_isolated_from_later_changes(self, store: AbstractSnapshotStore) -> None:
        """Neither the saved nor the loaded object shares anything with what is stored."""
        state: dict[str, Any] = {"items": [{"sku": "1"}]}
        await store.save("o1", state, 1)
        state["items"][0]["sku"] = "changed"
        loaded = await store.load("o1")
        assert loaded == ({"items": [{"sku": "1"}]}, 1)
        loaded[0]["items"].clear()
        assert await store.load("o1") == ({"items": [{"sku": "1"}]}, 1)

    async def test_rich_values_come_back_as_they_were(self, store: AbstractSnapshotStore) -> None:
        """Types beyond JSON survive in the state."""
        state = {
            "id": uuid4(),
            "at": datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            "total": Decimal("1.10"),
            "n": None,
        }
        await store.save("o1", state, 1)
        assert await store.load("o1") == (state, 1)

    async def test_what_cannot_be_encoded_is_refused(self, store: AbstractSnapshotStore) -> None:
        """The error names the place; what was there stays."""
        await store.save("o1", {"v": 1}, 1)
        for odd in (object(), len, iter("text")):
            with pytest.raises(SerializationError, match="'v'"):
                await store.save("o1", {"v": odd}, 1)
        assert await store.load("o1") == ({"v": 1}, 1)

    async def test_a_time_without_zone_is_utc(self, store: AbstractSnapshotStore) -> None:
        """So that times can be compared."""
        await store.save(Snapshot("o1", "Order", 1, {}, timestamp=datetime(2024, 1, 2)))
        found = await store.get_latest("o1")
        assert found is not None
        assert found.timestamp == datetime(2024, 1, 2, tzinfo=UTC)

    async def test_old_snapshots_are_deleted_by_count(self, store: AbstractSnapshotStore) -> None:
        """The latest are kept, the number of removed ones returned, other aggregates untouched."""
        for version in (1, 2, 3, 4):
            await store.save("o1", {"v": version}, version)
        await store.save("o2", {"v": 9}, 9)
        assert await store.delete_old_snapshots("o1", 2) == 2
        assert await store.get_by_version("o1", 2) is None
        assert await store.load("o1") == ({"v": 4}, 4)
        assert await store.delete_old_snapshots("o1") == 0
        await store.delete("o1")
        assert await store.load("o1") is None
        assert await store.load("o2") == ({"v": 9}, 9)

    async def test_bad_arguments_are_refused(self, store: AbstractSnapshotStore) -> None:
        """Each error names the field."""
        await refuses(store.save_snapshot({"version": 1}), "snapshot")  # type: ignore[arg-type]
        await refuses(store.save("o1", {"a": 1}), "version")
        await refuses(store.save("o1", "text", 1), "snapshot")
        await refuses(store.save("", {"a": 1}, 1), "aggregate_id")
        await refuses(store.save("o1", {"a": 1}, -1), "version")
        await refuses(store.save(snapshot("o1", 1), {"a": 1}), "snapshot")
        await refuses(store.get_latest(5), "aggregate_id")  # type: ignore[arg-type]
        await refuses(store.get_by_version("o1", -1), "version")
        await refuses(store.delete_old_snapshots("o1", -1), "keep_count")

    async def test_closing_twice_is_harmless(self) -> None:
        """`async with` opens and closes."""
        store = await self.make_store()
        async with store as entered:
            assert entered is store
        await store.close()
