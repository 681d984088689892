"""The event store on PostgreSQL. Source: spec/api-reference.md."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.exceptions import EventLoadError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._evolution import decode_rows
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores._serializer import SerializerCodec
from lexigram.events.stores._tags import tags_of
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.postgres.database import Database
from lexigram.events.stores.postgres.names import find_also
from lexigram.events.stores.postgres.requests import AppendRequest
from lexigram.events.stores.postgres.statements import EventStatements
from lexigram.events.stores.unit_of_work import innermost_unit_of_work

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol
    from lexigram.events.config import PostgresEventStoreConfig
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.postgres.checkpoint_store import PostgresCheckpointStore
    from lexigram.events.stores.postgres.engine import PostgresEngine
    from lexigram.events.stores.postgres.outbox import PostgresOutboxStore
    from lexigram.events.stores.postgres.unit import PostgresUnitOfWork
    from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

_ALL_VERSIONS: Final = 2**63 - 1
_UNIT_OF_WORK_SECONDS: Final = 30.0


class PostgresEventStore(AbstractEventStore):
    """Events in PostgreSQL; positions are gap-free and in commit order, whoever writes.

    Concurrent appends of all coroutines share commits. Any number of processes may write and read. One store belongs
    to the event loop in which it was connected.

    Args:
        config: A `postgresql://` DSN, a `PostgresEventStoreConfig`, None with `pool` or `provider`; or another
            PostgreSQL store, to share its connections and tables.
        provider: A framework database provider (lexigram-sql) for PostgreSQL; says where the database is.
        event_serializer: An `EventCodec`, or an object with `serialize(event) -> bytes` and `deserialize(bytes)`.
        pool: An asyncpg pool of the application; it stays open.
        ssl: TLS as asyncpg takes it (`SSLContext` or mode); the DSN's `sslmode`, `sslrootcert`, … work too.
        schema_evolution: Converts older events when they are read.
        registry: Resolves event types.
        codec: The same as `event_serializer`; give one of them.
        table_prefix: Put before every table name, for several logs in one schema.
        payload_format: "json" (default: exact text), "jsonb" (indexable; numbers and key order are normalised) or
            "binary" (`bytea`), for a log that does not exist yet.
    """

    poll_interval_seconds = 0.25

    def __init__(
        self,
        config: PostgresEventStoreConfig | str | Any | None = None,
        provider: DatabaseProviderProtocol | None = None,
        event_serializer: Any | None = None,
        *,
        pool: Any = None,
        ssl: Any = None,
        schema_evolution: Any | None = None,
        registry: EventTypeRegistry | None = None,
        codec: EventCodec | None = None,
        table_prefix: str = "",
        payload_format: str | None = None,
    ) -> None:
        super().__init__(schema_evolution, registry=registry)
        chosen = codec if codec is not None else event_serializer
        if chosen is not None and not isinstance(chosen, EventCodec):
            chosen = SerializerCodec(chosen, self._registry)
        if chosen is not None and chosen.format == "binary":
            payload_format = "binary"
        self.database = Database(
            config, provider, pool=pool, table_prefix=table_prefix, payload=payload_format, ssl=ssl
        )
        if chosen is None:
            is_binary = self.database.settings.payload == "bytea"
            chosen = EventCodec(self._registry, format="binary" if is_binary else "json")
        self._codec: EventCodec = chosen
        self._engine: PostgresEngine
        self._statements: EventStatements
        self._types: dict[int, tuple[str, str]] = {}

    def register_event_type(self, event_type: str, event_class: type) -> None:
        """Let events stored under the name `event_type` be rebuilt as `event_class`."""
        self._registry.register(event_class, None, event_type)

    def unit_of_work(self, timeout_seconds: float = _UNIT_OF_WORK_SECONDS) -> PostgresUnitOfWork:
        """Return one database transaction as an async context manager.

        Appends, checkpoints, snapshots and other statements on the same database inside it succeed or fail together.
        Other writers wait from its first append to its end, so append late and keep it short.

        Args:
            timeout_seconds: From its first statement; then it is rolled back.
        """
        from lexigram.events.stores.postgres.unit import PostgresUnitOfWork, check_timeout

        return PostgresUnitOfWork(self._connected, check_timeout(timeout_seconds))

    def deferred_unit_of_work(self, timeout_seconds: float = _UNIT_OF_WORK_SECONDS) -> PostgresUnitOfWork:
        """Return a unit of work for a single small write, such as the new state of a saga: many of them share a commit.

        As soon as anything else is done in it, it is an ordinary `unit_of_work`.
        """
        from lexigram.events.stores.postgres.unit import PostgresDeferredUnitOfWork, check_timeout

        return PostgresDeferredUnitOfWork(self._connected, check_timeout(timeout_seconds))

    def outbox(self, name: str = "event_outbox") -> PostgresOutboxStore:
        """Return the outbox of this name, in a table of the same database."""
        from lexigram.events.stores.postgres.outbox import PostgresOutboxStore

        return PostgresOutboxStore(self, name)

    def checkpoint_store(self) -> PostgresCheckpointStore:
        """Return a checkpoint store on the same tables; close it like any other."""
        from lexigram.events.stores.postgres.checkpoint_store import PostgresCheckpointStore

        return PostgresCheckpointStore(self)

    @property
    def engine(self) -> PostgresEngine:
        """The engine of the log, to run application statements on it. Raises before `connect`."""
        return self.database.engine

    @property
    def session_sql(self) -> str:
        """What a connection of your own executes to find the log's tables, and read models beside them, by their bare names.

        They are found behind what the connection found before, to the end of its session. Any driver can run it.
        """
        schema = self.database.names.schema
        return "SELECT current_setting('search_path')" if schema is None else find_also(schema)

    async def _connected(self) -> PostgresEngine:
        await self._ready()
        return self._engine

    async def _open(self) -> None:
        self._engine = engine = await self.database.open()
        self._statements = EventStatements(engine.names, engine.payload)
        self._types.clear()
        self._wakeup = engine.wakeup

    async def _close(self) -> None:
        await self.database.close()

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        if innermost_unit_of_work() is None:
            self._engine.check_open()
            return None
        return self._engine.current_unit()

    def _append(  # gives the committer's own future out, instead of awaiting it
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Awaitable[Appended]:
        request = AppendRequest(stream_id, list(map(self._codec.encode, events)), expected_version, condition)
        unit: Any = unit_of_work
        return self._engine.committer.append(request) if unit is None else unit.append(request)

    async def _append_all_in(self, unit: Any, appends: Sequence[tuple[Any, ...]]) -> list[int | Exception]:
        """Append several times inside a unit of work, in one call; a conflict is the outcome of that append."""
        encode = self._codec.encode
        requests = [
            AppendRequest(stream_id, [encode(event) for event in events], expected, condition)
            for stream_id, events, expected, condition in appends
        ]
        outcomes = await unit.append_all(requests)
        for (stream_id, events, _, _), outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, Appended):
                unit.on_commit(partial(self._stored, stream_id, events, *outcome))
        return [outcome.version if isinstance(outcome, Appended) else outcome for outcome in outcomes]

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        up_to = _ALL_VERSIONS if to_version is None else to_version
        rows = await self._engine.fetch_all(self._statements.read, (stream_id, from_version, up_to, limit))
        return await decode_rows(self._schema_evolution, self._codec, await self._named(rows))

    async def _read_all(self, request: ReadRequest) -> Page:
        rows = await self._engine.fetch_all(*self._statements.page(request))
        if not rows:
            raise EventLoadError(f"table {self._engine.names.head} has lost its row; restore a backup")
        head: int = rows[0][5]
        if rows[0][3] is None:
            rows = []
        # A join promises no order; the rows are in order already, so this costs next to nothing.
        rows.sort(key=_position)
        if rows and rows[-1][3] > head:
            raise EventLoadError(
                f"an event at position {rows[-1][3]} lies beyond the head {head}: something else than this library "
                f"writes to {self._engine.names.events}; remove the row or restore a backup"
            )
        if request.limit is not None and len(rows) >= request.limit:
            position = rows[-1][3]
        else:
            position = max(head if request.up_to is None else min(head, request.up_to), request.after)
        events = await decode_rows(self._schema_evolution, self._codec, await self._named(rows))
        return Page(events, position, [row[4] for row in rows] if request.with_stream_ids else ())

    async def _named(self, rows: Sequence[Any], connection: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows as the codec takes them, with the names of their types; a key is never given twice.

        Args:
            connection: Where to look up new types; None = the engine.
        """
        types = self._types
        try:
            return [(*types[row[0]], row[1], row[2], row[3]) for row in rows]
        except KeyError:
            fetch = self._engine.fetch_all if connection is None else connection.fetch
            for key, type_name, event_type in await fetch(self._statements.types):
                types[key] = (type_name, event_type)
        return [(*types[row[0]], row[1], row[2], row[3]) for row in rows]

    async def _count(self, request: ReadRequest) -> int:
        unlimited = replace(request, limit=None)
        row = await self._engine.fetch_one(*self._statements.count(unlimited))
        return int(row[0])

    async def _bounds(self, stream_id: str) -> StreamBounds:
        row = await self._engine.fetch_one(self._statements.bounds, (stream_id,))
        if row is None:
            return StreamBounds(0, 0)
        removed, version = row
        return StreamBounds(removed + 1 if version > removed else 0, version)

    async def _head(self) -> int:
        row = await self._engine.fetch_one(self._statements.head)
        if row is None:
            raise EventLoadError(f"table {self._engine.names.head} has lost its row; restore a backup")
        return int(row[0])

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        statements = self._statements
        async with self._engine.transaction() as connection:
            # Of two compactions at once the second waits here; appends only ever add higher versions.
            stream = await connection.fetchrow(statements.lock_stream, stream_id)
            if stream is None:
                return 0
            key, removed = stream
            last = await connection.fetchval(statements.last_version, key)
            up_to = min(up_to_version, last or 0)
            if up_to <= removed:
                return 0
            await connection.execute(statements.mark_removed, key, up_to)
            rows = await self._named(await connection.fetch(statements.removable, key, up_to), connection)
            gone = tags_of(self._codec, rows)
            if gone:
                tags, positions = zip(*gone, strict=True)
                await connection.execute(statements.delete_tags, tags, positions)
            answer = await connection.execute(statements.delete_events, key, up_to)
            return int(answer.rpartition(" ")[2])

    async def _removals(self) -> dict[str, int]:
        return {row[0]: row[1] for row in await self._engine.fetch_all(self._statements.removals)}

    async def _stream_ids(self) -> list[str]:
        return [row[0] for row in await self._engine.fetch_all(self._statements.stream_ids)]


_position = itemgetter(3)
