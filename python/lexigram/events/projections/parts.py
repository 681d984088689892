"""The runners of one projection: one, or one for each partition that workers share. Source: design, projections."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import ProjectionCheckpoint, ProjectionProtocol, ProjectionStatus
from lexigram.events.projections.log import LogReader, PartitionReader
from lexigram.events.projections.ownership import fault_of
from lexigram.events.projections.runner import ProjectionRunner
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.lease import LeaseGroup
from lexigram.events.types import ProjectionState

_WORST_FIRST = (
    ProjectionState.FAULTED,
    ProjectionState.REBUILDING,
    ProjectionState.CATCHING_UP,
    ProjectionState.RUNNING,
    ProjectionState.LIVE,
)


class ProjectionParts:
    """Everything that runs one projection in this process.

    Args:
        make_applier: Builds the applier of one part from its projection object and checkpoint name.
        make_runner: Builds its runner from applier, reader and lease.
        partitions: Parts that workers can share, from 1. Rows of different streams must be different rows.
        group: Shares the parts among processes; None = this process runs all of them.
    """

    def __init__(
        self,
        projection: ProjectionProtocol,
        reader: LogReader | None,
        *,
        make_applier: Callable[[ProjectionProtocol, str], BatchApplier],
        make_runner: Callable[..., ProjectionRunner],
        partitions: int = 1,
        group: LeaseGroup | None = None,
    ) -> None:
        if partitions > 1 and (reader is None or not isinstance(reader.store, AbstractEventStore)):
            raise EventValidationError("partitions need a store of this library as event_store", field="partitions")
        self.projection = projection
        self.group = group
        self.runners: list[ProjectionRunner] = []
        for index in range(partitions):
            part = projection if index == 0 else _twin(projection)
            name = projection.name if partitions == 1 else f"{projection.name}/{index + 1}of{partitions}"
            own = reader if partitions == 1 or reader is None else PartitionReader(reader, index, partitions)
            lease = None if group is None else (group, group.add(name))
            self.runners.append(make_runner(make_applier(part, name), own, lease))

    @property
    def name(self) -> str:
        """Name of the projection."""
        return self.projection.name

    async def start(self) -> None:
        """Create the tables, load the positions, begin to follow the log."""
        for runner in self.runners:
            await runner.prepare()
        if self.group is not None:
            await self.group.start()
        for runner in self.runners:
            runner.start()

    def start_soon(self) -> None:
        """Begin to follow the log without waiting for anything."""
        if self.group is not None:
            self._joining = asyncio.ensure_future(self.group.start())
        for runner in self.runners:
            runner.start()

    async def stop(self) -> None:
        """Stop following, then give the leases back; if it is cancelled meanwhile, without waiting for it."""
        try:
            await asyncio.gather(*(runner.stop() for runner in self.runners))
            if self.group is not None:
                await self.group.stop()
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Stop following without waiting for it."""
        for runner in self.runners:
            runner.abandon()
        if self.group is not None:
            self._leaving = asyncio.ensure_future(self.group.stop())

    def pause(self) -> None:
        """Take no more events; a shared one in no process."""
        if self.group is not None:
            self.group.pause.set(True)
        for runner in self.runners:
            if self.group is None:
                runner.projection.pause()
            runner.notify()

    def resume(self) -> None:
        """Take events again."""
        if self.group is not None:
            self.group.pause.set(False)
        for runner in self.runners:
            runner.resume()

    async def wait_for(self, position: int) -> None:
        """Return once every part has processed everything up to `position`, in whatever process it runs."""
        await asyncio.gather(*(runner.wait_for(position) for runner in self.runners))

    def status(self) -> dict[str, Any]:
        """Return everything an operator wants to see, as plain data; `partitions` has each part where there are several."""
        found = [_status(runner) for runner in self.runners]
        if len(found) == 1:
            return {**found[0], "owner": self.runners[0].is_owner}
        states = {runner.state for runner in self.runners}
        owned = [
            status
            for runner, status in zip(self.runners, found, strict=True)
            if runner.is_owner or runner.state is ProjectionState.FAULTED
        ] or found
        return {
            **found[0],
            "state": next((state for state in _WORST_FIRST if state in states), ProjectionState.STOPPED).value,
            "position": min(status["position"] for status in owned),
            "lag": max(status["lag"] for status in owned),
            "rate": round(sum(status["rate"] for status in owned), 1),
            "error": next((status["error"] for status in found if status["error"]), None),
            "last_error": next((status["last_error"] for status in found if status["last_error"]), None),
            "events_processed": sum(status["events_processed"] for status in found),
            "owner": any(runner.is_owner for runner in self.runners),
            "partitions": [
                {name: status[name] for name in ("state", "position", "lag", "error")} | {"owner": runner.is_owner}
                for runner, status in zip(self.runners, found, strict=True)
            ],
        }


def _status(runner: ProjectionRunner) -> dict[str, Any]:
    projection, fault = runner.projection, runner.fault
    if fault is not None:
        status = ProjectionStatus.ERROR
    elif runner.is_paused and projection.status is not ProjectionStatus.REBUILDING:
        status = ProjectionStatus.PAUSED
    else:  # an error of its own that others have overcome
        status = ProjectionStatus.RUNNING if fault_of(projection) is not None else projection.status
    return {
        "name": projection.name,
        "status": status.value,
        "state": runner.state.value,
        "position": projection.position,
        "lag": runner.lag,
        "rate": round(runner.rate, 1),
        "error": fault,
        "last_error": runner.last_error or fault,
        "events_processed": runner.applier.applied,
        "handles": sorted(getattr(event, "__name__", str(event)) for event in projection.handles),
        "last_processed_at": projection.checkpoint.last_processed_at,
    }


def _twin(projection: ProjectionProtocol) -> ProjectionProtocol:
    """Return a shallow copy with a position and a status of its own."""
    twin = copy.copy(projection)
    twin.restore_checkpoint(ProjectionCheckpoint(projection.name))
    return twin
