"""Batches of events that tell whether they are whole, the check of a log of them, and processes that append them."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from lexigram.events import DomainEvent, EventStoreConnectionError, event_type
from tests.backends import open_store

METHOD = "spawn" if sys.platform == "win32" else "forkserver"
WRITERS = 6


@event_type("faults.posted")
class Posted(DomainEvent):
    """One event of a batch: the batch's name, its size, and which of it this is."""

    batch: str
    size: int
    index: int
    filling: str = ""


def batch(name: str, size: int, filling: str = "") -> list[Posted]:
    """Return the events of a batch."""
    return [Posted(batch=name, size=size, index=index, filling=filling) for index in range(size)]


async def post_unit(store: Any, name: str, filling: str = "") -> None:
    """Append two batches in a unit of work, whose second name ends with a plus; the same again if the server goes away."""
    first, second = batch(name, 2, filling), batch(f"{name}+", 1)
    while True:
        try:
            async with store.unit_of_work():
                await store.append("a", first)
                await store.append("b", second)
            return
        except EventStoreConnectionError:
            await asyncio.sleep(0.02)


async def check_log(store: Any, acknowledged: Iterable[str] = ()) -> set[str]:
    """Check that no number is missing, no event is there twice and all batches are whole; return their names."""
    head = await store.head()
    events: list[Posted] = [event async for event in store.stream_all(batch_size=2000)]
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1)), "positions have no gap"
    assert len(events) >= head, "what is at or below the head can be read"
    assert len({event.event_id for event in events}) == len(events), "every event is there once"
    batches: dict[str, list[Posted]] = defaultdict(list)
    for event in events:
        batches[event.batch].append(event)
    for name, found in batches.items():
        assert [event.index for event in found] == list(range(found[0].size)), f"batch {name} is whole, once, in order"
        assert found[-1].sequence_number == (found[0].sequence_number or 0) + len(found) - 1, f"{name} is contiguous"
    for name in batches:
        assert not name.endswith("+") or name[:-1] in batches, f"the unit of work of {name} is whole"
    assert not set(acknowledged) - batches.keys(), "everything acknowledged is there"
    for stream_id in await store.get_stream_ids():
        stored = await store.read(stream_id)
        assert [event.version for event in stored] == list(range(1, len(stored) + 1)), f"versions of {stream_id}"
    return set(batches)


async def follow(store: Any, position: int = 0) -> AsyncIterator[int]:
    """Yield the positions of a subscription that begins again where it was when the server was away; for ever."""
    while True:
        try:
            async for event in store.subscribe(position, batch_size=200):
                assert event.sequence_number == position + 1, "the next position, none skipped, none twice"
                position += 1
                yield position
        except EventStoreConnectionError:
            await asyncio.sleep(0.02)


async def follow_until(store: Any, position: int, seconds: float, after: int = 0) -> None:
    """Follow the log up to a position, in so many seconds at most."""
    async with asyncio.timeout(seconds):
        async for seen in follow(store, after):
            if seen >= position:
                return


async def write_for_ever(store: Any, name: str, number: int, acknowledge: Any) -> None:
    """Append batches of one to seven and units of work; call `acknowledge` with the name of each that is stored."""
    for n in range(1_000_000):
        key = f"{name}/{number}/{n}"
        if n % 4 == 3:
            await post_unit(store, key)
        else:
            await store.append(f"s{n % 5}", batch(key, 1 + n % 7))
        acknowledge(key)


def main(backend: str, where: Any, name: str, acks: Connection) -> None:
    """Be a process that writes until it is killed."""

    async def write() -> None:
        async with open_store(backend, where) as store:
            one = (
                write_for_ever(store, name, number, lambda key: acks.send_bytes(key.encode()))
                for number in range(WRITERS)
            )
            await asyncio.gather(*one)

    asyncio.run(write())


class WritingProcess:
    """A process that writes until it is killed."""

    def __init__(self, backend: str, where: Any, name: str) -> None:
        context = multiprocessing.get_context(METHOD)
        if METHOD == "forkserver":
            context.set_forkserver_preload([__name__])
        self._acks, writing = context.Pipe(duplex=False)
        self._process = context.Process(target=main, args=(backend, where, name, writing), daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        writing.close()

    async def works(self) -> None:
        """Wait for its first acknowledgement."""
        assert await asyncio.to_thread(self._acks.poll, 60), "the process does not say that it works"

    def kill(self) -> set[str]:
        """Kill it; return what it had acknowledged."""
        assert self._process.is_alive(), "it ended by itself"
        self._process.kill()
        self._process.join()
        acknowledged = set()
        with suppress(EOFError, OSError):
            while True:
                acknowledged.add(self._acks.recv_bytes().decode())
        self._acks.close()
        return acknowledged
