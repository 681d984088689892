"""Leases share names among workers, and a worker that lost one knows it by its own clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.stores import lease as lease_module
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.lease import LeaseGroup

SECONDS = 0.12
NAMES = [f"n{number}" for number in range(5)]


def group(store: Any, owner: str, **options: Any) -> LeaseGroup:
    """Return a worker's side of the group that shares `NAMES`."""
    return LeaseGroup(store, "g", NAMES, owner=owner, **{"lease_seconds": SECONDS, **options})


async def until(condition: Any) -> None:
    """Wait for a condition, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def work(worker: LeaseGroup) -> None:
    """Do what a user of claims has to do: give back what others wait for."""
    while True:
        for claim in worker.claims.values():
            if claim.should_release and claim.is_held:
                await worker.release(claim)
        await asyncio.sleep(0.01)


async def test_names_are_shared_fairly_and_no_name_has_two_owners() -> None:
    """Five names: one worker has all, two have three and two, three have two, two and one; and back again."""
    store = InMemoryCheckpointStore()
    workers = [group(store, owner) for owner in "abc"]
    tasks = [asyncio.create_task(work(worker)) for worker in workers]

    def shares() -> list[int]:
        held = [worker.held for worker in workers]
        assert len({name for names in held for name in names}) == sum(map(len, held))
        return sorted(map(len, held))

    await workers[0].start()
    assert shares() == [0, 0, 5]
    await workers[1].start()
    await until(lambda: shares() == [0, 2, 3])
    await workers[2].start()
    await until(lambda: shares() == [1, 2, 2])
    await workers[0].stop()
    await until(lambda: shares() == [0, 2, 3])
    assert await workers[1].members() == ["b", "c"]
    for worker, task in zip(workers, tasks, strict=True):
        task.cancel()
        await worker.stop()
    assert await store.list_locks() == {}


async def test_a_worker_that_hangs_loses_its_names_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the lease has run out `is_held` is False, before anybody has told it; its writes are refused."""
    store = InMemoryCheckpointStore()
    hanging = group(store, "a", lease_seconds=1000.0)
    await hanging.start()
    claim = hanging.claims["n0"]
    assert claim.is_held
    epoch, real = claim.epoch, lease_module.time.monotonic
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: real() + 1001.0)
        assert not claim.is_held
        async with group(store, "b") as other:
            assert other.claims["n0"].is_held
            assert other.claims["n0"].epoch == epoch + 1
            with pytest.raises(ConcurrencyError):
                await store.save_checkpoint("n0", 1, epoch=epoch)
            await store.save_checkpoint("n0", 2, epoch=epoch + 1)
    await hanging.stop()


async def test_waiting_for_a_claim_ends_when_its_owner_leaves() -> None:
    """At the latest a third of the lease later."""
    store = InMemoryCheckpointStore()
    first, second = group(store, "a"), group(store, "b", lease_seconds=SECONDS)
    await first.start()
    await second.start()
    waiting = asyncio.create_task(second.claims["n4"].wait())
    await first.stop()
    async with asyncio.timeout(5):
        await waiting
    assert second.claims["n4"].is_held
    await second.stop()


async def test_a_database_that_is_away_for_a_while_costs_nothing() -> None:
    """Renewals that fail are tried again; the names stay, and the last error can be read."""
    store = InMemoryCheckpointStore()
    worker = group(store, "a", lease_seconds=0.6)
    await worker.start()
    acquire = store._acquire

    async def away(*_: Any) -> bool:
        raise OSError("no route")

    store._acquire = away  # type: ignore[method-assign]
    await until(lambda: worker.last_error is not None)
    assert "no route" in str(worker.last_error)
    store._acquire = acquire  # type: ignore[method-assign]
    await until(lambda: worker.last_error is None)
    assert worker.held == NAMES
    await worker.stop()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"group": ""}, "group"),
        ({"lease_seconds": 0}, "lease_seconds"),
        ({"names": [5]}, "name"),
        ({"owner": ""}, "owner"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], field: str) -> None:
    """Each by its field."""
    given: dict[str, Any] = {"group": "g", **arguments}
    with pytest.raises(EventValidationError, match=field):
        LeaseGroup(InMemoryCheckpointStore(), **given)
