"""Builds a read model anew from the log. A rebuild never skips an event. Source: design, section projections."""

from __future__ import annotations

from collections.abc import Callable

from lexigram.events.exceptions import ProjectionBuildError, ProjectionRebuildError
from lexigram.events.projections.base import ProjectionStatus
from lexigram.events.projections.log import LogReader
from lexigram.events.projections.runner import ProjectionRunner

Progress = Callable[[int, int], None]
"""Called with (positions done, positions in total)."""


async def rebuild(
    runner: ProjectionRunner,
    reader: LogReader,
    *,
    from_position: int | None,
    batch_size: int,
    on_progress: Progress | None = None,
) -> int:
    """Replay the log up to its present head into one projection, which takes no live events meanwhile.

    Readers see the model grow; position and rows move together, so a rebuild that was killed goes on where it stopped.

    Args:
        from_position: Last position considered processed; the read model is emptied first. None goes on from the
            present position without emptying.
        batch_size: Events per transaction, from 1.

    Returns:
        Number of events that the projection handled.

    Raises:
        ProjectionRebuildError: LEX_ERR_EVT_016; the projection is faulted at the position before the failing event,
            and `resume_rebuild` goes on from there.
    """
    projection = runner.projection
    paused = projection.status is ProjectionStatus.PAUSED
    projection.set_rebuilding()
    runner.notify()
    try:
        async with runner.exclusively():
            projection.set_rebuilding()
            if from_position is not None:
                await runner.applier.reset(from_position)
            count = await _replay(runner, reader, batch_size, on_progress)
            await runner.applier.flush()
    except ProjectionBuildError as error:
        raise ProjectionRebuildError(str(error), cause=error, details=dict(error.details or {})) from error
    except BaseException as error:
        if projection.status is ProjectionStatus.REBUILDING:
            projection.set_error(f"The rebuild was interrupted: {type(error).__name__}: {error}")
        raise
    if paused:
        projection.pause()
    else:
        projection.resume()
    runner.notify()
    return count


async def _replay(runner: ProjectionRunner, reader: LogReader, batch_size: int, on_progress: Progress | None) -> int:
    projection = runner.projection
    start = projection.position
    head = await reader.refresh()
    count = 0
    while projection.position < head:
        batch = await reader.read(projection.position, batch_size)
        batch = [item for item in batch if item[1] <= head]
        if not batch:  # what lies between here and the head has been removed by compaction
            projection.advance(head)
            break
        count += await runner.apply(batch, strict=True)
        if on_progress is not None:
            on_progress(projection.position - start, head - start)
    return count
