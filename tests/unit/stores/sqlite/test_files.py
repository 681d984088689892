"""Files that cannot be used: one clear error with the file's name and the fix, and the file stays as it was."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lexigram.events.config import SqliteConfig
from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
    EventValidationError,
)
from lexigram.events.stores.checkpoints import SqlCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from lexigram.events.stores.sqlite.snapshot_store import SqliteSnapshotStore
from lexigram.events.testing.samples import added, skus


async def refused(path: Path, fix: str) -> None:
    """Check that connecting fails with the file's name and `fix`, and leaves file and directory as they were."""
    before = path.read_bytes() if path.is_file() else None
    for store in (SqliteEventStore(str(path)), SqliteSnapshotStore(str(path))):
        with pytest.raises(EventStoreConnectionError, match=fix) as caught:
            await store.connect()
        assert str(path) in str(caught.value)
        await store.close()
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [entry.name for entry in path.parent.iterdir()] == ([path.name] if path.exists() else [])


async def filled(path: Path, events: int = 3) -> None:
    """Write a good file."""
    async with SqliteEventStore(str(path)) as store:
        await store.append("a", added(*map(str, range(events))))


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """It might be somebody's document."""
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1000)
    await refused(path, "not an SQLite database")


async def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """It is not created silently: it is probably misspelt."""
    with pytest.raises(EventStoreConnectionError, match="directory exists") as caught:
        await SqliteEventStore(str(tmp_path / "missing" / "events.db")).connect()
    assert "missing" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """The same clear error."""
    with pytest.raises(EventStoreConnectionError, match="cannot be opened"):
        await SqliteEventStore(str(tmp_path)).connect()


async def test_another_applications_file_is_refused(tmp_path: Path) -> None:
    """Its header says whose it is."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA application_id = 252006673; CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)"
    )
    connection.close()
    await refused(path, "another application")


@pytest.mark.parametrize("mark", ["header", "table"])
async def test_a_newer_schema_is_refused(tmp_path: Path, mark: str) -> None:
    """An old program must not write into a file that it does not understand."""
    path = tmp_path / "events.db"
    await filled(path)
    connection = sqlite3.connect(path)
    if mark == "header":
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    else:
        connection.execute("UPDATE event_meta SET value = ? WHERE key = 'schema_version'", (SCHEMA_VERSION + 1,))
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.commit()
    connection.close()
    await refused(path, "upgrade lexigram-events")


READ_ONLY = """
import asyncio, os, sys
from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

async def main(path):
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        os.setuid(65534)
    try:
        await SqliteEventStore(path).connect()
    except EventStoreConnectionError as error:
        print(error)
    else:
        print("opened")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_read_only_file_is_refused(tmp_path: Path) -> None:
    """In a process of its own, because the superuser may write everywhere."""
    path = tmp_path / "events.db"
    await filled(path)
    before = path.read_bytes()
    path.chmod(0o444)
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], check=True, timeout=60, capture_output=True, text=True
    )
    assert str(path) in done.stdout
    assert "writable" in done.stdout
    path.chmod(0o644)
    assert path.read_bytes() == before


async def test_a_file_opened_read_only_can_be_read_but_not_written(tmp_path: Path) -> None:
    """For inspection; an append gets one clear error."""
    path = tmp_path / "events.db"
    await filled(path)
    async with SqliteEventStore(f"file:{path.as_posix()}?mode=ro") as store:
        assert skus(await store.read_all()) == ["0", "1", "2"]
        with pytest.raises(EventPersistenceError, match="read-only"):
            await store.append("a", added("3"))
        with pytest.raises(EventPersistenceError, match="read-only"):
            async with store.unit_of_work():
                await store.append("a", added("3"))


async def test_a_full_file_stores_all_or_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit of pages acts as a full disk: one clear error, nothing half stored, and later appends work."""
    path = tmp_path / "events.db"
    config = SqliteConfig(database=str(path), pragmas={"max_page_count": "120"})
    async with SqliteEventStore(config) as store:
        stored = 0
        with pytest.raises(EventPersistenceError, match="disk is full") as caught:
            while True:
                await store.append("a", added(*["x" * 500] * 20))
                stored += 20
        assert str(path) in str(caught.value)
        outcomes = await asyncio.gather(
            *(store.append(f"s{n}", added(*["y" * 500] * 20)) for n in range(5)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {EventPersistenceError}
        with pytest.raises(EventPersistenceError, match="disk is full"):
            async with store.unit_of_work() as unit:
                await unit.execute("CREATE TABLE orders (x)")
                await store.append("b", added(*["z" * 500] * 20))
        assert await store.get_stream_version("a") == stored
        assert await store.head() == stored
        assert await store.get_stream_ids() == ["a"]
    async with SqliteEventStore(str(path)) as store:
        assert await store.append("a", added("there is room again"), expected_version=stored) == stored + 1
        assert await store.engine.fetch_one("PRAGMA integrity_check") == ("ok",)


FULL_DISK = """
import asyncio, resource, signal, sys
from lexigram.events.exceptions import EventPersistenceError
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.samples import added

