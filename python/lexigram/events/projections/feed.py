"""Events handed to a projection by hand instead of read from the log, each failure recorded on the projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.projections.base import Positioned, ProjectionStatus
from lexigram.events.projections.runner import ProjectionRunner

if TYPE_CHECKING:
    from lexigram.contracts.core.result import Result


async def hand_in(runner: ProjectionRunner, event: Any, position: int | None) -> bool:
    """Apply one event, or wait until the runner that follows the log has; return whether it is applied now."""
    projection = runner.projection
    if projection.status is not ProjectionStatus.RUNNING or not projection.can_handle(event):
        return False
    try:
        if runner.following and position is not None:
            await runner.wait_for(position)
            return True
        async with runner.exclusively():
            if position is None:
                await runner.applier.redeliver(event)
                return True
            return await runner.apply([(event, position)]) > 0
    except Exception as error:
        runner.last_error = str(error)
        if position is None:
            projection.set_error(str(error))
        return False


async def hand_in_batch(runner: ProjectionRunner, events: list[Positioned]) -> int:
    """Apply events in order and return how many were; nothing to do for a projection that follows the log itself."""
    if not events or runner.following or runner.projection.status is not ProjectionStatus.RUNNING:
        return 0
    before = runner.applier.applied
    try:
        async with runner.exclusively():
            return await runner.apply(list(events))
    except Exception as error:
        runner.last_error = str(error)
        return runner.applier.applied - before


async def redeliver(runner: ProjectionRunner | None, event: Any, handler: str) -> Result[None, ProjectionBuildError]:
    """Apply one parked event again, without moving the position."""
    from lexigram.result import Err, Ok

    if runner is None:
        return Err(ProjectionBuildError(f"No projection is registered for {handler!r}"))
    try:
        async with runner.exclusively():
            await runner.applier.redeliver(event)
    except ProjectionBuildError as error:
        return Err(error)
    return Ok(None)
