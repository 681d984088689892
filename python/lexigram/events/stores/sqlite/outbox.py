"""The outbox on SQLite: a table that a trigger fills in the append's own transaction."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.stores.outbox.rows import COLUMNS, LANES, as_uuid, from_rows
from lexigram.events.stores.outbox.store import AbstractOutboxStore, Claim, OutboxBatch
from lexigram.events.stores.partition import partition_of
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.events.stores.outbox.entry import OutboxEntry
    from lexigram.events.stores.sqlite.event_store import SqliteEventStore

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
_MAX_LANES: Final = 16


class SqliteOutboxStore(AbstractOutboxStore):
    """Messages to deliver, in a table of the event store's file.

    Once connected, a trigger copies every event that anybody appends to the log into the table, in that append's
    transaction; `drop` ends that.

    Args:
        store: The event store.
        name: Name of the table.
        retention_seconds: How long delivered rows stay; 0 = they are removed at once.
    """

    store: SqliteEventStore

    def __init__(self, store: SqliteEventStore, name: str = "event_outbox", retention_seconds: float = 0.0) -> None:
        super().__init__(
            store,
            SqliteCheckpointStore(store),
            SqliteDeadLetterStore(store, codec=store._codec),
            name,
            retention_seconds,
        )
        names = store.database.names
        self._table, self._lane_table = names.beside(name), names.beside(f"{name}_lanes")
        self._trigger = names.beside(f"{name}_capture")
        self._index = names.index(f"{name}_by_lane")
        self._select = f"SELECT {COLUMNS} FROM {self._table}"

    async def drop(self) -> None:
        """Stop capturing appends and remove the table with what is in it."""
        await self.store._ready()

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute(f"DROP TRIGGER IF EXISTS {self._trigger}")
            connection.execute(f"DROP TABLE IF EXISTS {self._table}")
            connection.execute(f"DROP TABLE IF EXISTS {self._lane_table}")

        await self.store.engine.run(remove)
        self._is_open = False

    async def _set_up(self) -> None:
        await self.store.engine.run(self._create)

    def _create(self, connection: sqlite3.Connection) -> None:
        n = self.store.database.names
        connection.execute(
            f"""CREATE TABLE IF NOT EXISTS {self._table} (
            position INTEGER PRIMARY KEY AUTOINCREMENT, entry_id BLOB NOT NULL UNIQUE, lane INTEGER NOT NULL,
            key TEXT NOT NULL, type_name TEXT NOT NULL, event_type TEXT NOT NULL, payload NOT NULL,
            version INTEGER NOT NULL, event_position INTEGER, created_at INTEGER NOT NULL, published_at INTEGER)"""
        )
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS {self._index} ON {self._table} (lane, position) WHERE published_at IS NULL"
        )
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS {n.index(f'{self.name}_by_delivery')} ON {self._table} (published_at) "
            "WHERE published_at IS NOT NULL"
        )
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._lane_table} (lane INTEGER PRIMARY KEY, owner TEXT, "
            "expires_at REAL NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0)"
        )
        connection.executemany(
            f"INSERT OR IGNORE INTO {self._lane_table} (lane) VALUES (?)", [(lane,) for lane in range(LANES)]
        )
        connection.execute(
            f"CREATE TRIGGER IF NOT EXISTS {self._trigger} AFTER INSERT ON {n.events} BEGIN "
            f"INSERT OR IGNORE INTO {self._table} "
            "(entry_id, lane, key, type_name, event_type, payload, version, event_position, created_at) "
            f"SELECT NEW.event_id, s.partition_hash % {LANES}, s.stream_id, t.type_name, t.event_type, NEW.payload, "
            f"NEW.version, NEW.position, {_NOW} FROM {n.streams} s, {n.types} t "
            "WHERE s.key = NEW.stream AND t.key = NEW.type; END"
        )

    async def claim(self, owner: str, limit: int, lease_seconds: float) -> OutboxBatch:
        """Take lanes that hold entries; see `AbstractOutboxStore.claim`. One write transaction if there are any."""
        await self._ready()
        # Looked at without the writer first, so that an idle outbox costs no transaction.
        waiting = f"SELECT 1 FROM {self._table} WHERE published_at IS NULL LIMIT 1"
        if await self.store.engine.fetch_one(waiting) is None:
            return OutboxBatch()
        claims, rows = await self.store.engine.run(partial(self._claim, owner, limit, lease_seconds))
        return OutboxBatch(claims, await from_rows(self.store._schema_evolution, self.codec, rows, _moment))

    def _claim(
        self, owner: str, limit: int, lease_seconds: float, connection: sqlite3.Connection
    ) -> tuple[list[Claim], list[Any]]:
        now = time.time()
        first = f"(SELECT min(o.position) FROM {self._table} o WHERE o.lane = l.lane AND o.published_at IS NULL)"
        found = connection.execute(
            f"SELECT lane, epoch FROM (SELECT l.lane, l.epoch, {first} AS first FROM {self._lane_table} l "
            "WHERE l.expires_at <= ?) WHERE first IS NOT NULL ORDER BY first LIMIT ?",
            (now, _MAX_LANES),
        ).fetchall()
        claims = [Claim(lane, epoch + 1) for lane, epoch in found]
        connection.executemany(
            f"UPDATE {self._lane_table} SET owner = ?, expires_at = ?, epoch = ? WHERE lane = ?",
            [(owner, now + lease_seconds, claim.epoch, claim.lane) for claim in claims],
        )
        rows: list[Any] = []
        for claim in claims:
            share = max(1, limit // len(claims))
            rows += connection.execute(
                f"SELECT {COLUMNS.replace('payload', 'CAST(payload AS BLOB)')} FROM {self._table} "
                "WHERE lane = ? AND published_at IS NULL ORDER BY position LIMIT ?",
                (claim.lane, share),
            ).fetchall()
        return claims, sorted(rows)

    async def settle(self, batch: OutboxBatch, done: Sequence[OutboxEntry]) -> None:
        """Remove or mark what was delivered; see `AbstractOutboxStore.settle`. One write transaction."""
        await self.store.engine.run(partial(self._settle, batch.claims, done))

    def _settle(self, claims: list[Claim], done: Sequence[OutboxEntry], connection: sqlite3.Connection) -> None:
        held = {
            claim.lane
            for claim in claims
            if connection.execute(
                f"UPDATE {self._lane_table} SET owner = NULL, expires_at = 0 WHERE lane = ? AND epoch = ?",
                (claim.lane, claim.epoch),
            ).rowcount
        }
        connection.executemany(
            f"{self._done_sql} WHERE position = ?", [(entry.position,) for entry in done if entry.lane in held]
        )

    @property
    def _done_sql(self) -> str:
        if self.retention_seconds:
            return f"UPDATE {self._table} SET published_at = {_NOW}"
        return f"DELETE FROM {self._table}"

    async def _put(self, event: Any, key: str) -> OutboxEntry:
        encoded = self.codec.encode(event)
        payload = encoded.payload if self.codec.format == "binary" else encoded.payload.decode()
        values = (encoded.event_id, partition_of(key, LANES), key, encoded.type_name, encoded.event_type, payload)
        await self.store.engine.execute(
            f"INSERT OR IGNORE INTO {self._table} "
            "(entry_id, lane, key, type_name, event_type, payload, version, event_position, created_at) "
            f"VALUES (?, ?, ?, ?, ?, ?, 0, NULL, {_NOW})",
            values,
        )
        unit = self.store._unit_of_work()
        if unit is None:
            self.store._wakeup.notify()
        else:
            unit.on_commit(self.store._wakeup.notify)
        entry = await self._find(str(event.event_id))
        assert entry is not None
        return entry

    async def _rows(self, condition: str, *params: Any) -> list[OutboxEntry]:
        columns = COLUMNS.replace("payload", "CAST(payload AS BLOB)")
        rows = await self.store.engine.fetch_all(f"SELECT {columns} FROM {self._table} WHERE {condition}", params)
        return await from_rows(self.store._schema_evolution, self.codec, rows, _moment)

    async def _pending(self, limit: int) -> list[OutboxEntry]:
        return await self._rows("published_at IS NULL ORDER BY position LIMIT ?", limit)

    async def _find(self, entry_id: str) -> OutboxEntry | None:
        found = await self._rows("entry_id = ?", as_uuid(entry_id).bytes)
        return found[0] if found else None

    async def _mark(self, entry_id: str) -> None:
        await self.store.engine.execute(f"{self._done_sql} WHERE entry_id = ?", (as_uuid(entry_id).bytes,))

    async def _waiting(self) -> tuple[int, datetime | None]:
        row = await self.store.engine.fetch_one(
            f"SELECT count(*), min(created_at) FROM {self._table} WHERE published_at IS NULL"
        )
        count, oldest = row or (0, None)
        return count, None if oldest is None else _moment(oldest)

    async def _purge(self, age_seconds: float) -> int:
        limit = int((time.time() - age_seconds) * 1_000_000)
        return await self.store.engine.execute(f"DELETE FROM {self._table} WHERE published_at <= ?", (limit,))


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
