"""Creates and migrates the tables, and refuses files that are not ours to write.

Three marks say what a file holds: `application_id` and `user_version` in the header of a file that we created, and
the row `schema_version` of each `event_meta` table, which also works inside an application's own database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.sqlite.connection import use_journal
from lexigram.events.stores.sqlite.names import TableNames
from lexigram.events.stores.sqlite.settings import SqliteSettings

APPLICATION_ID: Final = 0x4C584556
"""The letters LXEV."""

SCHEMA_VERSION: Final = 2

_MARKS: Final = "'schema_version', 'removed_position'"
"""What tells an `event_meta` table of ours from one of another program."""


def prepare_file(connection: sqlite3.Connection, settings: SqliteSettings) -> None:
    """Check that this library may write to the file, then set its journal mode. Changes nothing if it raises.

    Raises:
        EventStoreConnectionError: LEX_ERR_EVT_014, another application's file, or one of a newer release.
        sqlite3.DatabaseError: The file is no database, damaged or read-only.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application not in (0, APPLICATION_ID):
        raise EventStoreConnectionError(
            f"SQLite file {settings.path} belongs to another application (application_id {application:#010x}); "
            "choose another file name, this one was left untouched"
        )
    found = connection.execute("PRAGMA user_version").fetchone()[0] if application else 0
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%event\\_meta' ESCAPE '\\'"
    for (table,) in connection.execute(tables).fetchall():
        found = max(found, _version_in(connection, table))
    _check_version(found, settings.path)
    # Fails on a read-only file, before anything has been changed.
    connection.execute("BEGIN IMMEDIATE")
    connection.rollback()
    use_journal(connection, settings)


def migrate(connection: sqlite3.Connection, names: TableNames, path: str) -> None:
    """Create the tables of `names`, or bring them to the current version. Runs inside a write transaction.

    Raises:
        EventStoreConnectionError: LEX_ERR_EVT_014, the tables are of a newer release, or a name is taken by others.
    """
    version = _stored_version(connection, names)
    _check_version(version, path)
    if version == SCHEMA_VERSION:
        return
    is_new_file = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    try:
        for step in range(version, SCHEMA_VERSION):
            _STEPS[step](connection, names)
    except Exception as error:
        if "already exists" not in str(error):
            raise
        raise EventStoreConnectionError(
            f"SQLite file {path}: {error}, and it is not of this library; choose another table_prefix, nothing was changed"
        ) from error
    connection.execute(
        f"INSERT INTO {names.meta} (key, value) VALUES ('schema_version', ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (SCHEMA_VERSION,),
    )
    if is_new_file:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_version(found: int, path: str) -> None:
    if found > SCHEMA_VERSION:
        raise EventStoreConnectionError(
            f"SQLite file {path} was written by a newer release (schema {found}, this one knows {SCHEMA_VERSION}); "
            "upgrade lexigram-events, the file was left untouched"
        )


def _stored_version(connection: sqlite3.Connection, names: TableNames) -> int:
    exists = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (names.meta.strip('"'),)
    ).fetchone()
    return 0 if exists is None else _version_in(connection, names.meta.strip('"'))


def _version_in(connection: sqlite3.Connection, table: str) -> int:
    """Return the schema version that a table of this library holds; 0 if another program has made it."""
    quoted = '"' + table.replace('"', '""') + '"'
    if [row[1] for row in connection.execute(f"PRAGMA table_info({quoted})").fetchall()] != ["key", "value"]:
        return 0
    rows = dict(connection.execute(f"SELECT key, value FROM {quoted} WHERE key IN ({_MARKS})").fetchall())
    return int(rows["schema_version"]) if len(rows) == 2 else 0


def _create(connection: sqlite3.Connection, names: TableNames) -> None:
    """Version 1. Times are microseconds since 1970 in UTC, ids of events 16 bytes, payloads JSON text by default."""
    for statement in (*_events_tables(names), *_state_tables(names)):
        connection.execute(statement)


