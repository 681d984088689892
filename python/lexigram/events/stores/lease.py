"""Divides work among processes by leases in a database. Source: design, sections projections and outbox."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._loop_lock import LoopLock
from lexigram.events.stores._settled import stopped
from lexigram.events.stores._validation import check_text
from lexigram.events.stores.shared_pause import SharedPause

if TYPE_CHECKING:
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 1.0


def new_owner() -> str:
    """Return a name for one worker of this process that no other worker has: host, process id and a random part."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid4().hex[:12]}"


class Claim:
    """One name that this worker wants to own; it may be taken away again.

    A worker does the work of the name while `is_held`, saves its checkpoints with `epoch`, and calls `release` when
    `should_release` is set, between two pieces of work.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 0
        """Fences the owner's writes: pass it to `save_checkpoint`."""
        self.should_release = False
        """Another worker is waiting for its share."""
        self.released = asyncio.Event()
        """Set while it is not held."""
        self.released.set()
        self._held = asyncio.Event()
        self._until = 0.0
        self._retry_until = 0.0

    @property
    def is_held(self) -> bool:
        """Whether the lease has not run out by this machine's monotonic clock; after a stall this is False at once."""
        return self._held.is_set() and time.monotonic() < self._until

    @property
    def retries(self) -> bool:
        """Whether this worker wants it in spite of its fault, and whatever its share is."""
        return time.monotonic() < self._retry_until

    def retry(self, seconds: float) -> None:
        """Want it for so long in spite of its fault."""
        self._retry_until = time.monotonic() + seconds

    async def wait(self) -> None:
        """Return when the claim is held."""
        while not self.is_held:
            if self._held.is_set():  # it ran out while nobody looked
                self.lose()
            await self._held.wait()

    def lose(self) -> None:
        """Note that somebody else may own the name now."""
        self._held.clear()
        self.should_release = False
        self.released.set()

    def hold(self, epoch: int, until: float) -> None:
        """Note that the name is owned until `until`, a time of the monotonic clock."""
        self.epoch, self._until, self._retry_until = epoch, until, 0.0
        self.released.clear()
        self._held.set()


