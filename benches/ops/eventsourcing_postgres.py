"""The PostgreSQL recorder of the `eventsourcing` library: threads that insert one event each, as its users would."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from worker import report

RECORDERS: dict[str, PostgresApplicationRecorder] = {}


def recorder_of(url: str, writers: int) -> PostgresApplicationRecorder:
    """Return the recorder of this process, with a connection for each writer, and its table made."""
    if url not in RECORDERS:
        parts = urlsplit(url)
        datastore = PostgresDatastore(
            dbname=parts.path.lstrip("/"),
            host=parts.hostname or "127.0.0.1",
            port=str(parts.port),
            user=parts.username or "postgres",
            password=parts.password or "none",
            pool_size=writers,
            max_overflow=0,
        )
        table = f"recorded_{uuid4().hex[:8]}"
        RECORDERS[url] = PostgresApplicationRecorder(datastore, events_table_name=table)
        RECORDERS[url].create_table()
    return RECORDERS[url]


@report("recorder")
async def recorder(url: str, writers: int, seconds: float, size: int) -> dict[str, Any]:
    """Return the events per second that so many threads insert, one at a time, each into streams of its own."""
    target, state = recorder_of(url, writers), b"x" * size
    done = [0] * writers
    begin, end = threading.Barrier(writers + 1), 0.0

    def write(number: int) -> None:
        order_id, version = uuid4(), 0
        begin.wait()
        while time.perf_counter() < end:
            target.insert_events([StoredEvent(order_id, version, "bench:Ordered", state)])
            version += 1
        done[number] = version

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    end = started + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    return {"rate": sum(done) / (time.perf_counter() - started)}
