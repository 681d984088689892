"""The event store on Redis, for logs that fit in memory. Source: spec/api-reference.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._evolution import decode_rows
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.partition import partition_of
from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.log import RedisLog
from lexigram.events.stores.redis.operations import AppendOperation
from lexigram.events.stores.redis.shared import event_log_of
from lexigram.events.stores.redis.unit import RedisUnitOfWork
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork, current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.outbox.log import LogOutboxStore

_PAGE_SIZE: Final = 1000


class RedisEventStore(AbstractEventStore):
    """Events in one Redis, which holds them all in memory.

    An acknowledged append survives a crash of the server only with `appendonly yes` and `appendfsync always`; on any
    other server a warning is logged once, or opening refused. Concurrent appends of all coroutines share calls.

    Args:
        store: A `redis://` address, a ready `redis.asyncio` client, a `RedisEventStoreConfig`, another Redis store to
            share its connection; or a framework's state store (`StateStoreProtocol`), which can promise much less: one
            writing process only, see `StateLog`.
        namespace: Put in front of every key, as `{namespace}:`, so that a cluster keeps the keys together.
        schema_evolution: Converts older events when they are read.
        registry: Resolves event types.
        codec: Encodes the events; JSON by default.
        require_durable: Refuse a server that can lose what it has acknowledged.
        max_connections: Where an address is given; further calls wait for a free connection.
        command_timeout_seconds: Where an address is given: how long one answer may take before the connection is lost.
        retry_seconds: How long a call is tried again while the server cannot be reached. An append that may have been
            executed is found by its event ids, so it is never stored twice.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming the parameter.
    """

    def __init__(
        self,
        store: Any,
        namespace: str = "lexigram:events",
        *,
        schema_evolution: Any | None = None,
        registry: EventTypeRegistry | None = None,
        codec: EventCodec | None = None,
        require_durable: bool = False,
        max_connections: int = 20,
        command_timeout_seconds: float = 60.0,
        retry_seconds: float = 10.0,
    ) -> None:
        super().__init__(schema_evolution, registry=registry)
        self.log = event_log_of(
            store,
            namespace,
            require_durable=require_durable,
            max_connections=max_connections,
            command_timeout_seconds=command_timeout_seconds,
            retry_seconds=retry_seconds,
        )
        self._codec = EventCodec(self._registry) if codec is None else codec
        self._wakeup = self.log.wakeup

    @property
    def is_durable(self) -> bool | None:
        """Whether the server syncs every write before it answers; None before `connect`."""
        return self.log.is_durable

    async def load(self, stream_id: str, after_version: int = 0) -> list[Any]:
        """Return the events of a stream after a version (exclusive)."""
        return await self.read(stream_id, start=after_version)

    async def get_version(self, stream_id: str) -> int:
        """Return the version of the last event ever stored in the stream; 0 if it never existed."""
        return await self.get_stream_version(stream_id)

    def unit_of_work(self) -> RedisUnitOfWork:
        """Return a block whose appends, checkpoints, marks and saga states are written in one call at its end.

        They are checked when they are made and once more, together, at the end. Nothing inside the block sees them.
        There is no SQL: `execute` and its like raise `EventStoreError`.
        """
        return RedisUnitOfWork(self.log, self._ready)

    def deferred_unit_of_work(self) -> RedisUnitOfWork:
        """Return `unit_of_work()`, which locks nothing and is checked at its end; the engine of sagas asks for one."""
        return self.unit_of_work()

    def outbox(self, name: str = "event_outbox") -> LogOutboxStore:
        """Return the outbox of this name; it delivers from the log itself."""
        from lexigram.events.stores.outbox.log import LogOutboxStore
        from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
        from lexigram.events.stores.redis.dead_letters import RedisDeadLetterStore

        letters = RedisDeadLetterStore(self, codec=self._codec)
        return LogOutboxStore(self, RedisCheckpointStore(self), letters, name)

    def checkpoint_store(self) -> RedisCheckpointStore | None:
        """Return a checkpoint store in the same namespace, or None on a state store; close it like any other."""
        return RedisCheckpointStore(self.log) if isinstance(self.log, RedisLog) else None

    async def _open(self) -> None:
        await self.log.open()

    async def _close(self) -> None:
        await self.log.close()

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        return current_unit_of_work(self.log)

    async def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Appended:
        encode = self._codec.encode
        operation = AppendOperation(stream_id, [encode(event) for event in events], expected_version, condition)
        return await self.log.append(operation)

    async def _append_in(
        self,
        unit: AbstractUnitOfWork,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        assert isinstance(unit, RedisUnitOfWork)
        encode = self._codec.encode
        operation = AppendOperation(stream_id, [encode(event) for event in events], expected_version, condition)
        version, outcome = await unit.append(operation)

        async def stored() -> None:
            await self._stored(stream_id, events, *outcome.result())

        unit.on_commit(stored)
        return version

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        rows = await self.log.read(stream_id, from_version, to_version, limit)
        return await decode_rows(self._schema_evolution, self._codec, rows)

    async def _read_all(self, request: ReadRequest) -> Page:
        rows: list[tuple[Any, ...]] = []
        after, is_filtered = request.after, request.partition is not None or request.since_us is not None
        while True:
            missing = _PAGE_SIZE if request.limit is None else request.limit - len(rows)
            page = await self.log.page(after, request.up_to, _PAGE_SIZE if is_filtered else missing, request.query)
            rows += [row for row in page.rows if _selects(request, row)] if is_filtered else page.rows
            if request.limit is not None and len(rows) >= request.limit:
                del rows[request.limit :]
                position = rows[-1][4]
                break
            if page.more_after is None:
                end = page.head if request.up_to is None else min(page.head, request.up_to)
                position = max(end, request.after)
                break
            after = page.more_after
        events = await decode_rows(self._schema_evolution, self._codec, [row[:5] for row in rows])
        return Page(events, position, [row[5] for row in rows])

    async def _count(self, request: ReadRequest) -> int:
        if request.partition is None and request.since_us is None:
            return await self.log.count(request.after, request.up_to, request.query)
        total, after = 0, request.after
        while True:
            page = await self.log.page(after, request.up_to, _PAGE_SIZE, request.query)
            total += sum(_selects(request, row) for row in page.rows)
            if page.more_after is None:
                return total
            after = page.more_after

    async def _bounds(self, stream_id: str) -> StreamBounds:
        return await self.log.bounds(stream_id)

    async def _head(self) -> int:
        return await self.log.head()

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        return await self.log.compact(stream_id, up_to_version)

    async def _removals(self) -> dict[str, int]:
        return await self.log.removals()

    async def _stream_ids(self) -> list[str]:
        return await self.log.stream_ids()


def _selects(request: ReadRequest, row: tuple[Any, ...]) -> bool:
    """Tell whether a row is in the partition and time asked for."""
    if request.partition is not None:
        index, total = request.partition
        if partition_of(row[5], total) != index:
            return False
    return request.since_us is None or int(row[6]) > request.since_us
