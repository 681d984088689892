"""Files of applications whose own tables have names like ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.samples import added

pytestmark = pytest.mark.asyncio


def made(path: Path, script: str) -> list[str]:
    """Make the application's file and return what is in it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        return list(connection.iterdump())


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE calendar_event_meta (id INTEGER, meta_key TEXT, meta_value TEXT)",
        "CREATE TABLE calendar_event_meta (key TEXT, value TEXT);"
        "INSERT INTO calendar_event_meta VALUES ('schema_version', 'v12')",
        """CREATE TABLE "a ""quoted"" event_meta" (key TEXT, value TEXT)""",
    ],
)
async def test_another_programs_event_meta_is_not_taken_for_ours(tmp_path: Path, script: str) -> None:
    """It was an error of the driver, or of Python."""
    path = tmp_path / "app.db"
    made(path, script)
    async with SqliteEventStore(str(path)) as store:
        assert await store.append("a", added("1")) == 1


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE events (id INTEGER, name TEXT)",
        "CREATE TABLE event_meta (id INTEGER, meta_key TEXT)",
        "CREATE TABLE event_meta (key TEXT, value TEXT)",
    ],
)
async def test_a_name_that_is_taken_is_an_error_that_says_what_to_do(tmp_path: Path, script: str) -> None:
    """Nothing is changed, and with a prefix both live side by side."""
    path = tmp_path / "app.db"
    before = made(path, script)
    with pytest.raises(EventStoreConnectionError, match=r"already exists.*choose another table_prefix"):
        await SqliteEventStore(str(path)).connect()
    assert made(path, "") == before
    async with SqliteEventStore(str(path), table_prefix="log_") as store:
        assert await store.append("a", added("1")) == 1
