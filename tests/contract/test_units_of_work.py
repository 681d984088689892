"""What the smaller stores do inside a unit of work of their event store happens with its commit, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.testing.samples import added, skus
from tests.backends import BACKENDS, MakeStore, make_store
from tests.contract.test_store_life import companion

__all__ = ["make_store"]


def small_store(backend: str, kind: str, store: Any) -> Any:
    """Return a checkpoint or idempotency store beside an event store."""
    if backend == "memory":
        return InMemoryCheckpointStore() if kind == "checkpoint" else InMemoryIdempotencyStore()
    return companion(backend, kind, store)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_forgetting_a_checkpoint_is_part_of_the_unit(make_store: MakeStore, backend: str) -> None:
    """A rollback brings it back; of saving and forgetting, the later one counts."""
    async with make_store(backend) as store, small_store(backend, "checkpoint", store) as checkpoints:
        await checkpoints.save_checkpoint("p", 5)
        with pytest.raises(RuntimeError):
            async with store.unit_of_work():
                await checkpoints.delete_checkpoint("p")
                raise RuntimeError
        assert await checkpoints.get_checkpoint("p") == 5
        async with store.unit_of_work():
            await checkpoints.save_checkpoint("p", 9)
            await checkpoints.delete_checkpoint("p")
        assert await checkpoints.get_checkpoint("p") == 0
        async with store.unit_of_work():
            await checkpoints.delete_checkpoint("p")
            await checkpoints.save_checkpoint("p", 7)
        assert await checkpoints.list_checkpoints() == {"p": 7}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_claim_that_was_rolled_back_is_free_at_once(make_store: MakeStore, backend: str) -> None:
    """The next attempt, made as soon as the block is left, gets it."""
    async with make_store(backend) as store, small_store(backend, "idempotency", store) as marks:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                async with store.unit_of_work():
                    assert await marks.claim("mailer", "m-1")
                    raise RuntimeError
            assert not await marks.is_processed("mailer", "m-1")
        assert await marks.claim("mailer", "m-1")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_reads_inside_see_its_own_appends_where_there_is_a_transaction(
    make_store: MakeStore, backend: str
) -> None:
    """Elsewhere they see what is committed; expected versions count its own appends everywhere."""
    own = ["2"] if backend in ("sqlite", "postgres") else []
    async with make_store(backend) as store:
        await store.append("a", added("1"))
        async with store.unit_of_work():
            await store.append("a", added("2"), expected_version=1)
            assert skus(await store.read("a")) == ["1", *own]
            assert skus(await store.read_all()) == ["1", *own]
            assert await store.get_stream_version("a") == await store.head() == 1 + len(own)
            assert await store.append("a", added("3"), expected_version=2) == 3
        assert skus(await store.read("a")) == ["1", "2", "3"]
