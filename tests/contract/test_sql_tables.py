"""Checkpoints and idempotency in tables of the caller's choice keep the promises of the contract suites."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexigram.events.stores.checkpoints import SqlCheckpointStore
from lexigram.events.stores.idempotency import SqlIdempotencyStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.samples import added


class TestSqlCheckpointStore(CheckpointStoreContract):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "events.db")

    async def make_store(self) -> SqlCheckpointStore:
        return SqlCheckpointStore(self.path, "my_checkpoints")


class TestSqlIdempotencyStore(IdempotencyStoreContract):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "events.db")

    async def make_store(self) -> SqlIdempotencyStore:
        return SqlIdempotencyStore(self.path, "my_marks")


async def test_checkpoint_and_events_are_one_transaction(tmp_path: Path) -> None:
    """On the event store's database both are committed or neither is, the table's creation included."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as events:
        checkpoints = SqlCheckpointStore(events, "my_checkpoints")

        async def fail() -> None:
            async with events.unit_of_work():
                await events.append("a", added("1"))
                await checkpoints.save_checkpoint("orders", 1)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        assert await checkpoints.get_checkpoint("orders") == 0
        assert await events.head() == 0
        async with events.unit_of_work():
            await events.append("a", added("1"))
            await checkpoints.save_checkpoint("orders", 1)
        assert await checkpoints.get_checkpoint("orders") == 1
        await checkpoints.close()


@pytest.mark.parametrize("name", ["", "1st", "x" * 64, 'a"b', "a b", "a;drop", "a.b"])
def test_a_bad_table_name_is_refused(name: str) -> None:
    """Names become part of statements, so they match one pattern."""
    for cls in (SqlCheckpointStore, SqlIdempotencyStore):
        with pytest.raises(ValueError, match="table_name"):
            cls("events.db", name)
