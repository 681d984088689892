"""Who runs a shared projection now, and why nobody does: a fault or a pause. Source: design, section projections."""

from __future__ import annotations

import asyncio

from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import ProjectionProtocol, ProjectionStatus
from lexigram.events.stores.lease import Claim, LeaseGroup


def fault_of(projection: ProjectionProtocol) -> str | None:
    """Return the error that has stopped a projection in this process, or None."""
    return (projection.error or "faulted") if projection.status is ProjectionStatus.ERROR else None


class Ownership:
    """The lease on one shared projection, or a partition of it, as its runner in this process uses it.

    Args:
        group: Shares the leases among processes, and reads why nobody wants one.
        claim: This process's side of the lease.
        applier: Gets the epoch of the lease; its position may have been moved by others.
    """

    def __init__(self, group: LeaseGroup, claim: Claim, applier: BatchApplier) -> None:
        self._group, self._claim, self._applier = group, claim, applier

    @property
    def is_held(self) -> bool:
        """Whether this process runs it."""
        return self._claim.is_held

    @property
    def fault(self) -> str | None:
        """Why nobody runs it, as last read; None while somebody does."""
        return None if self._claim.is_held else self._group.faults.get(self._claim.name)

    @property
    def is_paused(self) -> bool:
        """Whether some process has paused it for all of them, as last read."""
        return self._group.pause.is_on

    def retry(self) -> None:
        """Take it soon, in spite of a fault."""
        self._group.retry(self._claim)

    async def take_back(self) -> None:
        """Take it in spite of a fault, unless another process has it; return once that was tried."""
        if not self._claim.is_held:
            self._group.retry(self._claim)
            await self._group.balance()

    def lose(self) -> None:
        """Note that another process has taken over."""
        self._applier.forget()
        self._claim.lose()

    async def hold(self, turn: asyncio.Lock) -> None:
        """Give it back if it faulted here or another worker waits for its share; return when it is held.

        Args:
            turn: Held while it is given back: not in the middle of a rebuild.
        """
        projection = self._applier.projection
        if self._claim.should_release or fault_of(projection) is not None:
            async with turn:
                await self._give_back()
        await self._claim.wait()
        if self.begin() and fault_of(projection) is not None:
            projection.resume()  # another try

    def begin(self) -> bool:
        """Go on with the stored position if another worker may have moved it; return whether that is so."""
        if not self._claim.is_held or self._claim.epoch == self._applier.epoch:
            return False
        self._applier.epoch = self._claim.epoch
        self._applier.forget()
        return True

    async def wait_for(self, position: int) -> None:
        """Wait for the stored position, whichever process moves it.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; it is faulted, and this process does not try again.
        """
        pause = 0.002
        while await self._applier.stored_position() < position:
            if not self._claim.retries:
                await self._group.look(0.0 if self.fault else 0.5)
                fault = fault_of(self._applier.projection) if self.is_held else self.fault
                if fault is not None and not self._claim.retries:
                    raise ProjectionBuildError(fault)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    async def _give_back(self) -> None:
        projection, claim = self._applier.projection, self._claim
        fault = fault_of(projection)
        if not claim.is_held or not (claim.should_release or fault is not None):
            return
        if self._applier.is_prepared:
            await self._applier.flush()
        if fault is None:
            await self._group.release(claim)
            return
        await self._group.fail(claim, fault)
        if fault_of(projection) is None:  # it was resumed meanwhile
            self._group.retry(claim)