class LeaseGroup:
    """Shares names fairly among all workers of a group, whatever process they are in, as workers come and go.

    A worker that ends gives its names back; one that dies or hangs loses them when its lease runs out. A worker that was
    stopped for longer than that and goes on is fenced by the epoch: its checkpoints are refused.

    Args:
        checkpoints: Where the leases are; all workers of the group use the same database.
        group: Name of the group, 1 to 100 characters; workers of one group must want the same names.
        names: What is to be shared, each 1 to 255 characters.
        owner: Identifies this worker; a fresh name if None.
        lease_seconds: After so long without renewal others take over. Above 0; a third of it is the time in which
            a change in the group takes effect.
        watches_faults: Whether `faults` is to be read every second; otherwise with each renewal.
    """

    def __init__(
        self,
        checkpoints: AbstractCheckpointStore,
        group: str,
        names: Iterable[str] = (),
        *,
        owner: str | None = None,
        lease_seconds: float = 30.0,
        watches_faults: bool = False,
    ) -> None:
        if not isinstance(lease_seconds, int | float) or isinstance(lease_seconds, bool) or not lease_seconds > 0:
            raise EventValidationError(
                f"lease_seconds must be a number above 0, got {lease_seconds!r}", field="lease_seconds"
            )
        self.group = check_text(group, "group")
        self.owner = new_owner() if owner is None else check_text(owner, "owner")
        self.claims: dict[str, Claim] = {}
        self.last_error: str | None = None
        self.faults: dict[str, str] = {}
        """Why nobody works on these names, as last read."""
        self.pause = SharedPause(checkpoints, self.group, self.owner)
        """Whether the workers are to do nothing for now; they keep their names. Read together with `faults`."""
        self._checkpoints = checkpoints
        self._looks_every = _WATCH_SECONDS if watches_faults else float("inf")
        self._looked = float("-inf")
        self._woken = asyncio.Event()
        self._changing = LoopLock()
        self._seconds = float(lease_seconds)
        self._membership = f"member:{group}:"
        self._task: asyncio.Task[None] | None = None
        for name in names:
            self.add(name)

    def add(self, name: str) -> Claim:
        """Share one name more; return its claim."""
        return self.claims.setdefault(check_text(name, "name"), Claim(name))

    @property
    def held(self) -> list[str]:
        """The names that this worker owns now."""
        return [claim.name for claim in self.claims.values() if claim.is_held]

    async def start(self) -> None:
        """Join the group; claims become held as they are free, one with a fault too. Twice is fine."""
        if self._task is None:
            self.pause.store_soon()
            await self.look()
            for name in self.faults.keys() & self.claims.keys():
                self.claims[name].retry(self._seconds)
            await self.balance()
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"leases {self.group}")

    async def stop(self) -> None:
        """Leave the group and give everything back at once; stop the work of the names first. Twice is fine."""
        await self.pause.stop()
        task, self._task = self._task, None
        if task is None:
            return
        await stopped(task)
        for claim in self.claims.values():
            await self.release(claim)
        with suppress(Exception):  # it runs out by itself
            await self._checkpoints.release_lock(self._membership + self.owner, self.owner)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def release(self, claim: Claim) -> None:
        """Give one name back, for whoever wants it next; a name that is not held is left alone."""
        async with self._changing:
            if claim.released.is_set():
                return
            claim.lose()
            with suppress(Exception):  # it runs out by itself
                await self._checkpoints.release_lock(claim.name, self.owner)

    async def fail(self, claim: Claim, fault: str) -> None:
        """Give one name back because the work on it cannot go on; nobody takes it until somebody starts or retries."""
        async with self._changing:
            await self._checkpoints.release_lock(claim.name, self.owner, fault=fault)
            self.faults[claim.name] = fault
            claim.lose()

    def retry(self, claim: Claim) -> None:
        """Take one name soon, in spite of its fault, unless somebody else keeps it for the time of a lease."""
        claim.retry(self._seconds)
        self._woken.set()

    async def look(self, max_age_seconds: float = 0.0) -> None:
        """Read faults and pause again, if they are not as recent as wanted."""
        if time.monotonic() - self._looked >= max_age_seconds:
            self._looked, changes = time.monotonic(), self.pause.changes
            self.faults = await self._checkpoints.list_faults()
            self.pause.see(self.faults, changes)

    async def members(self) -> list[str]:
        """Return the owners that are in the group now, sorted."""
        return sorted((await self._checkpoints.list_locks(self._membership)).values())

    async def _run(self) -> None:
        clock, pause = asyncio.get_running_loop().time, self._seconds / 3
        due = clock() + pause
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(due - clock(), self._looks_every)):
                    await self._woken.wait()
            try:
                if self._woken.is_set() or clock() >= due or any(claim.retries for claim in self.claims.values()):
                    self._woken.clear()
                    due = clock() + pause
                    await self.balance()
                else:
                    await self.look()
                self.last_error = None
            except Exception as error:  # the database may be away: leases run out unless it comes back in time
                self.last_error = f"{type(error).__name__}: {error}"
                _log.warning("leases of %s cannot be renewed: %s", self.group, self.last_error)

    async def balance(self) -> None:
        """Renew what is held, take what is free up to this worker's share, ask for what is above it back."""
        async with self._changing:
            await self._balance()

    async def _balance(self) -> None:
        await self._checkpoints.acquire_lock(self._membership + self.owner, self.owner, self._seconds)
        for claim in self.claims.values():
            if not claim.released.is_set():
                await self._take(claim)
        members = await self.members()
        place = members.index(self.owner) if self.owner in members else len(members)
        workers = max(len(members), 1)
        share = len(self.claims) // workers + (place < len(self.claims) % workers)
        held = [claim for claim in self.claims.values() if claim.is_held]
        for number, claim in enumerate(held):
            claim.should_release = number >= share
        owned = await self._checkpoints.list_locks()
        await self.look()
        # Each worker begins to look at another place, so that they seldom want the same name.
        names = list(self.claims)
        start = place * len(names) // workers if names else 0
        for name in (*names[start:], *names[:start]):
            claim = self.claims[name]
            is_free = not claim.is_held and owned.get(name) in (None, self.owner)
            is_wanted = claim.retries if name in self.faults else len(held) < share
            if is_free and is_wanted and await self._take(claim):
                held.append(claim)
                self.faults.pop(name, None)

    async def _take(self, claim: Claim) -> bool:
        """Take or renew one lease; the clock starts before the database is asked."""
        asked = time.monotonic()
        if not await self._checkpoints.acquire_lock(claim.name, self.owner, self._seconds):
            claim.lose()
            return False
        epoch = await self._checkpoints.lock_epoch(claim.name)
        if not claim.released.is_set() and epoch != claim.epoch:
            claim.lose()  # it had run out: whoever works on it must begin anew from the stored checkpoint
        claim.hold(epoch, asked + self._seconds)
        return True
