"""The event store on SQLite: the embedded durable default. Source: spec/api-reference.md."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._evolution import decode_rows
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores._serializer import SerializerCodec
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.database import Database
from lexigram.events.stores.sqlite.deferred import DeferredUnitOfWork
from lexigram.events.stores.sqlite.direct import MAX_DIRECT_ROWS
from lexigram.events.stores.sqlite.engine_base import UNIT_OF_WORK_SECONDS, AbstractEngine, check_timeout
from lexigram.events.stores.sqlite.log import AppendRequest, EventLog
from lexigram.events.stores.sqlite.provider import ProviderUnitOfWork
from lexigram.events.stores.sqlite.session import SqliteUnitOfWork
from lexigram.events.stores.sqlite.statements import EventStatements
from lexigram.events.stores.sqlite.unit import SqlUnitOfWork
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    import os
    import sqlite3

    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol
    from lexigram.events.config import SqliteConfig
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.sqlite.outbox import SqliteOutboxStore

_ALL_VERSIONS: Final = 2**63 - 1


class SqliteEventStore(AbstractEventStore):
    """Events in one SQLite file; an acknowledged append survives a crash and, by default, a power cut.

    Concurrent appends of all coroutines share commits. Readers never wait for writers. Several processes may use the
    file at once, on one machine (not over a network file system).

    Args:
        config: A path, an `sqlite://` URL, a `SqliteConfig`, None for `./events.db`; or another SQLite store, to share
            its database.
        provider: A framework database provider (lexigram-sql) for SQLite to run the statements instead of our engine.
        event_serializer: An `EventCodec`, or an object with `serialize(event) -> bytes` and `deserialize(bytes)`.
        schema_evolution: Converts older events when they are read.
        registry: Resolves event types.
        codec: The same as `event_serializer`; give one of them.
        table_prefix: Put before every table name, for several logs in one file.
    """

    poll_interval_seconds = 0.25

    def __init__(
        self,
        config: SqliteConfig | str | os.PathLike[str] | Any | None = None,
        provider: DatabaseProviderProtocol | None = None,
        event_serializer: Any | None = None,
        *,
        schema_evolution: Any | None = None,
        registry: EventTypeRegistry | None = None,
        codec: EventCodec | None = None,
        table_prefix: str = "",
    ) -> None:
        super().__init__(schema_evolution, registry=registry)
        self.database = Database(config, provider, table_prefix)
        chosen = codec if codec is not None else event_serializer
        if chosen is None:
            chosen = EventCodec(self._registry)
        self._codec: EventCodec = chosen if isinstance(chosen, EventCodec) else SerializerCodec(chosen, self._registry)
        self._engine: AbstractEngine
        self._log: EventLog
        self._statements = EventStatements(self.database.names, text=self._codec.format == "json")

    def register_event_type(self, event_type: str, event_class: type) -> None:
        """Let events stored under the name `event_type` be rebuilt as `event_class`."""
        self._registry.register(event_class, None, event_type)

    def unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> SqlUnitOfWork:
        """Return one database transaction as an async context manager.

        Appends, checkpoints, snapshots and other statements on the same file inside it succeed or fail together. Other
        writers queue behind it meanwhile, so keep it short.

        Args:
            timeout_seconds: From its first statement; then it is rolled back.
        """
        seconds = check_timeout(timeout_seconds)
        if self.database.provider is not None:
            return ProviderUnitOfWork(self._connected)
        return SqliteUnitOfWork(self._connected, seconds)

    def deferred_unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> SqlUnitOfWork:
        """Return a unit of work whose appends are checked and written together at its end, in one group commit.

        Nothing is locked meanwhile, so many of them run at the same time. An append without expected version, or a
        statement that needs the unit's own writes, turns it into an ordinary `unit_of_work`.
        """
        if self.database.provider is not None:
            return self.unit_of_work(timeout_seconds)
        return DeferredUnitOfWork(self._connected, check_timeout(timeout_seconds))

    def outbox(self, name: str = "event_outbox") -> SqliteOutboxStore:
        """Return the outbox of this name, in a table of the same database."""
        from lexigram.events.stores.sqlite.outbox import SqliteOutboxStore

        return SqliteOutboxStore(self, name)

    def checkpoint_store(self) -> SqliteCheckpointStore:
        """Return a checkpoint store on the same tables; close it like any other."""
        return SqliteCheckpointStore(self)

    @property
    def engine(self) -> AbstractEngine:
        """The engine of the file, to run application statements on it. Raises before `connect`."""
        return self.database.engine

    async def _connected(self) -> AbstractEngine:
        await self._ready()
        return self._engine

    async def _open(self) -> None:
        self._engine = engine = await self.database.open()
        key = ("log", self.database.names.prefix, self._codec.format == "json")
        self._log = engine.share(key, lambda: EventLog(self._statements))
        self._wakeup = self._log.wakeup

    async def _close(self) -> None:
        await self.database.close()

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        return self._engine.current_unit()

    async def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Appended:
        encode = self._codec.encode
        request = AppendRequest(stream_id, [encode(event) for event in events], expected_version, condition)
        unit: Any = unit_of_work
        outcome: Appended = await self._engine.fold(self._log, request, len(request.events), unit)
        return outcome

    async def _append_in(
        self,
        unit: AbstractUnitOfWork,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        if not isinstance(unit, DeferredUnitOfWork) or not unit.defers or expected_version is None or not unit.is_owner:
            return await super()._append_in(unit, stream_id, events, expected_version, condition)
        encoded = [self._codec.encode(event) for event in events]
        request = AppendRequest(stream_id, encoded, expected_version, condition)
        outcomes = unit.defer_append(self._log, request, stream_id)
        unit.on_commit(lambda: self._stored(stream_id, events, *outcomes[0]))
        return expected_version + len(events)

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        last = _ALL_VERSIONS if to_version is None else to_version
        wanted = partial(self._stream_rows, stream_id, from_version, last)
        if limit is not None and limit <= MAX_DIRECT_ROWS:
            rows = await self._engine.look_up(partial(wanted, limit), stream_id)
        else:
            rows = await self._engine.look_up(partial(wanted, MAX_DIRECT_ROWS), stream_id)
            if len(rows) == MAX_DIRECT_ROWS:
                # A long stream: read again from its beginning, so that all of it is of one moment.
                rows = await self._engine.read(partial(wanted, -1 if limit is None else limit), key=stream_id)
        return await decode_rows(self._schema_evolution, self._codec, rows)

    def _stream_rows(
        self, stream_id: str, first: int, last: int, limit: int, connection: sqlite3.Connection
    ) -> list[tuple[Any, ...]]:
        return connection.execute(self._statements.read, (stream_id, first, last, limit)).fetchall()

    async def _read_all(self, request: ReadRequest) -> Page:
        rows, head = await self._engine.read(partial(self._page_rows, request))
        if request.limit is not None and len(rows) >= request.limit:
            position = rows[-1][4]
        else:
            # What has been stored since the head was read may be among the rows already.
            position = max(head, rows[-1][4] if rows else 0, request.after)
        if not request.with_stream_ids:
            return Page(await decode_rows(self._schema_evolution, self._codec, rows), position)
        events = await decode_rows(self._schema_evolution, self._codec, [row[:5] for row in rows])
        return Page(events, position, [row[5] for row in rows])

    def _page_rows(self, request: ReadRequest, connection: sqlite3.Connection) -> tuple[list[Any], int]:
        """Return the rows and what was the head (or `up_to`) before they were read."""
        head: int = connection.execute(self._statements.head).fetchone()[0]
        if request.up_to is not None:
            head = min(head, request.up_to)
        keys = self._log.type_keys(connection) if request.query is not None else {}
        statement = self._statements.page(request, keys)
        return ([] if statement is None else connection.execute(*statement).fetchall()), head

    async def _count(self, request: ReadRequest) -> int:
        def count(connection: sqlite3.Connection) -> int:
            keys = self._log.type_keys(connection) if request.query is not None else {}
            statement = self._statements.count(request, keys)
            return 0 if statement is None else int(connection.execute(*statement).fetchone()[0])

        return await self._engine.read(count)

    async def _bounds(self, stream_id: str) -> StreamBounds:
        row = await self._engine.find(self._statements.stream, (stream_id,))
        if row is None:
            return StreamBounds(0, 0)
        _, removed, version, _ = row
        return StreamBounds(removed + 1 if version > removed else 0, version)

    async def _head(self) -> int:
        row = await self._engine.find(self._statements.head)
        if row is None:
            raise EventStoreConnectionError(f"SQLite file {self._engine.path} has lost its table event_meta")
        return int(row[0])

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        return await self._engine.run(
            lambda connection: self._log.compact(connection, stream_id, up_to_version, self._codec)
        )

    async def _removals(self) -> dict[str, int]:
        return dict(await self._engine.fetch_all(self._statements.removals))

    async def _stream_ids(self) -> list[str]:
        return [row[0] for row in await self._engine.fetch_all(self._statements.stream_ids)]
