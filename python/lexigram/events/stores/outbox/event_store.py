"""An event store whose appends are also delivered. Source: spec/reference-surface.md, `OutboxEventStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from lexigram.events.stores.base import AbstractEventStore

if TYPE_CHECKING:
    from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
    from lexigram.events.stores.base import Archiver
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore
    from lexigram.events.stores.condition import AppendCondition, ResolvedCondition
    from lexigram.events.stores.outbox.store import AbstractOutboxStore
    from lexigram.events.stores.unit_of_work import AbstractUnitOfWork


class OutboxEventStore(AbstractEventStore):
    """Wraps an event store: from its first use on, what is appended to that store waits for an `OutboxPublisher`.

    Args:
        inner: Where events are stored; other stores may share its database through this object too.
        outbox_table: Name of the outbox.
    """

    def __init__(self, inner: AbstractEventStore, outbox_table: str = "event_outbox") -> None:
        super().__init__(inner._schema_evolution, registry=inner._registry)
        self.inner = inner
        self._box = inner.outbox(outbox_table)

    def __getattr__(self, name: str) -> Any:
        # `database`, `engine` and the like, by which companion stores find the inner store.
        return (
            getattr(self.__dict__["inner"], name) if "inner" in self.__dict__ else object.__getattribute__(self, name)
        )

    def outbox(self, name: str | None = None) -> AbstractOutboxStore:
        """Return the outbox; another name gives another outbox on the same store."""
        return self._box if name in (None, self._box.name) else self.inner.outbox(name)

    async def append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None = None,
        *,
        condition: AppendCondition | None = None,
    ) -> int:
        """Append events to a stream, all or none; they are delivered later. See `AbstractEventStore.append`."""
        await self._ready()
        return await self.inner.append(stream_id, events, expected_version, condition=condition)

    async def read(  # type: ignore[override]  # as in the base
        self,
        stream_id: str,
        from_version: int = 0,
        to_version: int | None = None,
        limit: int | None = None,
        *,
        start: int | None = None,
        count: int | None = None,
    ) -> list[Any]:
        """Return events of one stream in order; see `AbstractEventStore.read`."""
        await self._ready()
        return await self.inner.read(stream_id, from_version, to_version, limit, start=start, count=count)

    async def compact(self, stream_id: str, up_to_version: int, archiver: Archiver | None = None) -> int:
        """Remove the events of a stream up to and including a version; see `AbstractEventStore.compact`."""
        await self._ready()
        return await self.inner.compact(stream_id, up_to_version, archiver)

    async def delete_stream(self, stream_id: str) -> int:
        """Remove all events of a stream and return how many; see `AbstractEventStore.delete_stream`."""
        await self._ready()
        return await self.inner.delete_stream(stream_id)

    def unit_of_work(self) -> AbstractUnitOfWork:
        """Return a unit of work of the inner store."""
        return self.inner.unit_of_work()

    def checkpoint_store(self) -> AbstractCheckpointStore | None:
        """Return a checkpoint store in the inner store's database."""
        return self.inner.checkpoint_store()

    def set_hook_registry(self, hooks: Any) -> None:
        """Fire `EventStoredHook` through this registry after each append."""
        self.inner.set_hook_registry(hooks)

    async def _open(self) -> None:
        await self.inner.connect()
        await self._box.connect()
        self._wakeup = self.inner._wakeup

    async def _close(self) -> None:
        await self._box.close()
        await self.inner.close()

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        return self.inner._unit_of_work()

    def _events(self, request: ReadRequest, batch_size: int) -> AsyncIterator[Any]:
        return self.inner._events(request, batch_size)

    def _batches(self, request: ReadRequest, batch_size: int) -> AsyncIterator[list[Any]]:
        return self.inner._batches(request, batch_size)

    async def _page(self, request: ReadRequest) -> Page:
        await self._ready()
        return await self.inner._page(request)

    async def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Appended:
        return await self.inner._append(stream_id, events, expected_version, condition, unit_of_work)

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        return await self.inner._read(stream_id, from_version, to_version, limit)

    async def _read_all(self, request: ReadRequest) -> Page:
        return await self.inner._read_all(request)

    async def _count(self, request: ReadRequest) -> int:
        return await self.inner._count(request)

    async def _bounds(self, stream_id: str) -> StreamBounds:
        return await self.inner._bounds(stream_id)

    async def _head(self) -> int:
        return await self.inner._head()

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        return await self.inner._compact(stream_id, up_to_version)

    async def _removals(self) -> dict[str, int]:
        return await self.inner._removals()

    async def _stream_ids(self) -> list[str]:
        return await self.inner._stream_ids()
