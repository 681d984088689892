"""A read model of documents, one per key, kept anywhere: what is delivered twice has one effect.

Source: design, section projections (at least once, idempotent).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.base import ProjectionProtocol, settled

Document = dict[str, Any]
Change = Callable[[Document, Any], Any]
C = TypeVar("C", bound=Change)


class Versioned(NamedTuple):
    """A document and what it is as of.

    Args:
        document: None if it was deleted, or never there.
        position: Global position of the last event that changed it; 0 = none.
    """

    document: Document | None
    position: int


class DocumentStore(Protocol):
    """Where documents are kept. Each call is atomic for its key."""

    async def get(self, key: str) -> Versioned:
        """Return the document of a key."""
        ...

    async def put(self, key: str, document: Document | None, position: int) -> bool:
        """Store a document, None as deleted, if its position is higher than the stored one; return whether it was."""
        ...

    async def clear(self) -> None:
        """Forget all documents and their positions."""
        ...


class _Route(NamedTuple):
    key: Callable[[Any], Any]
    change: Change


class DocumentProjection(ProjectionProtocol):
    """One document for each key, made by functions of the document and the event.

    Each document carries the position of the last event that changed it. An event is applied to a document once, in
    order, however often it is delivered: after a crash, or by a worker that has lost its lease and does not know it.
    Use it where the read model is not in the event store's database, and `DurableProjection` where it is.

    A parked event is older than its document when it is delivered again, and then ignored: with `on_error="park"` let
    the events of one document be of one aggregate, whose later events are parked behind it.

    Args:
        name: Unique among the projections of the manager.
        documents: Where they are kept: `InMemoryDocuments`, `MongoDBDocuments`, `RedisDocuments`, or your own.

    Example:
        stock = DocumentProjection("stock", MongoDBDocuments(database["stock"]))

        @stock.on(Restocked, key=lambda event: event.sku)
        def restocked(document: dict, event: Restocked) -> dict:
            return {"count": document.get("count", 0) + event.count}
    """

    def __init__(self, name: str, documents: DocumentStore) -> None:
        super().__init__()
        if not isinstance(name, str) or not name:
            raise EventValidationError("A projection needs a name; pass a non-empty string", field="name")
        self._name = name
        self._documents = documents
        self._on: dict[type[DomainEvent], _Route] = {}
        self._found: dict[type, _Route] = {}

    @property
    def name(self) -> str:
        """The name given."""
        return self._name

    @property
    def handles(self) -> tuple[type[DomainEvent], ...]:
        """The event classes given to `on`."""
        return tuple(self._on)

    def on(self, *event_types: type[DomainEvent], key: Callable[[Any], Any]) -> Callable[[C], C]:
        """Decorate a function of `(document, event)` that returns the new document; None deletes it.

        Args:
            event_types: The events it is called for, subclasses included.
            key: Returns the key of the document that an event changes; None = none.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; no event class was given, or one has its function already.
        """
        if not event_types:
            raise EventValidationError("on() needs at least one event class", field="event_types")

        def decorate(change: C) -> C:
            for event_type in event_types:
                if event_type in self._on:
                    raise EventValidationError(f"{event_type.__name__} is handled already", field="event_types")
                self._on[event_type] = _Route(key, change)
            self._found.clear()
            self._routes = None
            return change

        return decorate

    async def get(self, key: str) -> Document | None:
        """Return the document of a key, or None."""
        return (await self._documents.get(key)).document

    async def apply(self, event: Any) -> None:
        """Change the event's document, unless it has been changed by this event, or a later one, already.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; the event has no position: it does not come from a log.
        """
        route = self._route(type(event))
        key = route.key(event)
        if key is None:
            return
        position = event.sequence_number
        if position is None:
            raise EventValidationError(
                f"{event.event_type} has no position; hand in events that were read from a store", field="event"
            )
        stored = await self._documents.get(str(key))
        if stored.position < position:
            changed = await settled(route.change(copy.deepcopy(stored.document or {}), event))
            await self._documents.put(str(key), changed, position)

    async def reset(self) -> None:
        """Forget all documents and the position."""
        await self._documents.clear()
        await super().reset()

    def _route(self, cls: type) -> _Route:
        found = self._found.get(cls)
        if found is None:
            found = self._found[cls] = next(self._on[base] for base in cls.__mro__ if base in self._on)
        return found


class InMemoryDocuments:
    """Documents of this process; lost with it, so give the projection's manager no checkpoint store."""

    def __init__(self) -> None:
        self._documents: dict[str, Versioned] = {}

    async def get(self, key: str) -> Versioned:
        """Return the document of a key."""
        return self._documents.get(key, Versioned(None, 0))

    async def put(self, key: str, document: Document | None, position: int) -> bool:
        """Store a document if it is newer."""
        if (await self.get(key)).position >= position:
            return False
        self._documents[key] = Versioned(document, position)
        return True

    async def clear(self) -> None:
        """Forget all documents."""
        self._documents.clear()


class MongoDBDocuments:
    """Documents in a MongoDB collection, as `{_id: key, position, document}`; deleted ones keep their position.

    Args:
        collection: A collection of `pymongo.AsyncMongoClient`, of this read model alone. Values must be BSON.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    async def get(self, key: str) -> Versioned:
        """Return the document of a key."""
        row = await self._collection.find_one({"_id": key})
        return Versioned(None, 0) if row is None else Versioned(row["document"], row["position"])

    async def put(self, key: str, document: Document | None, position: int) -> bool:
        """Store a document if it is newer, in one statement."""
        from pymongo.errors import DuplicateKeyError

        older = {"_id": key, "position": {"$lt": position}}
        try:
            await self._collection.update_one(
                older, {"$set": {"position": position, "document": document}}, upsert=True
            )
        except DuplicateKeyError:  # it is there, and not older
            return False
        return True

    async def clear(self) -> None:
        """Delete everything in the collection."""
        await self._collection.delete_many({})


_PUT = """
if tonumber(redis.call('HGET', KEYS[1], 'position') or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'position', ARGV[1], 'document', ARGV[2])
return 1
"""


class RedisDocuments:
    """Documents in Redis, each a hash of `position` and `document` (JSON of the library's codec).

    Args:
        client: A `redis.asyncio.Redis`.
        prefix: Before each key; of this read model alone.
        codec: Encodes documents; the default one knows every value that events may carry.
    """

    def __init__(self, client: Any, prefix: str, *, codec: EventCodec | None = None) -> None:
        if not prefix:
            raise EventValidationError("prefix must not be empty: clear() deletes all keys with it", field="prefix")
        self._client, self._prefix = client, prefix
        self._codec = EventCodec() if codec is None else codec

    async def get(self, key: str) -> Versioned:
        """Return the document of a key."""
        position, document = await self._client.hmget(self._prefix + key, "position", "document")
        if position is None:
            return Versioned(None, 0)
        text = document.encode("utf-8") if isinstance(document, str) else document
        return Versioned(self._codec.decode_value(text), int(position))

    async def put(self, key: str, document: Document | None, position: int) -> bool:
        """Store a document if it is newer, in one script."""
        text = self._codec.encode_value(document)
        return bool(await self._client.eval(_PUT, 1, self._prefix + key, position, text))

    async def clear(self) -> None:
        """Delete all keys with the prefix. Cost: a scan of the database."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix)
        async for key in self._client.scan_iter(match=pattern + "*", count=1000):
            await self._client.delete(key)
