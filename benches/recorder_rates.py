"""Single events of 32 writers on PostgreSQL: our store against the recorder of the `eventsourcing` library, in turns.

Run: python tools/services.py run postgres -- python -m benches.recorder_rates
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from uuid import uuid4

from benches.environments import CACHE, Environment, install
from benches.figures import Figure, show
from benches.postgres_rates import event, rate
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.postgres import PostgresEventStore

WRITERS = 32
ROUNDS = 5
SECONDS = 1.0
BAR = 15


async def measure(url: str, theirs: Environment) -> None:
    """Print both rates and their ratio; the events are of the same size."""
    size = len(EventCodec().encode(event()).payload)
    config = PostgresEventStoreConfig(dsn=url, schema_name=f"bench_{uuid4().hex[:8]}")
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    async with PostgresEventStore(config) as store:

        async def one(writer: int, _: int) -> None:
            await store.append(f"s{writer}", [event()])

        for _ in range(ROUNDS + 1):
            found["ours"].append((await rate(one, WRITERS, SECONDS))[0])
            answer = theirs.report("recorder", url=url, writers=WRITERS, seconds=SECONDS, size=size)
            if "error" in answer:
                raise RuntimeError(answer["error"])
            found["theirs"].append(answer["rate"])
    ours, recorder = found["ours"][1:], found["theirs"][1:]  # the first round warms both up
    print(f"{WRITERS} writers: ours {statistics.median(ours):,.0f}/s, recorder {statistics.median(recorder):,.0f}/s")
    ratio = statistics.median(a / b for a, b in zip(ours, recorder, strict=True))
    show(Figure(f"PostgreSQL: ours against eventsourcing's recorder, {WRITERS} writers", ratio, "x", at_least=BAR))


def main() -> None:
    """Run on the server that LEXIGRAM_TEST_POSTGRES_URL names."""
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = ("eventsourcing==9.5.6", "psycopg[binary,pool]==3.3.9")
    theirs = Environment(
        "eventsourcing", "eventsourcing_postgres", install("eventsourcing-pg", sys.executable, *packages)
    )
    try:
        asyncio.run(measure(os.environ["LEXIGRAM_TEST_POSTGRES_URL"], theirs))
    finally:
        theirs.close()


if __name__ == "__main__":
    main()
