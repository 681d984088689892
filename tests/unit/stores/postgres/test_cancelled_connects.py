"""A task that is cancelled while it connects leaves nothing behind of which the event loop complains."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import Any

import pytest

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.postgres import PostgresEventStore


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a connection, and give it up a moment later without an answer."""
    await asyncio.sleep(0.02)
    writer.close()


@pytest.mark.parametrize("turns", range(1, 9))
async def test_a_cancelled_connect_leaves_no_error_behind(turns: int) -> None:
    """Wherever it is cut, also between the connection and the first answer of the server."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        store = PostgresEventStore(f"postgresql://u@127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
        connecting = asyncio.create_task(store.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with suppress(asyncio.CancelledError, EventStoreConnectionError):
            await connecting
        await store.close()
        await asyncio.sleep(0.1)
        gc.collect()
    finally:
        server.close()
        await server.wait_closed()
        loop.set_exception_handler(None)
    assert complaints == []
