"""Checkpoints on MongoDB. Source: spec/reference-surface.md."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from lexigram.events.stores.checkpoints import AbstractCheckpointStore, lost_lock
from lexigram.events.stores.mongodb.database import MongoCollections, MongoDatabase, after_commit, insert_missing


class MongoDBCheckpointStore(MongoCollections, AbstractCheckpointStore):
    """Positions, leases and epochs, one document per name; each change of one is atomic.

    Inside a unit of work a position is saved after the commit: if the process ends in between, what follows the log
    sees those events again.

    Args:
        config: As for `MongoDBEventStore`; usually the event store itself.
    """

    def __init__(self, config: Any) -> None:
        database = MongoDatabase(config)
        self._use(database, f"{database.settings.events}_checkpoints")

    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""
        collection = await self._ready()
        wanted = {"position": {"$gte": 0}}
        found = await self.mongo.read(
            lambda: collection.find(wanted, {"position": 1}, sort=[("_id", 1)]).to_list(None), "listing checkpoints"
        )
        return {document["_id"]: int(document["position"]) for document in found}

    async def _get(self, name: str) -> int:
        return int((await self._document(name)).get("position") or 0)

    async def _document(self, name: str) -> dict[str, Any]:
        collection = await self._ready()
        found = await self.mongo.read(lambda: collection.find_one({"_id": name}), "reading a checkpoint")
        return found or {}

    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        collection = await self._ready()
        if epoch is not None:
            current = await self._epoch(name)
            if current != epoch:
                raise lost_lock(name, epoch, current)

        async def save() -> None:
            while True:
                wanted = {"_id": name} if epoch is None else {"_id": name, "epoch": epoch}
                result = await collection.update_one(wanted, {"$set": {"position": position}})
                if result.matched_count or await insert_missing(collection, _new(name, position)):
                    return
                current = await self._epoch(name)
                if epoch is not None and current != epoch:
                    raise lost_lock(name, epoch, current)

        await after_commit(self.mongo, partial(self.mongo.write, save, "saving a checkpoint"))

    async def _delete(self, name: str) -> None:
        collection = await self._ready()
        forget = partial(collection.update_one, {"_id": name}, {"$set": {"position": None}})
        await after_commit(self.mongo, partial(self.mongo.write, forget, "deleting a checkpoint"))

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        collection = await self._ready()

        async def acquire() -> bool:
            # Wall-clock time, because other processes compare it with theirs.
            now = time.time()
            lease = {"owner": owner, "expires_at": now + timeout_seconds}
            live = {"_id": name, "owner": owner, "expires_at": {"$gt": now}}
            if (await collection.update_one(live, {"$set": lease})).matched_count:
                return True
            free = {"_id": name, "$or": [{"owner": None}, {"expires_at": {"$lte": now}}]}
            take = {"$set": lease, "$inc": {"epoch": 1}, "$unset": {"fault": ""}}
            if (await collection.update_one(free, take)).matched_count:
                return True
            if not await insert_missing(collection, _new(name, None)):
                return False
            lease["expires_at"] = time.time() + timeout_seconds
            return bool((await collection.update_one(free, take)).matched_count)

        return await self.mongo.write(acquire, "taking a lock")

    async def _release(self, name: str, owner: str) -> None:
        await self._give_back(name, owner, {})

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        await self._give_back(name, owner, {"fault": fault})

    async def _give_back(self, name: str, owner: str, more: dict[str, Any]) -> None:
        collection = await self._ready()
        free = {"$set": {"owner": None, "expires_at": 0.0, **more}}
        await self.mongo.write(lambda: collection.update_one({"_id": name, "owner": owner}, free), "releasing a lock")

    async def _faults(self) -> dict[str, str]:
        collection = await self._ready()
        found = await self.mongo.read(
            lambda: collection.find({"fault": {"$type": "string"}}, {"fault": 1}).to_list(None), "listing faults"
        )
        return {document["_id"]: document["fault"] for document in found}

    async def _locks(self) -> dict[str, str]:
        collection = await self._ready()
        held = {"owner": {"$ne": None}, "expires_at": {"$gt": time.time()}}
        found = await self.mongo.read(lambda: collection.find(held, {"owner": 1}).to_list(None), "listing locks")
        return {document["_id"]: document["owner"] for document in found}

    async def _epoch(self, name: str) -> int:
        return int((await self._document(name)).get("epoch") or 0)


def _new(name: str, position: int | None) -> dict[str, Any]:
    return {"_id": name, "position": position, "owner": None, "expires_at": 0.0, "epoch": 0}
