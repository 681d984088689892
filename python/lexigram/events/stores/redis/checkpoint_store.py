"""Checkpoints on Redis. Source: spec/reference-surface.md."""

from __future__ import annotations

from functools import partial
from typing import Any

from lexigram.events.stores.checkpoints import AbstractCheckpointStore, lost_lock
from lexigram.events.stores.redis.operations import SmallOperation
from lexigram.events.stores.redis.shared import RedisPart, log_of


class RedisCheckpointStore(RedisPart, AbstractCheckpointStore):
    """Positions, leases and epochs in a namespace of Redis; leases run by the server's clock.

    Inside a unit of work of an event store that shares the namespace a position is saved at its end.

    Args:
        store: As for `RedisEventStore`; usually the event store itself.
        namespace: As for `RedisEventStore`.
    """

    def __init__(self, store: Any, namespace: str = "lexigram:events") -> None:
        self._use(log_of(store, namespace))

    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""
        found = await (await self._ready()).hash("checkpoints")
        return {name: int(found[name]) for name in sorted(found)}

    async def _get(self, name: str) -> int:
        return await self._number("checkpoints", name)

    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        log = await self._ready()
        refused = partial(_lost_lock, name, epoch or 0)
        await log.apply(SmallOperation("checkpoint", (name, position, "" if epoch is None else epoch), refused))

    async def _delete(self, name: str) -> None:
        await (await self._ready()).apply(SmallOperation("forget", (name,)))

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        log = await self._ready()
        # At once, in a unit of work too: a lease is no part of its outcome.
        operation = SmallOperation("lock", (name, owner, max(round(timeout_seconds * 1000), 1)))
        return bool(await log.execute(operation))

    async def _release(self, name: str, owner: str) -> None:
        await (await self._ready()).execute(SmallOperation("unlock", (name, owner)))

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        await (await self._ready()).execute(SmallOperation("fault", (name, owner, fault)))

    async def _faults(self) -> dict[str, str]:
        found = await (await self._ready()).hash("lock_faults")
        return {name: fault.decode() for name, fault in found.items()}

    async def _locks(self) -> dict[str, str]:
        log = await self._ready()
        owners, ends = await log.hash("lock_owners"), await log.hash("lock_ends")
        seconds, microseconds = await log.connection.read("TIME")
        now = int(seconds) * 1000 + int(microseconds) // 1000
        return {name: owner.decode() for name, owner in owners.items() if float(ends.get(name, 0)) > now}

    async def _epoch(self, name: str) -> int:
        return await self._number("lock_epochs", name)

    async def _number(self, key: str, name: str) -> int:
        log = await self._ready()
        return int(await log.connection.read("HGET", log.prefix + key, name) or 0)


def _lost_lock(name: str, epoch: int, current: int | None) -> Any:
    return lost_lock(name, epoch, current or 0)
