"""Group commit for small statements."""

from __future__ import annotations

import asyncio

import pytest

from lexigram.events.stores._batcher import Batcher

Item = tuple[str, int]


async def test_what_comes_while_a_batch_is_written_goes_into_the_next() -> None:
    """Each caller gets its own outcome; no batch is larger than it may be."""
    batches: list[list[Item]] = []

    async def write(batch: list[Item]) -> list[int]:
        batches.append(batch)
        await asyncio.sleep(0.001)
        return [number * 10 for _, number in batch]

    batcher = Batcher(write, key=lambda item: item[0], at_most=8)
    outcomes = await asyncio.gather(*(batcher.submit((f"k{number}", number)) for number in range(20)))
    assert outcomes == [number * 10 for number in range(20)]
    assert [len(batch) for batch in batches] == [8, 8, 4]


async def test_items_of_one_key_keep_their_order_and_never_share_a_batch() -> None:
    """The second one waits for the next batch."""
    batches: list[list[Item]] = []

    async def write(batch: list[Item]) -> list[None]:
        batches.append(batch)
        return [None] * len(batch)

    batcher = Batcher(write, key=lambda item: item[0])
    await asyncio.gather(*(batcher.submit((key, number)) for number in range(3) for key in "ab"))
    assert batches == [[("a", number), ("b", number)] for number in range(3)]


async def test_an_item_that_cannot_be_written_fails_alone() -> None:
    """Its neighbours are written; later items too."""

    async def write(batch: list[Item]) -> list[str]:
        if any(key == "bad" for key, _ in batch):
            raise ValueError("bad item")
        return [key for key, _ in batch]

    batcher = Batcher(write, key=lambda item: item[0])
    outcomes = await asyncio.gather(*(batcher.submit((key, 0)) for key in ("a", "bad", "c")), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == ("a", "c")
    assert isinstance(outcomes[1], ValueError)
    assert await batcher.submit(("d", 0)) == "d"


async def test_an_item_nobody_waits_for_any_more_is_not_written() -> None:
    """As long as its batch has not begun."""
    written: list[str] = []
    begun = asyncio.Event()

    async def write(batch: list[Item]) -> list[None]:
        begun.set()
        await asyncio.sleep(0.01)
        written.extend(key for key, _ in batch)
        return [None] * len(batch)

    batcher = Batcher(write, key=lambda item: item[0])
    first = asyncio.create_task(batcher.submit(("a", 0)))
    await begun.wait()
    second, third = (asyncio.create_task(batcher.submit((key, 0))) for key in "bc")
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert written == ["a", "c"]
