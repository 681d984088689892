"""How fast a relay empties the outbox into the event bus of this process: rates as plain data."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from typing import Any
from uuid import uuid4

from benches.figures import Figure, show
from lexigram.events import DomainEvent, EventBusImpl
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.outbox import OutboxPublisher
from lexigram.events.stores.sqlite import SqliteEventStore

EVENTS = 30_000
KEYS = 500


class OutboxParcel(DomainEvent):
    """The event that is delivered."""

    number: int
    place: str


async def relay_rates(store: Any, events: int = EVENTS, *, batch_size: int = 1000) -> dict[str, float]:
    """Append events under a few hundred keys, then relay them to a handler that checks their order.

    Returns:
        `append_per_s` with the outbox on, `relay_per_s`, `out_of_order` (0) and `cpu_us_per_event`.
    """
    last: dict[str, int] = {}
    wrong = 0

    async def handle(event: OutboxParcel) -> None:
        nonlocal wrong
        key = str(event.place)
        wrong += event.number != last.get(key, -1) + 1
        last[key] = event.number

    bus = EventBusImpl()
    bus.subscribe(OutboxParcel, handle)
    async with store:
        publisher = OutboxPublisher(store, bus, batch_size=batch_size)
        await publisher.outbox.connect()
        started = time.perf_counter()
        for first in range(0, events // KEYS, 20):
            await asyncio.gather(
                *(
                    store.append(
                        f"parcel-{key}",
                        [
                            OutboxParcel(aggregate_id=f"parcel-{key}", number=first + n, place=f"p{key}")
                            for n in range(20)
                        ],
                    )
                    for key in range(KEYS)
                )
            )
        appended = time.perf_counter() - started
        started, cpu = time.perf_counter(), time.process_time()
        delivered = await publisher.publish_pending()
        relayed, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert delivered == events == sum(number + 1 for number in last.values())
    return {
        "append_per_s": round(events / appended),
        "relay_per_s": round(events / relayed),
        "cpu_us_per_event": round(cpu / events * 1e6, 1),
        "out_of_order": wrong,
    }


async def outbox_rates() -> dict[str, dict[str, float]]:
    """Measure memory, SQLite and PostgreSQL (its URL in LEXIGRAM_TEST_POSTGRES_URL, if any)."""
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        results["memory, batches of 1000"] = await relay_rates(InMemoryEventStore(max_events_per_stream=0))
        results["sqlite, batches of 1000"] = await relay_rates(SqliteEventStore(f"{folder}/events.db"))
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    if url:
        from lexigram.events.stores.postgres import PostgresEventStore

        for batch_size in (100, 1000):
            schema = f"outbox_{uuid4().hex[:12]}"
            store = PostgresEventStore(PostgresEventStoreConfig(dsn=url, schema_name=schema))
            results[f"postgres, batches of {batch_size}"] = await relay_rates(store, batch_size=batch_size)
    return results


def main() -> None:
    """Print the rates."""
    print(
        f"{EVENTS:,} events under {KEYS} keys, relayed to the event bus of the process; the handler checks their order"
    )
    for name, row in asyncio.run(outbox_rates()).items():
        bar = 15_000 if name.startswith("postgres") else None
        show(Figure(f"outbox, {name}", row["relay_per_s"], "events/s", at_least=bar))
        show(Figure(f"outbox, {name}: CPU of this process", row["cpu_us_per_event"], "µs per event"))


if __name__ == "__main__":
    main()