async def main(path):
    async with SqliteEventStore(path) as store:
        await store.append("a", added("1"))
        stored = 1
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        try:
            while True:
                await store.append("a", added(*["x" * 500] * 10))
                stored += 10
        except EventPersistenceError as error:
            assert path in str(error), error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await store.append("a", added("more")) == stored + 1
        print(stored + 1)

asyncio.run(main(sys.argv[1]))
"""


if sys.platform != "win32":  # which has no limit of the file size per process

    async def test_a_disk_that_refuses_to_grow_the_file_is_reported(tmp_path: Path) -> None:
        """The operating system's own error: one clear error, what was acknowledged is there, and the store goes on."""
        path = tmp_path / "events.db"
        done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        async with SqliteEventStore(str(path)) as store:
            events = await store.read("a")
            assert len(events) == int(done.stdout) > 1
            assert skus(events)[-1] == "more"


async def test_a_damaged_page_is_reported_where_it_is_read(tmp_path: Path) -> None:
    """The error names the file and what to do; nothing wrong is returned, nothing is written."""
    path = tmp_path / "events.db"
    await filled(path, 3000)
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(6 * page, len(data), page):
        data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    async with SqliteEventStore(str(path)) as store:
        with pytest.raises(EventLoadError, match="damaged") as caught:
            await store.read_all()
        assert str(path) in str(caught.value)
        with pytest.raises(EventPersistenceError, match="damaged"):
            await store.append("a", added("1"))


async def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """A file that begins like a database but is not one."""
    path = tmp_path / "events.db"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(5000))
    await refused(path, r"not an SQLite database|damaged")


async def test_our_tables_live_beside_an_applications_own(tmp_path: Path) -> None:
    """A file without an application id may hold other tables; its header is left to its owner."""
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA user_version = 99; CREATE TABLE customers (x); INSERT INTO customers VALUES (1)")
    connection.close()
    async with SqliteEventStore(str(path)) as store, SqliteEventStore(str(path), table_prefix="audit_") as audit:
        await store.append("a", added("1"))
        await audit.append("a", added("2", "3"))
        assert await store.engine.fetch_one("PRAGMA user_version") == (99,)
        assert await store.engine.fetch_one("PRAGMA application_id") == (0,)
        assert await store.engine.fetch_one("SELECT * FROM customers") == (1,)
        assert (skus(await store.read_all()), skus(await audit.read_all())) == (["1"], ["2", "3"])
        assert (await store.head(), await audit.head()) == (1, 2)


async def test_a_new_file_is_marked_as_ours(tmp_path: Path) -> None:
    """So that `file` and other tools can tell, and a newer schema is noticed."""
    path = tmp_path / "events.db"
    await filled(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_payloads_are_readable_with_sql(tmp_path: Path) -> None:
    """JSON is stored as text, so SQL functions work on it."""
    path = tmp_path / "events.db"
    await filled(path)
    async with SqliteEventStore(str(path)) as store:
        rows = await store.engine.fetch_all("SELECT json_extract(payload, '$.sku') FROM events ORDER BY position")
        assert rows == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("", "database"),
        ("a\x00b", "database"),
        (7, "database"),
        (SqliteConfig(pragmas={"synchronous": "SOMETIMES"}), "synchronous"),
        (SqliteConfig(pragmas={"journal_mode": "NONE"}), "journal_mode"),
        (SqliteConfig(pragmas={"busy_timeout": "-1"}), "pragmas"),
        (SqliteConfig(pragmas={"cache_size": "1; DROP TABLE events"}), "pragmas"),
        (SqliteConfig(pragmas={"foreign keys": "1"}), "pragmas"),
    ],
)
def test_bad_settings_are_refused(config: object, field: str) -> None:
    """Before anything is opened, naming the setting."""
    with pytest.raises(EventValidationError) as caught:
        SqliteEventStore(config)
    assert caught.value.field == field


