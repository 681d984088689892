"""Checkpoints: how far a projection has come, and who owns it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.stores._life import Closable
from lexigram.events.stores._validation import FOREVER_SECONDS, check_number, check_optional, check_text
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.stores._sql import SqlCheckpointStore as SqlCheckpointStore


_LONGEST_FAULT: Final = 10_000
"""Characters of an error that are kept."""


class AbstractCheckpointStore(Closable, ABC):
    """Positions by name, with a lease per name and an epoch that fences owners who lost theirs."""

    async def get_checkpoint(self, name: str) -> int:
        """Return the last position processed under this name; 0 if there is none."""
        return await self._get(check_text(name, "name"))

    async def save_checkpoint(self, name: str, position: int, *, epoch: int | None = None) -> None:
        """Store a position; inside a unit of work it counts once that is committed.

        Args:
            name: 1 to 255 characters.
            position: Last position processed, at least 0. It may be lower than the one stored (rebuild).
            epoch: The owner's epoch (`lock_epoch`); None = not fenced.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004; somebody else has taken over the lock since. Nothing is changed.
        """
        check_text(name, "name")
        await self._save(name, check_number(position, "position"), check_optional(epoch, "epoch"))

    async def delete_checkpoint(self, name: str) -> None:
        """Forget the position under this name, in a unit of work once that is committed; its lock and epoch stay."""
        await self._delete(check_text(name, "name"))

    @abstractmethod
    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""

    async def acquire_lock(self, name: str, owner: str, timeout: float = 30.0) -> bool:
        """Take the lock of a name, or renew it if this owner has it already; never waits.

        Args:
            name: 1 to 255 characters.
            owner: Identifies the process and task.
            timeout: Seconds until the lock expires unless renewed; others can take it then. Above 0.

        Returns:
            False if another owner has it.
        """
        check_text(owner, "owner")
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout > 0:
            raise EventValidationError(f"timeout must be a number of seconds above 0, got {timeout!r}", field="timeout")
        return await self._acquire(check_text(name, "name"), owner, min(float(timeout), FOREVER_SECONDS))

    async def release_lock(self, name: str, owner: str, *, fault: str | None = None) -> None:
        """Give the lock back; does nothing if this owner does not have it.

        Args:
            fault: Why nobody should go on by himself; kept, see `list_faults`, until somebody takes the lock.
        """
        check_text(name, "name")
        check_text(owner, "owner")
        if fault is None:
            await self._release(name, owner)
        else:
            await self._fail(name, owner, fault.replace("\0", "\ufffd")[:_LONGEST_FAULT])

    async def lock_epoch(self, name: str) -> int:
        """Return how many times the lock has changed hands; 0 if nobody ever took it."""
        return await self._epoch(check_text(name, "name"))

    async def list_locks(self, prefix: str = "") -> dict[str, str]:
        """Return the owner of every lock that is held now, by name, of the names that begin with `prefix`."""
        return {name: owner for name, owner in sorted((await self._locks()).items()) if name.startswith(prefix)}

    async def list_faults(self) -> dict[str, str]:
        """Return what the last owners left as `fault`, by name, of the locks that nobody has taken since."""
        return await self._faults()

    @abstractmethod
    async def _get(self, name: str) -> int: ...

    @abstractmethod
    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        """Store; raise `lost_lock(name, …)` if `epoch` is given and is not the current one."""

    @abstractmethod
    async def _delete(self, name: str) -> None: ...

    @abstractmethod
    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        """Take or renew, atomically. A change of owner raises the epoch by one, renewing does not."""

    @abstractmethod
    async def _release(self, name: str, owner: str) -> None: ...

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        """Release and keep the fault, atomically; `_acquire` by a new owner forgets it. By default it is not kept."""
        await self._release(name, owner)

    async def _faults(self) -> dict[str, str]:
        return {}

    @abstractmethod
    async def _epoch(self, name: str) -> int: ...

    @abstractmethod
    async def _locks(self) -> dict[str, str]:
        """Return names and owners of the locks that have an owner and have not expired."""


def moved_elsewhere(name: str, expected: int, actual: int) -> ConcurrencyError:
    """Return the error for a checkpoint that is not where its user left it."""
    return ConcurrencyError(
        f"Projection {name!r} is also run elsewhere: its checkpoint is {actual}, not {expected}; "
        "run each projection in one process",
        expected_version=expected,
        actual_version=actual,
    )


def lost_lock(name: str, epoch: int, current: int) -> ConcurrencyError:
    """Return the error for a checkpoint saved by an owner who no longer has the lock."""
    return ConcurrencyError(
        f"the lock of {name!r} has changed hands (epoch {epoch}, now {current}); the checkpoint was not saved",
        expected_version=epoch,
        actual_version=current,
    )


class _Lock(NamedTuple):
    owner: str | None
    expires_at: float
    epoch: int
    fault: str | None = None


class InMemoryCheckpointStore(AbstractCheckpointStore):
    """Checkpoints of one process; for tests and for read models that live in memory too."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._leases: dict[str, _Lock] = {}

    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""
        return dict(self._positions)

    async def _get(self, name: str) -> int:
        return self._positions.get(name, 0)

    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        self._check_epoch(name, epoch)
        unit = current_unit_of_work()
        if unit is None:
            self._positions[name] = position
        else:
            unit.before_commit(lambda: self._check_epoch(name, epoch))
            unit.on_commit(lambda: self._positions.update({name: position}))

    def _check_epoch(self, name: str, epoch: int | None) -> None:
        current = self._leases[name].epoch if name in self._leases else 0
        if epoch is not None and epoch != current:
            raise lost_lock(name, epoch, current)

    async def _delete(self, name: str) -> None:
        unit = current_unit_of_work()
        if unit is None:
            self._positions.pop(name, None)
        else:
            unit.on_commit(lambda: self._forget(name))

    def _forget(self, name: str) -> None:
        self._positions.pop(name, None)

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        now = time.monotonic()
        lock = self._leases.get(name)
        if lock is None:
            self._leases[name] = _Lock(owner, now + timeout_seconds, 1)
            return True
        if lock.owner == owner and lock.expires_at > now:
            self._leases[name] = _Lock(owner, now + timeout_seconds, lock.epoch)
            return True
        if lock.owner is not None and lock.expires_at > now:
            return False
        self._leases[name] = _Lock(owner, now + timeout_seconds, lock.epoch + 1)
        return True

    async def _release(self, name: str, owner: str) -> None:
        lock = self._leases.get(name)
        if lock is not None and lock.owner == owner:
            self._leases[name] = _Lock(None, 0.0, lock.epoch)

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        lock = self._leases.get(name)
        if lock is not None and lock.owner == owner:
            self._leases[name] = _Lock(None, 0.0, lock.epoch, fault)

    async def _faults(self) -> dict[str, str]:
        return {name: lock.fault for name, lock in self._leases.items() if lock.fault is not None}

    async def _epoch(self, name: str) -> int:
        return self._leases[name].epoch if name in self._leases else 0

    async def _locks(self) -> dict[str, str]:
        now = time.monotonic()
        return {
            name: lock.owner for name, lock in self._leases.items() if lock.owner is not None and lock.expires_at > now
        }


def __getattr__(name: str) -> object:
    # Imports sqlite3, so only for those who use it.
    if name == "SqlCheckpointStore":
        from lexigram.events.stores._sql import SqlCheckpointStore

        return SqlCheckpointStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
