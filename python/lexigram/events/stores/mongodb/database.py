"""What a store has in hand: which MongoDB database, under which collection names; opened once, shared by all on it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventValidationError,
)
from lexigram.events.stores._life import StoreLife
from lexigram.events.stores._loop_lock import OneLoopLock, check_loop
from lexigram.events.stores._settled import settled
from lexigram.events.stores.mongodb.config import MongoSettings
from lexigram.events.stores.mongodb.errors import DRIVER_ERRORS, attempt, clear_error
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.stores.mongodb.documents import Index

T = TypeVar("T")

_SOCKET_TIMEOUT_MS: Final = 30_000
_CALLS_END_SECONDS: Final = 5.0
"""A half-open connection is noticed after this time, unless the address names another."""

_PROVIDER_NAMES: Final = ("database", "db", "_db")
"""Where a document store keeps the driver's database: public names first, then that of lexigram-nosql."""


class MongoDatabase:
    """One MongoDB database and the collections of one log in it.

    Args:
        source: A framework document store, a pymongo asyncio database or client, a URL, a configuration; or another
            MongoDB store or `MongoDatabase`, whose connection is then shared.
        config: Collection names, and the address where `source` has none.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming the setting.
    """

    settings: MongoSettings

    def __init__(self, source: Any = None, config: Any = None) -> None:
        other: Any = source if isinstance(source, MongoDatabase) else getattr(source, "mongo", None)
        self._parent = other if isinstance(other, MongoDatabase) else None
        self._provider: Any = None
        self._client: Any = None
        self._given: Any = None
        if self._parent is not None:
            self.settings = self._parent.settings
        elif isinstance(source, AsyncMongoClient | AsyncDatabase) or _is_document_store(source):
            self.settings = MongoSettings.of(config)
            self._given, self._provider = _split(source)
        else:
            self.settings = MongoSettings.of(config if source is None else source)
            if self.settings.url is None:
                raise EventValidationError(
                    "a MongoDB store needs an address, a client, a database or a document store", field="config"
                )
        self.shared: dict[str, Any] = {}
        self.calls: set[asyncio.Future[Any]] = set()
        """What the stores on this database have in common, such as the log's committer."""
        self._database: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0
        self._opening = OneLoopLock("MongoDB")
        self._indexed: set[str] = set()

    @property
    def root(self) -> MongoDatabase:
        """The database whose connection is used: this one, or the one it shares."""
        return self if self._parent is None else self._parent.root

    async def open(self) -> None:
        """Connect; each `open` needs its `close`.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the server cannot be reached or refuses the credentials.
        """
        if self._parent is not None:
            await self.root.open()
            return
        async with self._opening:
            if self._users == 0:
                self._database = await self._connect()
                self._loop = asyncio.get_running_loop()
            self._users += 1

    async def close(self) -> None:
        """Give the connection back; the last one to do so closes it, unless it belongs to the application."""
        if self._parent is not None:
            await self.root.close()
            return
        self._users -= 1
        if self._users == 0:
            self._database = None
            for part in list(self.shared.values()):
                await part.close()
            self.shared.clear()
            client, self._client = self._client, None
            if client is not None:
                if self.calls:
                    await asyncio.wait(self.calls, timeout=_CALLS_END_SECONDS)
                await client.close()

    def collection(self, suffix: str = "", *, name: str | None = None, majority: bool = True) -> Any:
        """Return a collection whose writes are durable when acknowledged.

        Args:
            suffix: Added to the name of the events' collection.
            name: The whole name instead.
            majority: Read only what no failover can undo; False reads the primary's newest state.
        """
        if self._parent is not None:
            return self.root.collection(suffix, name=name, majority=majority)
        if self._database is None:
            raise EventStoreConnectionError("the MongoDB store is not connected; call connect() first")
        return self._database.get_collection(
            name or self.settings.events + suffix,
            codec_options=CodecOptions(),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority" if majority else "local"),
        )

    def check_loop(self) -> None:
        """Raise `EventStoreConnectionError` in another event loop than the one in which it was opened."""
        if self.root._database is not None:
            check_loop(self.root._loop, "MongoDB")

    async def read(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Await `call()`, again while the connection is lost; failures are ours."""
        self.check_loop()
        return await attempt(call, what, EventLoadError, self.settings.timeout_seconds, self.root.calls)

    async def write(self, call: Callable[[], Awaitable[T]], what: str, *, twice: bool = True) -> T:
        """Await `call()`; again while the connection is lost if doing it `twice` has the effect of once."""
        self.check_loop()
        seconds = self.settings.timeout_seconds if twice else 0.0
        return await attempt(call, what, EventPersistenceError, seconds, self.root.calls)

    async def ensure_indexes(self, collection: Any, indexes: tuple[Index, ...]) -> None:
        """Create indexes that are missing; safe if other processes do the same now."""
        root = self.root
        if not self.settings.auto_create_indexes or collection.name in root._indexed:
            return
        for keys, options in indexes:

            async def create(keys: Any = keys, options: Any = options) -> None:
                await collection.create_index(keys, **options)

            await attempt(create, "creating indexes", EventStoreConnectionError, self.settings.timeout_seconds)
        root._indexed.add(collection.name)

    async def _check_kind(self, collection: Any) -> None:
        """Raise unless a collection is empty or holds what its name says: commits of a log, or none."""
        found = await self.read(lambda: collection.find_one({}, {"q": 1, "a": 1}), "looking at a collection")
        is_log = found is not None and found.keys() >= {"q", "a"}
        if found is not None and is_log != (collection.name == self.settings.events):
            raise EventStoreConnectionError(
                f"the MongoDB collection {collection.name!r} holds "
                f"{'the events of another log' if is_log else 'something else than events'}; choose another name in "
                "events_collection (other collections are named after it, such as <events_collection>_checkpoints)"
            )

    async def open_collection(self, name: str, indexes: tuple[Index, ...]) -> Any:
        """Connect, as `open` does, and return a collection with its indexes created.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, also if it is a log and should be none, or the other way round.
        """
        await self.open()
        try:
            collection = self.collection(name=name)
            await self._check_kind(collection)
            if name == self.settings.events:
                await self._check_kind(self.collection(name=self.settings.counters))
            await self.ensure_indexes(collection, indexes)
        except BaseException:
            await self.close()
            raise
        return collection

    async def _connect(self) -> Any:
        if self._provider is not None:
            return await self._provider_database()
        if self._given is not None:
            database = self._given
        else:
            assert self.settings.url is not None
            limits: dict[str, Any] = {
                "maxPoolSize": self.settings.max_pool_size,
                "serverSelectionTimeoutMS": int(self.settings.timeout_seconds * 1000),
                "socketTimeoutMS": _SOCKET_TIMEOUT_MS,
                "appname": "lexigram-events",
            }
            asked = {name.lower() for name, _ in parse_qsl(urlsplit(self.settings.url).query)}
            limits = {name: value for name, value in limits.items() if name.lower() not in asked}
            try:
                self._client = AsyncMongoClient(self.settings.url, **limits)
            except (*DRIVER_ERRORS, ValueError) as error:  # the latter of a port that is none
                raise clear_error(error, "connecting", EventStoreConnectionError) from error
            database = self._client
        if isinstance(database, AsyncMongoClient):
            database = database[self.settings.database]
        try:
            await attempt(lambda: database.command("ping"), "connecting", EventStoreConnectionError, 0.0)
        except BaseException:
            if self._client is not None:
                await self._client.close()
                self._client = None
            raise
        return database

    async def _provider_database(self) -> Any:
        """Return the driver's database behind a framework document store, connecting the store if it is not."""
        provider = self._provider
        try:
            if not provider.is_connected():
                await provider.connect()
        except Exception as error:
            raise EventStoreConnectionError(f"the document store cannot connect: {error}") from error
        for name in _PROVIDER_NAMES:
            database = getattr(provider, name, None)
            if hasattr(database, "get_collection") and hasattr(database, "command"):
                return database
        raise EventValidationError(
            f"{type(provider).__name__} exposes no MongoDB database; only with one can commits be made atomic and "
            "durable. Pass a pymongo AsyncDatabase, or the address in config",
            field="document_store",
        )


def _is_document_store(source: object) -> bool:
    """Whether this is a framework document store; raises for the clients of other drivers, which have any attribute."""
    if type(source).__module__.partition(".")[0] in ("pymongo", "motor"):
        raise EventValidationError(
            f"a MongoDB store needs pymongo's AsyncMongoClient or a database of it, got {type(source).__name__}",
            field="document_store",
        )
    return hasattr(source, "collection")


def _split(source: Any) -> tuple[Any, Any]:
    """Return (client or database given, framework document store), one of them None."""
    is_driver = isinstance(source, AsyncMongoClient | AsyncDatabase)
    return (source, None) if is_driver else (None, source)


async def aggregated(collection: Any, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of an aggregation; pymongo awaits the cursor, motor does not."""
    cursor = collection.aggregate(pipeline)
    if inspect.isawaitable(cursor):
        cursor = await cursor
    documents: list[dict[str, Any]] = await cursor.to_list(None)
    return documents


class MongoCollections(StoreLife):
    """Base of the small stores: connects at the first use, gives the database back on `close`."""

    mongo: MongoDatabase
    indexes: tuple[Index, ...] = ()

    def _use(self, database: MongoDatabase, name: str) -> None:
        StoreLife.__init__(self)
        self.mongo = database
        self._name = name
        self._collection: Any = None

    async def _open(self) -> None:
        self._collection = await self.mongo.open_collection(self._name, self.indexes)

    async def _close(self) -> None:
        await self.mongo.close()

    async def _ready(self) -> Any:
        """Return the collection of an open store; opens it at its first use."""
        if not self._is_open:
            await super()._ready()
        return self._collection


async def insert_missing(collection: Any, document: dict[str, Any]) -> bool:
    """Insert a document unless one of its `_id` is there; tell whether it was inserted."""
    try:
        await collection.insert_one(document)
    except DuplicateKeyError:
        return False
    return True


async def put(collection: Any, document: dict[str, Any]) -> None:
    """Insert a document or replace the one of its `_id`. Not by an upsert: that is not atomic on every server."""
    while not (await collection.replace_one({"_id": document["_id"]}, document)).matched_count:
        if await insert_missing(collection, document):
            return


async def after_commit(database: MongoDatabase, call: Callable[[], Awaitable[Any]]) -> None:
    """Await `call()` now, or once the unit of work on this database is committed; never if it is rolled back.

    After a commit it is carried out to its end, whoever is cancelled meanwhile.
    """
    unit = current_unit_of_work(database.root)
    if unit is None:
        await call()
    else:
        unit.on_commit(lambda: settled(asyncio.ensure_future(call())))