@pytest.mark.parametrize("prefix", ["1x", "a-b", 'a"; DROP TABLE events; --', "ä_", "x" * 60])
def test_bad_table_prefixes_are_refused(prefix: str) -> None:
    """Table names are quoted into statements, so only plain names pass."""
    with pytest.raises(EventValidationError) as caught:
        SqliteEventStore("events.db", table_prefix=prefix)
    assert caught.value.field == "table_prefix"


async def test_urls_paths_and_configuration_name_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine serves them all."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "events.db"
    spellings: list[object] = [
        "events.db",
        path,
        "./x/../events.db",
        "sqlite:///events.db",
        f"sqlite:///{path}",
        SqliteConfig(database="events.db"),
        None,
    ]
    stores = [SqliteEventStore(spelling) for spelling in spellings]
    for number, store in enumerate(stores):
        assert await store.append("a", added(str(number))) == number + 1
    assert len({id(store.engine) for store in stores}) == 1
    for store in stores:
        await store.close()


@pytest.mark.parametrize("address", ["postgresql://u:secret@h/x", "redis://:secret@h", "mongodb://u:secret@h"])
def test_the_address_of_another_database_is_no_file_name(address: str) -> None:
    """It is refused without showing the password that may be in it."""
    with pytest.raises(EventValidationError, match=r"got a .*:// address") as caught:
        SqliteEventStore(address)
    assert "secret" not in str(caught.value)


async def test_pragmas_and_journal_mode_are_applied(tmp_path: Path) -> None:
    """The configuration decides; durable is the default."""
    async with SqliteEventStore(str(tmp_path / "default.db")) as store:
        settings = await store.engine.run(
            lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
        )
        assert settings == [2, "wal"]
    config = SqliteConfig(
        database=str(tmp_path / "other.db"), wal_mode=False, pragmas={"synchronous": "1", "cache_size": "-123"}
    )
    async with SqliteEventStore(config) as store:
        names = ("synchronous", "journal_mode", "cache_size")
        settings = await store.engine.run(lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in names])
        assert settings == [1, "delete", -123]
        await asyncio.gather(*(store.append("a", added(str(n))) for n in range(50)))
        assert await store.get_stream_version("a") == 50


async def test_without_a_write_ahead_log_writers_wait_for_readers(tmp_path: Path) -> None:
    """Both go on at the same time; nobody gets the driver's lock error."""
    config = SqliteConfig(database=str(tmp_path / "events.db"), wal_mode=False, synchronous="OFF")
    async with SqliteEventStore(config) as store:
        await store.append("a", added(*map(str, range(2000))))

        async def write(name: str) -> None:
            for number in range(20):
                await store.append(name, added(str(number)))

        async def read() -> None:
            for _ in range(20):
                assert len(await store.read_all(0, 2000)) == 2000

        await asyncio.gather(write("b"), write("c"), read(), read(), read())
        assert await store.head() == 2040


async def test_the_engine_is_not_there_before_connect() -> None:
    """Asking for it says what to do."""
    with pytest.raises(EventStoreError, match=r"connect\(\)"):
        _ = SqliteEventStore(":memory:").engine


async def test_a_file_of_the_first_schema_gets_what_is_new(tmp_path: Path) -> None:
    """Its positions and leases stay; so it is for a table that `SqlCheckpointStore` has made under another name."""
    path = tmp_path / "old.db"
    async with (
        SqliteEventStore(path) as store,
        store.checkpoint_store() as first,
        SqlCheckpointStore(store, "own") as own,
    ):
        for checkpoints in (first, own):
            await checkpoints.save_checkpoint("orders", 7)
    with closing(sqlite3.connect(path)) as connection:
        for table in ("event_checkpoints", "own"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN fault")
        connection.execute("UPDATE event_meta SET value = 1 WHERE key = 'schema_version'")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    async with (
        SqliteEventStore(path) as store,
        store.checkpoint_store() as first,
        SqlCheckpointStore(store, "own") as own,
    ):
        for checkpoints in (first, own):
            assert await checkpoints.get_checkpoint("orders") == 7
            assert await checkpoints.acquire_lock("orders", "a")
            await checkpoints.release_lock("orders", "a", fault="no")
            assert await checkpoints.list_faults() == {"orders": "no"}
