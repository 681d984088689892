"""A saga with data whose class this program does not know: listed with the rest, operated on where no data is needed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events import SagaBase, SagaConfig, SagaContext, saga_step
from lexigram.events.exceptions import SagaError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.registry import full_name
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sharing import SagaSharing
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus, UnreadValue
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from tests.backends import BACKENDS, MakeStore, make_store, saga_store

__all__ = ["make_store"]


@dataclass
class Parcel:
    weight: Decimal


class Knowing(EventCodec):
    """The codec of a program that knows the class under the name that is stored; here that name is unknown."""

    def encode_value(self, value: Any, type_: Any = Any) -> bytes:
        return super().encode_value(value, type_).replace(_HERE, _STORED)

    def decode_value(self, data: bytes, type_: Any = Any) -> Any:
        return super().decode_value(data.replace(_STORED, _HERE), type_)


_HERE, _STORED = full_name(Parcel).encode(), b"other.program.Parcel"


class Ship(SagaBase):
    name = "ship"

    @saga_step(compensation="undo")
    async def pack(self, ctx: SagaContext) -> dict[str, Any]:
        ctx.data["packed"] = True
        return {}

    async def undo(self, ctx: SagaContext) -> None:
        ctx.data["packed"] = False

    @saga_step
    async def send(self, ctx: SagaContext) -> None:
        assert ctx.data["parcel"] == Parcel(Decimal("1.50"))


def a_saga(saga_id: str, *, packed: bool = False, known: bool = False) -> SagaRecord:
    """Return a saga in flight, with values that only some programs know."""
    return SagaRecord(
        saga_id,
        "ship",
        SagaStatus.RUNNING,
        {"parcel": 7 if known else Parcel(Decimal("1.50")), "at": datetime(2024, 5, 1, tzinfo=UTC), "name": "tea ü"},
        {"pack": SagaStepRecord("pack", SagaStepStatus.COMPLETED, output={} if known else {"p": Parcel(Decimal(2))})}
        if packed
        else {},
        metadata={"$odd": Decimal(1)},
        cursor="send" if packed else "pack",
        step_order=["pack", "send"],
    )


class World:
    """The saga store of one database, as a program sees it that knows `Parcel`, and as one that does not."""

    def __init__(self, knows: Any, does_not: Any) -> None:
        self.knows, self.does_not = knows, does_not
        self.manager = SagaManager(does_not, config=SagaConfig(max_retries_per_step=0))
        self.manager.register(Ship)


@pytest_asyncio.fixture(params=[backend for backend in BACKENDS if backend != "memory"])
async def world(request: pytest.FixtureRequest, make_store: MakeStore) -> AsyncIterator[World]:
    """An empty saga store; in memory nothing is ever read back."""
    async with make_store(request.param) as store:
        knows, does_not = saga_store(request.param, store), saga_store(request.param, store)
        knows._codec = Knowing()  # type: ignore[attr-defined]
        async with knows, does_not:
            yield World(knows, does_not)


async def test_it_is_listed_with_its_raw_data_and_a_mark(world: World) -> None:
    """It stops no other one; what it can read it reads, and what is saved again is as it was."""
    for record in (a_saga("a"), a_saga("b", known=True), a_saga("c", packed=True)):
        await world.knows.create(record)
    found = {record.saga_id: record for record in await world.manager.list("ship")}
    assert list(found) == ["a", "b", "c"]
    assert found["b"].unread == {}
    assert list(found["a"].unread) == ["data.parcel"]
    assert list(found["c"].unread) == ["data.parcel", "steps.pack.output.p"]
    assert "Parcel" in found["a"].unread["data.parcel"]
    parcel = found["a"].data["parcel"]
    assert isinstance(parcel, UnreadValue)
    assert "1.50" in str(parcel.plain)
    assert (found["a"].data["name"], found["a"].data["at"].year, found["a"].metadata) == (
        "tea ü",
        2024,
        {"$odd": Decimal(1)},
    )
    await world.does_not.save(found["c"])
    stored = await world.knows.load("c")
    assert stored == found["c"].__class__(**{**vars(a_saga("c", packed=True)), **_times(stored), "version": 2})


def _times(record: SagaRecord) -> dict[str, Any]:
    return {"created_at": record.created_at, "updated_at": record.updated_at}


async def test_it_does_not_go_on_here_and_others_do(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by a resumption nor by sharing; it stays as it is for a program that knows the class."""
    await world.knows.create(a_saga("a"))
    await world.knows.create(a_saga("b", known=True))
    with caplog.at_level(logging.WARNING):
        assert set(await world.manager.resume()) == {"a", "b"}
    assert "data.parcel" in caplog.text
    assert (await world.knows.load("a")) == (await world.knows.load("a"))
    assert (await world.knows.load("a")).version == 1
    assert (await world.manager.get("b")).status is SagaStatus.COMPENSATED  # type: ignore[union-attr]
    for operation in (world.manager.retry, world.manager._end_of):
        with pytest.raises(SagaError, match=r"data\.parcel"):
            await operation("a")


async def test_an_operator_can_end_it_where_no_data_is_needed(world: World) -> None:
    """Forced, or cancelled if nothing has to be undone; otherwise it is refused and nothing has changed."""
    for record in (a_saga("a"), a_saga("b", packed=True), a_saga("c", packed=True)):
        await world.knows.create(record)
    assert (await world.manager.cancel("a", "gone")).status is SagaStatus.FAILED
    with pytest.raises(SagaError, match="cannot read"):
        await world.manager.cancel("b")
    assert (await world.knows.load("b")).status is SagaStatus.RUNNING
    assert (await world.manager.force_complete("c", "by hand")).status is SagaStatus.COMPLETED
    for saga_id in "abc":
        stored = await world.knows.load(saga_id)
        assert stored.data["parcel"] == Parcel(Decimal("1.50"))
    assert stored.metadata["forced"]["note"] == "by hand"

    program = SagaManager(world.knows)
    program.register(Ship)
    assert (await program.cancel("b")).status is SagaStatus.COMPENSATED


async def test_sharing_leaves_it_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """And says so once, not at every look."""
    await world.knows.create(a_saga("a"))
    async with SagaSharing(world.manager, InMemoryCheckpointStore(), partitions=1, poll_seconds=0.02) as sharing:
        for _ in range(3):
            await sharing._look()
    assert caplog.text.count("cannot go on in this program") == 1


async def test_one_of_a_kind_that_is_not_registered_is_seen_and_can_be_ended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class was removed or renamed: resuming says so and goes on with the others, and an operator finds it."""
    await world.knows.create(a_saga("a", known=True))
    for number, status in enumerate((SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.COMPLETED)):
        await world.knows.create(SagaRecord(f"old-{number}", "removed", status))
    assert await world.manager.resume() == ["a"]
    warnings = [record.getMessage() for record in caplog.records if "removed" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("2 sagas named 'removed' are in flight")
    assert [record.saga_id for record in await world.manager.list()] == ["a", "old-0", "old-1", "old-2"]
    assert [record.saga_id for record in await world.manager.list(status="running")] == ["old-0"]
    with pytest.raises(SagaError, match="No saga is named 'removed'"):
        await world.manager.cancel("old-0")
    ended = await world.manager.force_complete("old-0", "shipped by hand")
    assert (ended.status, ended.reason) == (SagaStatus.COMPLETED, "forced")
