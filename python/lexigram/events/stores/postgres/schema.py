"""Creates and migrates the tables. Runs in one transaction under a lock of its own, so processes may race."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.postgres.append_function import functions
from lexigram.events.stores.postgres.names import TableNames

SCHEMA_VERSION: Final = 5

_LOCK: Final = "SELECT pg_advisory_xact_lock(1280853334, hashtext($1))"


async def migrate(connection: Any, names: TableNames, payload: str, *, create: bool) -> str:
    """Bring the tables of `names` to the current version inside the open transaction of `connection`.

    Args:
        payload: Type of the payload column of a new log: `json`, `jsonb` or `bytea`.
        create: False = only check.

    Returns:
        The type of the payload column that is there.

    Raises:
        EventStoreConnectionError: LEX_ERR_EVT_014, tables of a newer release, or none and `create` is off.
    """
    if await _version(connection, names) != SCHEMA_VERSION:
        await connection.fetch(_LOCK, names.events)
        found = await _version(connection, names)
        if found > SCHEMA_VERSION:
            raise EventStoreConnectionError(
                f"the tables of {names.events} were made by a newer release (schema {found}, this one knows "
                f"{SCHEMA_VERSION}); upgrade lexigram-events, nothing was changed"
            )
        if found < SCHEMA_VERSION and not create:
            raise EventStoreConnectionError(
                f"the tables of {names.events} are missing or old (schema {found}, needed {SCHEMA_VERSION}); "
                "set auto_create_tables, or connect once with a user who may create them"
            )
        if found:
            payload = await _payload(connection, names)
        for step in range(found, SCHEMA_VERSION):
            for statement in _STEPS[step](names, payload):
                await connection.execute(statement)
        if found < SCHEMA_VERSION:
            await connection.execute(
                f"INSERT INTO {names.meta} (key, value) VALUES ('schema_version', {SCHEMA_VERSION}) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            )
    return await _payload(connection, names)


async def _payload(connection: Any, names: TableNames) -> str:
    (row,) = await connection.fetch(
        "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'payload'",
        names.events,
    )
    return str(row[0])


async def _version(connection: Any, names: TableNames) -> int:
    # Not `to_regclass`: inside one transaction it goes on seeing that a schema was missing.
    found = await connection.fetch(
        "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = $1 AND n.nspname = ANY (CASE WHEN $2::text IS NULL THEN current_schemas(false)::text[] ELSE ARRAY[$2::text] END)",
        names.meta_name,
        names.schema,
    )
    if not found:
        return 0
    rows = await connection.fetch(f"SELECT value FROM {names.meta} WHERE key = 'schema_version'")
    return int(rows[0][0]) if rows else 0


def _create(names: TableNames, payload: str) -> tuple[str, ...]:
    """Version 1. Its function for appends was replaced; logs that had it keep it for processes of that release."""
    schema = () if names.schema is None else (f'CREATE SCHEMA IF NOT EXISTS "{names.schema}"',)
    return (*schema, *_events_tables(names, payload), *_state_tables(names, payload))


def _events_tables(names: TableNames, payload: str) -> tuple[str, ...]:
    return (
        f"CREATE TABLE {names.meta} (key text PRIMARY KEY, value bigint NOT NULL)",
        # Updated by every commit: room in its page keeps that in place.
        f"CREATE TABLE {names.head} (one boolean PRIMARY KEY DEFAULT true CHECK (one), position bigint NOT NULL) "
        "WITH (fillfactor = 10)",
        f"INSERT INTO {names.head} (position) VALUES (0)",
        # Events refer to their stream and type by integer: smaller indexes, cheaper appends.
        f"""CREATE TABLE {names.streams} (
            key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            stream_id text COLLATE "C" NOT NULL UNIQUE,
            partition_hash bigint NOT NULL,
            removed_version bigint NOT NULL DEFAULT 0)""",
        f"""CREATE TABLE {names.types} (
            key integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            type_name text COLLATE "C" NOT NULL,
            event_type text COLLATE "C" NOT NULL,
            UNIQUE (type_name, event_type))""",
        f"""CREATE TABLE {names.events} (
            position bigint PRIMARY KEY,
            stream bigint NOT NULL,
            version bigint NOT NULL,
            type integer NOT NULL,
            event_id uuid NOT NULL,
            occurred_at timestamptz NOT NULL,
            payload {payload} NOT NULL)""",
        f"CREATE UNIQUE INDEX {names.index('by_stream')} ON {names.events} (stream, version)",
        f"CREATE UNIQUE INDEX {names.index('by_id')} ON {names.events} (event_id)",
        f"CREATE INDEX {names.index('by_type')} ON {names.events} (type, position)",
        f"""CREATE TABLE {names.tags} (
            tag text COLLATE "C" NOT NULL,
            position bigint NOT NULL,
            type integer NOT NULL,
            PRIMARY KEY (tag, position) INCLUDE (type))""",
    )


def _state_tables(names: TableNames, payload: str) -> tuple[str, ...]:
    state = "json" if payload == "bytea" else payload
    return (
        f"""CREATE TABLE IF NOT EXISTS {names.snapshots} (
            aggregate_id text COLLATE "C" NOT NULL,
            version bigint NOT NULL,
            aggregate_type text NOT NULL,
            taken_at timestamptz NOT NULL,
            state {state} NOT NULL,
            metadata {state} NOT NULL,
            PRIMARY KEY (aggregate_id, version))""",
        f"""CREATE TABLE {names.checkpoints} (
            name text COLLATE "C" PRIMARY KEY,
            position bigint,
            updated_at timestamptz,
            owner text,
            expires_at timestamptz NOT NULL DEFAULT '-infinity',
            epoch bigint NOT NULL DEFAULT 0)""",
        f"""CREATE TABLE {names.idempotency} (
            consumer_id text COLLATE "C" NOT NULL,
            message_id text COLLATE "C" NOT NULL,
            expires_at timestamptz,
            PRIMARY KEY (consumer_id, message_id))""",
        f"CREATE INDEX {names.index('idempotency_by_expiry')} ON {names.idempotency} (expires_at) "
        "WHERE expires_at IS NOT NULL",
        f"""CREATE TABLE {names.dead_letters} (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entry_id text COLLATE "C" NOT NULL UNIQUE,
            event_type text NOT NULL,
            handler_name text NOT NULL,
            aggregate_id text,
            error text NOT NULL,
            error_type text NOT NULL,
            failed_at bigint NOT NULL,
            attempts bigint NOT NULL,
            waiting integer NOT NULL,
            replayed integer NOT NULL,
            replayed_at bigint,
            event_data bytea NOT NULL,
            event_type_name text,
            event_payload bytea,
            event_version bigint,
            event_position bigint)""",
        f"CREATE INDEX {names.index('dead_letters_by_lane')} ON {names.dead_letters} (handler_name, aggregate_id) "
        "WHERE replayed = 0",
        f"""CREATE TABLE {names.sagas} (
            saga_id text COLLATE "C" PRIMARY KEY,
            saga_name text NOT NULL,
            status text NOT NULL,
            due bigint,
            created_at bigint NOT NULL,
            version bigint NOT NULL,
            record text NOT NULL)""",
        f"CREATE INDEX {names.index('sagas_by_status')} ON {names.sagas} (saga_name, status)",
        f"CREATE INDEX {names.index('sagas_by_due')} ON {names.sagas} (saga_name, due) WHERE due IS NOT NULL",
    )


def _functions_before(names: TableNames, payload: str) -> tuple[str, ...]:
    """Versions 2 and 4. Their functions are those of version 5 now, as long as they are called alike; a log that has others
    keeps them for older processes."""
    return ()


def _add_faults(names: TableNames, payload: str) -> tuple[str, ...]:
    """Version 3. Why the last owner of a lease gave it back."""
    return (f"ALTER TABLE {names.checkpoints} ADD COLUMN IF NOT EXISTS fault text",)


_STEPS: Final[tuple[Callable[[TableNames, str], tuple[str, ...]], ...]] = (
    _create,
    _functions_before,
    _add_faults,
    _functions_before,
    functions,
)
"""Step n brings the tables from version n to n + 1."""
