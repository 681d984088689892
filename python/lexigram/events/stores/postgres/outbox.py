"""The outbox on PostgreSQL: a table that a trigger fills in the append's own transaction, claimed with SKIP LOCKED."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.stores.outbox.rows import COLUMNS, LANES, as_uuid, from_rows
from lexigram.events.stores.outbox.store import AbstractOutboxStore, Claim, OutboxBatch
from lexigram.events.stores.partition import partition_of
from lexigram.events.stores.postgres.checkpoint_store import PostgresCheckpointStore
from lexigram.events.stores.postgres.dead_letters import PostgresDeadLetterStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lexigram.events.stores.outbox.entry import OutboxEntry
    from lexigram.events.stores.postgres.event_store import PostgresEventStore

_MAX_LANES: Final = 16
_LOCK: Final = "SELECT pg_advisory_xact_lock(1280853334, hashtext($1))"


class PostgresOutboxStore(AbstractOutboxStore):
    """Messages to deliver, in a table of the event store's database.

    Once connected, a trigger copies every event that anybody appends to the log into the table, in that append's
    transaction; `drop` ends that. Connecting for the first time creates the table and the trigger, which waits for
    running appends.

    Args:
        store: The event store.
        name: Name of the table.
        retention_seconds: How long delivered rows stay; 0 = they are removed at once.
    """

    store: PostgresEventStore

    def __init__(self, store: PostgresEventStore, name: str = "event_outbox", retention_seconds: float = 0.0) -> None:
        letters = PostgresDeadLetterStore(store, codec=store._codec)
        super().__init__(store, PostgresCheckpointStore(store), letters, name, retention_seconds)
        names = store.database.names
        self._table, self._lane_table = names.of_outbox(name), names.of_outbox(name, "_lanes")
        self._function = names.of_outbox(name, "_capture")
        self._claim_sql = self._claim_statement()
        self._rows_sql = (
            f"SELECT f.* FROM unnest($1::smallint[]) q(lane) CROSS JOIN LATERAL (SELECT {COLUMNS} FROM {self._table} o "
            "WHERE o.lane = q.lane AND o.published_at IS NULL ORDER BY o.position LIMIT $2) f ORDER BY f.position"
        )
        self._channel: str | None = None

    def _claim_statement(self) -> str:
        return (
            f"WITH free AS (SELECT l.lane FROM {self._lane_table} l CROSS JOIN LATERAL ("
            f"SELECT o.position FROM {self._table} o WHERE o.lane = l.lane AND o.published_at IS NULL "
            "ORDER BY o.position LIMIT 1) f "
            "WHERE l.expires_at <= clock_timestamp() ORDER BY f.position LIMIT $3 FOR UPDATE OF l SKIP LOCKED) "
            f"UPDATE {self._lane_table} l SET owner = $1, epoch = l.epoch + 1, "
            "expires_at = clock_timestamp() + $2::float8 * interval '1 second' FROM free WHERE l.lane = free.lane "
            "RETURNING l.lane, l.epoch"
        )

    async def drop(self) -> None:
        """Stop capturing appends and remove the table with what is in it."""
        await self.store._ready()

        async def remove(connection: Any) -> None:
            await connection.execute(f"DROP FUNCTION IF EXISTS {self._function} CASCADE")
            await connection.execute(f"DROP TABLE IF EXISTS {self._table}, {self._lane_table}")

        await self.store.engine.run(remove)
        self._is_open = False

    async def _set_up(self) -> None:
        await self.store.engine.run(self._create)

    async def _create(self, connection: Any) -> None:
        names = self.store.database.names
        await connection.fetch(_LOCK, names.events)
        (oid,) = await connection.fetch("SELECT $1::text::regclass::oid::text", names.events)
        self._channel = f"lexigram_events_{oid[0]}"
        (there,) = await connection.fetch(
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname = $2",
            names.events,
            f"{self.name}_capture",
        )
        if not there[0]:
            for statement in self._tables():
                await connection.execute(statement)
        lanes = f"INSERT INTO {self._lane_table} (lane) SELECT generate_series(0, {LANES - 1}) ON CONFLICT DO NOTHING"
        await connection.execute(lanes)

    def _tables(self) -> tuple[str, ...]:
        names = self.store.database.names
        payload = self.store.engine.payload
        stored = "n.payload" if payload == "bytea" else "convert_to(n.payload::text, 'UTF8')"
        quoted = self._table.rpartition(".")[2].strip('"')
        return (
            f"""CREATE TABLE IF NOT EXISTS {self._table} (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entry_id uuid NOT NULL UNIQUE,
            lane smallint NOT NULL,
            key text COLLATE "C" NOT NULL,
            type_name text NOT NULL,
            event_type text NOT NULL,
            payload bytea NOT NULL,
            version bigint NOT NULL,
            event_position bigint,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            published_at timestamptz)""",
            f'CREATE INDEX IF NOT EXISTS "{quoted}_by_lane" ON {self._table} (lane, position) WHERE published_at IS NULL',
            f'CREATE INDEX IF NOT EXISTS "{quoted}_by_delivery" ON {self._table} (published_at) '
            "WHERE published_at IS NOT NULL",
            f"""CREATE TABLE IF NOT EXISTS {self._lane_table} (
            lane smallint PRIMARY KEY,
            owner text,
            expires_at timestamptz NOT NULL DEFAULT '-infinity',
            epoch bigint NOT NULL DEFAULT 0) WITH (fillfactor = 10)""",
            f"""CREATE OR REPLACE FUNCTION {self._function}() RETURNS trigger LANGUAGE plpgsql AS $function$
            BEGIN
                INSERT INTO {self._table} (entry_id, lane, key, type_name, event_type, payload, version, event_position)
                SELECT n.event_id, s.partition_hash % {LANES}, s.stream_id, t.type_name, t.event_type, {stored},
                    n.version, n.position
                FROM fresh n JOIN {names.streams} s ON s.key = n.stream JOIN {names.types} t ON t.key = n.type
                ORDER BY n.position ON CONFLICT (entry_id) DO NOTHING;
                RETURN NULL;
            END $function$""",
            f'CREATE TRIGGER "{self.name}_capture" AFTER INSERT ON {names.events} REFERENCING NEW TABLE AS fresh '
            f"FOR EACH STATEMENT EXECUTE FUNCTION {self._function}()",
        )

    async def claim(self, owner: str, limit: int, lease_seconds: float) -> OutboxBatch:
        """Take lanes that hold entries; see `AbstractOutboxStore.claim`. One transaction."""
        await self._ready()
        batch = OutboxBatch()

        async def take(connection: Any) -> list[Any]:
            lanes = await connection.fetch(self._claim_sql, owner, lease_seconds, _MAX_LANES)
            if not lanes:
                return []
            batch.claims = [Claim(lane, epoch) for lane, epoch in lanes]
            share = max(1, limit // len(lanes))
            # A statement of its own: its snapshot is taken after the lanes were locked.
            return list(await connection.fetch(self._rows_sql, [claim.lane for claim in batch.claims], share))

        batch.entries = await from_rows(
            self.store._schema_evolution, self.codec, await self.store.engine.run(take), _same
        )
        return batch

    async def settle(self, batch: OutboxBatch, done: Sequence[OutboxEntry]) -> None:
        """Remove or mark what was delivered; see `AbstractOutboxStore.settle`. One statement."""
        await self.store.engine.execute(
            f"WITH mine AS (UPDATE {self._lane_table} l SET owner = NULL, expires_at = '-infinity' "
            "FROM unnest($1::smallint[], $2::bigint[]) q(lane, epoch) "
            "WHERE l.lane = q.lane AND l.epoch = q.epoch RETURNING l.lane) "
            + self._done("position = ANY ($3::bigint[]) AND lane IN (SELECT lane FROM mine)"),
            (
                [claim.lane for claim in batch.claims],
                [claim.epoch for claim in batch.claims],
                [entry.position for entry in done],
            ),
        )

    def _done(self, condition: str) -> str:
        if self.retention_seconds:
            return f"UPDATE {self._table} SET published_at = clock_timestamp() WHERE {condition}"
        return f"DELETE FROM {self._table} WHERE {condition}"

    async def _put(self, event: Any, key: str) -> OutboxEntry:
        encoded = self.codec.encode(event)
        engine = self.store.engine
        await engine.execute(
            f"INSERT INTO {self._table} (entry_id, lane, key, type_name, event_type, payload, version) "
            "VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (entry_id) DO NOTHING",
            (
                uuid.UUID(bytes=encoded.event_id),
                partition_of(key, LANES),
                key,
                encoded.type_name,
                encoded.event_type,
                encoded.payload,
            ),
        )
        await engine.write_all("SELECT pg_notify($1::text, 'outbox')", (self._channel,))
        unit = self.store._unit_of_work()
        if unit is None:
            self.store._wakeup.notify()
        else:
            unit.on_commit(self.store._wakeup.notify)
        entry = await self._find(str(event.event_id))
        assert entry is not None
        return entry

    async def _rows(self, condition: str, *params: Any) -> list[OutboxEntry]:
        rows = await self.store.engine.fetch_all(f"SELECT {COLUMNS} FROM {self._table} WHERE {condition}", params)
        return await from_rows(self.store._schema_evolution, self.codec, rows, _same)

    async def _pending(self, limit: int) -> list[OutboxEntry]:
        return await self._rows("published_at IS NULL ORDER BY position LIMIT $1", limit)

    async def _find(self, entry_id: str) -> OutboxEntry | None:
        found = await self._rows("entry_id = $1", as_uuid(entry_id))
        return found[0] if found else None

    async def _mark(self, entry_id: str) -> None:
        await self.store.engine.execute(self._done("entry_id = $1"), (as_uuid(entry_id),))

    async def _waiting(self) -> tuple[int, datetime | None]:
        row = await self.store.engine.fetch_one(
            f"SELECT count(*), min(created_at) FROM {self._table} WHERE published_at IS NULL"
        )
        return int(row[0]), row[1]

    async def _purge(self, age_seconds: float) -> int:
        return await self.store.engine.execute(
            f"DELETE FROM {self._table} WHERE published_at <= clock_timestamp() - $1::float8 * interval '1 second'",
            (age_seconds,),
        )


def _same(moment: datetime) -> datetime:
    return moment
