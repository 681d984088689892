"""Builds a read model anew from the log. A rebuild never skips an event. Source: design, section projections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from lexigram.events.exceptions import ProjectionBuildError, ProjectionRebuildError
from lexigram.events.projections.base import ProjectionStatus
from lexigram.events.projections.runner import ProjectionRunner

Progress = Callable[[int, int], None]
"""Called with (positions done, positions in total)."""


async def rebuild(
    runners: Sequence[ProjectionRunner],
    *,
    from_position: int | None,
    batch_size: int,
    on_progress: Progress | None = None,
) -> int:
    """Replay the log up to its present head into one projection, which takes no live events meanwhile.

    Readers see the model grow; position and rows move together, so a rebuild that was killed goes on where it stopped.

    Args:
        runners: Those of all partitions; they are replayed concurrently.
        from_position: Last position considered processed; the read model is emptied first. None goes on from the
            present position without emptying.
        batch_size: Events per transaction, from 1.

    Returns:
        Number of events that the projection handled.

    Raises:
        ProjectionRebuildError: LEX_ERR_EVT_016; the projection is faulted at the position before the failing event,
            and `resume_rebuild` goes on from there. Or another worker owns a part of it; nothing was changed.
    """
    _check_owner(runners, but_faulted=True)
    projections = [runner.projection for runner in runners]
    paused = projections[0].status is ProjectionStatus.PAUSED
    for runner in runners:
        runner.projection.set_rebuilding()
        runner.notify()
    done: dict[int, tuple[int, int]] = {}

    def progressed(part: int, position: int, total: int) -> None:
        done[part] = (position, total)
        if on_progress is not None:
            on_progress(sum(p for p, _ in done.values()), sum(t for _, t in done.values()) * len(runners) // len(done))

    try:
        await _take_back(runners)
        async with AsyncExitStack() as stack:
            for runner in runners:
                await stack.enter_async_context(runner.exclusively())
                runner.projection.set_rebuilding()
            if from_position is not None:
                await _empty(runners, from_position)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_replay(runner, batch_size, partial(progressed, part)))
                    for part, runner in enumerate(runners)
                ]
            for runner in runners:
                await runner.flush()
    except BaseException as error:
        cause = _first(error)
        for runner in runners:
            if runner.projection.status is ProjectionStatus.REBUILDING:
                runner.projection.set_error(f"The rebuild was interrupted: {type(cause).__name__}: {cause}")
                runner.notify()
        if isinstance(cause, ProjectionBuildError):
            raise ProjectionRebuildError(str(cause), cause=cause, details=dict(cause.details or {})) from cause
        if cause is not error:
            raise cause from None
        raise
    for runner in runners:
        if paused:
            runner.projection.pause()
        else:
            runner.projection.resume()
        runner.notify()
    return sum(task.result() for task in tasks)


async def reset(runners: Sequence[ProjectionRunner], position: int) -> None:
    """Empty the read model and set all positions; a started manager then catches up again.

    Raises:
        ProjectionRebuildError: LEX_ERR_EVT_016; another worker owns a part of it, nothing was changed.
    """
    _check_owner(runners, but_faulted=True)
    await _take_back(runners)
    async with AsyncExitStack() as stack:
        for runner in runners:
            await stack.enter_async_context(runner.exclusively())
        await _empty(runners, position)
    for runner in runners:
        runner.notify()


async def _empty(runners: Sequence[ProjectionRunner], position: int) -> None:
    first, *others = runners
    try:
        async with first.applier.transaction():  # positions and rows, of all partitions, or nothing
            await first.before_reset()
            for runner in others:
                await runner.applier.restart(position)
            await first.applier.reset(position)
    except BaseException:
        for runner in runners:
            runner.applier.forget()
        raise


async def _take_back(runners: Sequence[ProjectionRunner]) -> None:
    """Own the faulted parts, too, on which nobody works."""
    for runner in runners:
        await runner.take_back()
    _check_owner(runners)


def _check_owner(runners: Sequence[ProjectionRunner], *, but_faulted: bool = False) -> None:
    if not all(runner.is_owner or (but_faulted and runner.fault is not None) for runner in runners):
        raise ProjectionRebuildError(
            f"Another worker runs {runners[0].projection.name!r}, or a partition of it; stop the other workers first"
        )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _replay(runner: ProjectionRunner, batch_size: int, on_progress: Callable[[int, int], None]) -> int:
    projection, reader = runner.projection, runner.reader
    assert reader is not None
    start = projection.position
    head = await reader.refresh()
    count = 0
    while projection.position < head:
        batch = await reader.read(projection.position, batch_size)
        batch = [item for item in batch if item[1] <= head]
        if not batch:  # what lies between here and the head has been removed by compaction, or is of other partitions
            projection.advance(head)
            break
        count += await runner.apply(batch, strict=True)
        on_progress(projection.position - start, head - start)
    return count
