"""What every saga store must do. Subclass `SagaStoreContract` and give it a `make_store`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram.events.exceptions import ConcurrencyError, SerializationError
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus
from lexigram.events.testing.samples import ItemAdded


def a_record(saga_id: str = "s-1", **changes: Any) -> SagaRecord:
    """Return a record that uses every field."""
    values: dict[str, Any] = {
        "status": SagaStatus.RUNNING,
        "data": {"order": uuid4(), "total": Decimal("12.50"), "lines": [{"on": date(2024, 2, 29)}], "none": None},
        "steps": {
            "reserve": SagaStepRecord(
                "reserve", SagaStepStatus.COMPLETED, datetime.now(UTC), datetime.now(UTC), {"id": 7}, attempts=2
            ),
            "charge": SagaStepRecord(
                "charge", SagaStepStatus.FAILED, error="declined", compensation_error="also", retry_at=datetime.now(UTC)
            ),
        },
        "error": "charge: declined",
        "metadata": {"started_by": "e-1"},
        "cursor": "charge",
        "step_order": ["reserve", "charge"],
        "deadline": datetime.now(UTC) + timedelta(minutes=5),
        "correlation_key": "order-1",
        "positions": {"sagas": 2**40},
        "handled": ["e-1"],
        "pending": [ItemAdded(sku="a")],
        "pending_attempts": 1,
        "ending": SagaStatus.COMPLETED,
        "timers": {"remind": datetime.now(UTC) + timedelta(days=1)},
        "wake_at": datetime.now(UTC) + timedelta(seconds=5),
        "children": {"s-1/charge/refund": "charge"},
    }
    return SagaRecord(saga_id, "order", **{**values, **changes})


class SagaStoreContract(ABC):
    """The claims; `make_store` returns an empty store."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_store(self) -> SagaStore:
        """Return a new, empty store."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[SagaStore]:
        """The store under test, closed afterwards."""
        store = await self.make_store()
        yield store
        await store.close()

    async def test_a_store_is_opened_and_closed_by_async_with(self, store: SagaStore) -> None:
        """Like every other store."""
        async with store as opened:
            assert opened is store
            assert await store.load("s-1") is None

    async def test_a_record_comes_back_equal(self, store: SagaStore) -> None:
        """Every field and every value type, also after a second save."""
        record = a_record()
        await store.save(record)
        assert await store.load("s-1") == record
        record.status = SagaStatus.COMPENSATION_FAILED
        await store.save(record)
        assert await store.load("s-1") == record
        assert record.version == 2

    async def test_what_is_loaded_is_a_copy(self, store: SagaStore) -> None:
        """Changing it changes nothing that is stored."""
        await store.save(a_record())
        loaded = await store.load("s-1")
        assert loaded is not None
        loaded.data["order"] = "changed"
        loaded.steps["reserve"].output["id"] = 8
        again = await store.load("s-1")
        assert again is not None
        assert again.data["order"] != "changed"
        assert again.steps["reserve"].output == {"id": 7}

    async def test_an_outdated_record_is_refused(self, store: SagaStore) -> None:
        """Both versions are told, nothing is written, and the record can be compared with what is stored."""
        await store.save(a_record())
        one, two = await store.load("s-1"), await store.load("s-1")
        assert one is not None
        assert two is not None
        one.error = "first"
        await store.save(one)
        two.error = "second"
        with pytest.raises(ConcurrencyError) as caught:
            await store.save(two)
        assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
        stored = await store.load("s-1")
        assert stored is not None
        assert (stored.error, stored.version) == ("first", 2)

    async def test_of_many_writers_exactly_one_wins(self, store: SagaStore) -> None:
        """All start from the same version."""
        await store.save(a_record())
        copies = [await store.load("s-1") for _ in range(8)]
        outcomes = await asyncio.gather(
            *(store.save(copy) for copy in copies if copy is not None), return_exceptions=True
        )
        assert [outcome for outcome in outcomes if outcome is None] == [None]
        assert sum(isinstance(outcome, ConcurrencyError) for outcome in outcomes) == 7

    async def test_a_record_without_version_replaces_what_is_stored(self, store: SagaStore) -> None:
        """For programs that build records by hand."""
        await store.save(a_record())
        await store.save(a_record(error="replaced"))
        stored = await store.load("s-1")
        assert stored is not None
        assert (stored.error, stored.version) == ("replaced", 2)

    async def test_create_does_nothing_if_the_id_exists(self, store: SagaStore) -> None:
        """Of several creations at the same time one succeeds."""
        outcomes = await asyncio.gather(*(store.create(a_record(error=str(number))) for number in range(5)))
        assert sorted(outcomes) == [False, False, False, False, True]
        stored = await store.load("s-1")
        assert stored is not None
        assert stored.error == str(outcomes.index(True))

    async def test_what_cannot_be_encoded_is_refused(self, store: SagaStore) -> None:
        """The error names the place; nothing is written."""
        with pytest.raises(SerializationError, match="'odd'"):
            await store.save(a_record(data={"odd": object()}))
        with pytest.raises(SerializationError, match="'odd'"):
            await store.create(a_record(data={"odd": [object()]}))
        assert await store.load("s-1") is None

    async def test_delete_tells_whether_there_was_one(self, store: SagaStore) -> None:
        """A missing id is no error."""
        await store.save(a_record())
        assert await store.delete("s-1")
        assert not await store.delete("s-1")
        assert await store.load("s-1") is None

    async def test_only_sagas_that_are_due_are_listed_as_due(self, store: SagaStore) -> None:
        """What has something to do now, and what waits for events with a timer or deadline that is due."""
        start = datetime.now(UTC)

        def waiting(saga_id: str, **changes: Any) -> SagaRecord:
            return SagaRecord(saga_id, "order", SagaStatus.RUNNING, created_at=start, **changes)

        await store.save(a_record("runs", created_at=start - timedelta(seconds=1)))
        await store.save(a_record("ended", status=SagaStatus.COMPLETED))
        await store.save(a_record("stuck", status=SagaStatus.COMPENSATION_FAILED))
        await store.save(waiting("waits"))
        await store.save(waiting("later", deadline=start + timedelta(hours=1)))
        await store.save(
            waiting("timer", timers={"t": start - timedelta(seconds=1)}, deadline=start + timedelta(hours=1))
        )
        await store.save(waiting("sends", pending=[ItemAdded(sku="a")]))
        await store.save(SagaRecord("other", "other", SagaStatus.RUNNING, cursor="s", created_at=start))
        due = [record.saga_id for record in await store.list_due(["order"], start)]
        assert (due[0], sorted(due)) == ("runs", ["runs", "sends", "timer"])
        due = [record.saga_id for record in await store.list_due(["order"], start + timedelta(hours=2))]
        assert sorted(due) == ["later", "runs", "sends", "timer"]
        assert await store.list_due([], start) == []

    async def test_the_names_of_all_kinds_are_listed_once(self, store: SagaStore) -> None:
        """Whatever the states of their sagas are."""
        assert await store.list_names() == []
        for number, name in enumerate(("refund", "order", "refund", "parcel")):
            status = (SagaStatus.RUNNING, SagaStatus.COMPLETED)[number % 2]
            await store.create(SagaRecord(f"s-{number}", name, status))
        assert await store.list_names() == ["order", "parcel", "refund"]

    async def test_sagas_are_listed_by_name_and_status_oldest_first(self, store: SagaStore) -> None:
        """Limits count after filtering."""
        start = datetime.now(UTC)
        for number, status in enumerate((SagaStatus.COMPLETED, SagaStatus.RUNNING, SagaStatus.STARTED)):
            await store.save(a_record(f"s-{number}", status=status, created_at=start + timedelta(seconds=number)))
        await store.save(SagaRecord("x", "other", SagaStatus.RUNNING, created_at=start + timedelta(seconds=9)))
        assert [record.saga_id for record in await store.list_by_name("order")] == ["s-0", "s-1", "s-2"]
        wanted = (SagaStatus.RUNNING, SagaStatus.STARTED)
        found = await store.list_by_status(wanted, ["order"])
        assert [record.saga_id for record in found] == ["s-1", "s-2"]
        assert [record.saga_id for record in await store.list_by_status(wanted, ["order", "other"], 1)] == ["s-1"]
        assert await store.list_by_status([SagaStatus.FAILED], ["order"]) == []
        assert await store.list_by_status(wanted, []) == []
        await store.save(a_record("first", status=SagaStatus.FAILED, created_at=start - timedelta(seconds=1)))
        assert [record.saga_id for record in await store.list_by_name("order")][:2] == ["first", "s-0"]
        found = await store.list_by_status([SagaStatus.COMPLETED] * 2, ["order"] * 2)
        assert [record.saga_id for record in found] == ["s-0"]