def _events_tables(names: TableNames) -> tuple[str, ...]:
    return (
        f"CREATE TABLE {names.meta} (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        f"INSERT INTO {names.meta} (key, value) VALUES ('removed_position', 0)",
        # Events refer to their stream and type by integer: half the size of every index, twice the speed of appends.
        f"""CREATE TABLE {names.streams} (
            key INTEGER PRIMARY KEY,
            stream_id TEXT NOT NULL,
            partition_hash INTEGER NOT NULL,
            removed_version INTEGER NOT NULL DEFAULT 0)""",
        f"CREATE UNIQUE INDEX {names.index('event_streams_by_id')} ON {names.streams} (stream_id)",
        f"""CREATE TABLE {names.types} (
            key INTEGER PRIMARY KEY,
            type_name TEXT NOT NULL,
            event_type TEXT NOT NULL,
            UNIQUE (type_name, event_type))""",
        f"""CREATE TABLE {names.events} (
            position INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL,
            version INTEGER NOT NULL,
            type INTEGER NOT NULL,
            event_id BLOB NOT NULL,
            occurred_at INTEGER NOT NULL,
            payload NOT NULL)""",
        f"CREATE UNIQUE INDEX {names.index('events_by_stream')} ON {names.events} (stream, version)",
        f"CREATE UNIQUE INDEX {names.index('events_by_id')} ON {names.events} (event_id)",
        # The row id, which is the position, ends every index entry: this one is (type, position).
        f"CREATE INDEX {names.index('events_by_type')} ON {names.events} (type)",
        f"""CREATE TABLE {names.tags} (
            tag TEXT NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (tag, position)) WITHOUT ROWID""",
    )


def _state_tables(names: TableNames) -> tuple[str, ...]:
    return (
        f"""CREATE TABLE {names.snapshots} (
            aggregate_id TEXT NOT NULL,
            version INTEGER NOT NULL,
            aggregate_type TEXT NOT NULL,
            taken_at INTEGER NOT NULL,
            state NOT NULL,
            metadata NOT NULL,
            PRIMARY KEY (aggregate_id, version))""",
        f"""CREATE TABLE {names.checkpoints} (
            name TEXT PRIMARY KEY,
            position INTEGER,
            updated_at INTEGER,
            owner TEXT,
            expires_at REAL NOT NULL DEFAULT 0,
            epoch INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
        f"""CREATE TABLE {names.idempotency} (
            consumer_id TEXT NOT NULL,
            message_id TEXT NOT NULL,
            expires_at REAL,
            PRIMARY KEY (consumer_id, message_id)) WITHOUT ROWID""",
        f"CREATE INDEX {names.index('event_idempotency_by_expiry')} ON {names.idempotency} (expires_at) "
        "WHERE expires_at IS NOT NULL",
        f"""CREATE TABLE {names.dead_letters} (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            entry_id TEXT NOT NULL UNIQUE,
            event_type TEXT NOT NULL,
            handler_name TEXT NOT NULL,
            aggregate_id TEXT,
            error TEXT NOT NULL,
            error_type TEXT NOT NULL,
            failed_at INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            waiting INTEGER NOT NULL,
            replayed INTEGER NOT NULL,
            replayed_at INTEGER,
            event_data NOT NULL,
            event_type_name TEXT,
            event_payload,
            event_version INTEGER,
            event_position INTEGER)""",
        f"CREATE INDEX {names.index('event_dead_letters_by_lane')} ON {names.dead_letters} "
        "(handler_name, aggregate_id) WHERE replayed = 0",
    )


def _add_faults(connection: sqlite3.Connection, names: TableNames) -> None:
    """Version 2. Why the last owner of a lease gave it back."""
    connection.execute(f"ALTER TABLE {names.checkpoints} ADD COLUMN fault TEXT")


_STEPS: Final[tuple[Callable[[sqlite3.Connection, TableNames], None], ...]] = (_create, _add_faults)
"""Step n brings the tables from version n to n + 1."""
