"""What the Redis tests share: namespaces, processes, and the check of a whole log."""

from __future__ import annotations

import multiprocessing
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.testing.samples import positions, versions
from tests.faults import redis_shop, redis_writer
from tests.faults.redis_writer import Noted

if TYPE_CHECKING:
    pass

METHOD = "spawn" if sys.platform == "win32" else "forkserver"


def namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test:{uuid4().hex}"


def process(target: Any, *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a process that dies with this one."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([redis_writer.__name__, redis_shop.__name__])
    started = context.Process(target=target, args=arguments, daemon=True)  # type: ignore[attr-defined]
    started.start()
    return started  # type: ignore[no-any-return]


async def check_the_log(store: RedisEventStore, acknowledged: set[str]) -> int:
    """Check that the log is whole and holds every acknowledged batch once; return the number of events."""
    events: list[Noted] = [event async for event in store.stream_all(batch_size=1000)]
    assert positions(events) == list(range(1, await store.head() + 1)), "positions are gap-free"
    assert len({event.event_id for event in events}) == len(events), "every event is there once"
    batches: dict[str, list[Noted]] = defaultdict(list)
    for event in events:
        batches[event.batch].append(event)
    for name, found in batches.items():
        assert [event.index for event in found] == list(range(found[0].size)), f"batch {name} is whole and in order"
        assert found[-1].sequence_number == (found[0].sequence_number or 0) + found[0].size - 1, f"{name} is contiguous"
        assert not name.endswith("+") or name[:-1] in batches, f"the unit of work of {name} is whole"
    assert acknowledged <= batches.keys(), "everything acknowledged is there"
    for stream_id in await store.get_stream_ids():
        stored = await store.read(stream_id)
        assert versions(stored) == list(range(1, len(stored) + 1)), f"versions of {stream_id}"
    return len(events)
