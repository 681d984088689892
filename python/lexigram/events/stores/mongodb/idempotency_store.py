"""Marks of processed messages on MongoDB. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import partial
from typing import Any, Final

from lexigram.events.stores._settled import settled
from lexigram.events.stores.idempotency import AbstractIdempotencyStore
from lexigram.events.stores.mongodb.database import (
    MongoCollections,
    MongoDatabase,
    after_commit,
    insert_missing,
    put,
)
from lexigram.events.stores.unit_of_work import current_unit_of_work

_CLAIM_SECONDS: Final = 300.0
"""How long a claim inside a unit of work holds if its process ends before the commit; then the message is free again."""


class MongoDBIdempotencyStore(MongoCollections, AbstractIdempotencyStore):
    """Marks, one document for each consumer and message.

    Inside a unit of work a mark counts after the commit. A claim is made at once, for five minutes, confirmed after the
    commit and given back by a rollback.

    Args:
        config: As for `MongoDBEventStore`; usually the event store itself.
    """

    indexes = (([("expires_at", 1)], {"name": "by_expiry"}),)

    def __init__(self, config: Any) -> None:
        database = MongoDatabase(config)
        self._use(database, f"{database.settings.events}_idempotency")
        self._undoing: set[asyncio.Task[Any]] = set()

    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""
        collection = await self._ready()
        expired = {"expires_at": {"$lte": time.time()}}
        result = await self.mongo.write(lambda: collection.delete_many(expired), "removing expired marks")
        return int(result.deleted_count)

    async def close(self) -> None:
        """Give the database back; a second call does nothing."""
        await self._undone()
        await super().close()

    async def _undone(self) -> None:
        """Wait until claims of units of work that were rolled back are given back."""
        while self._undoing:
            await asyncio.wait(set(self._undoing))

    async def _is_joined(self) -> bool:
        await self._ready()
        return current_unit_of_work(self.mongo.root) is not None

    async def _is_settled(self, consumer_id: str, message_id: str) -> bool:
        collection = await self._ready()
        settled = {**_key(consumer_id, message_id), "open": {"$ne": True}}
        settled["$or"] = [{"expires_at": None}, {"expires_at": {"$gt": time.time()}}]
        return await self.mongo.read(lambda: collection.find_one(settled, {"_id": 1}), "reading a mark") is not None

    async def _is_processed(self, consumer_id: str, message_id: str) -> bool:
        collection = await self._ready()
        await self._undone()
        live = {**_key(consumer_id, message_id), "$or": [{"expires_at": None}, {"expires_at": {"$gt": time.time()}}]}
        return await self.mongo.read(lambda: collection.find_one(live, {"_id": 1}), "reading a mark") is not None

    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        collection = await self._ready()
        document = {**_key(consumer_id, message_id), "expires_at": _until(expires_in), "token": None}
        mark = partial(self.mongo.write, partial(put, collection, document), "marking a message")
        await after_commit(self.mongo, mark)

    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        collection, key = await self._ready(), _key(consumer_id, message_id)
        await self._undone()
        unit = current_unit_of_work(self.mongo.root)
        # The token tells a retry after a lost answer that the claim is its own.
        token = secrets.token_hex(12)
        final = {"expires_at": _until(expires_in), "token": token, "open": False}
        claim = final if unit is None else {"expires_at": time.time() + _CLAIM_SECONDS, "token": token, "open": True}

        async def take() -> bool:
            if await insert_missing(collection, {**key, **claim}):
                return True
            expired = {**key, "$or": [{"token": token}, {"expires_at": {"$lte": time.time()}}]}
            return bool((await collection.update_one(expired, {"$set": claim})).matched_count)

        if unit is None:
            return await self.mongo.write(take, "claiming a message")
        own = {**key, "token": token}
        unit.on_rollback(lambda: self._give_back(partial(collection.delete_one, own)))
        if not await settled(asyncio.ensure_future(self.mongo.write(take, "claiming a message"))):
            return False
        confirm = partial(collection.update_one, own, {"$set": final})
        await after_commit(self.mongo, partial(self.mongo.write, confirm, "confirming a claim"))
        return True

    def _give_back(self, delete: Any) -> None:
        task = asyncio.ensure_future(self.mongo.write(delete, "giving a claim back"))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)


def _key(consumer_id: str, message_id: str) -> dict[str, Any]:
    return {"_id": {"consumer": consumer_id, "message": message_id}}


def _until(expires_in: float | None) -> float | None:
    return None if expires_in is None else time.time() + expires_in
