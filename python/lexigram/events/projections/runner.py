"""Runs one projection: follows the log, pauses, faults, tells where it is. Source: design, section projections."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from lexigram.events.exceptions import AdapterConnectionError, ConcurrencyError, ProjectionBuildError
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import Positioned, ProjectionProtocol, ProjectionStatus
from lexigram.events.projections.log import LogReader, PartitionReader
from lexigram.events.projections.ownership import Ownership, fault_of
from lexigram.events.stores._settled import stopped
from lexigram.events.stores.lease import Claim, LeaseGroup
from lexigram.events.types import ProjectionState

_RATE_WINDOW_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 5.0
_LEASE_CHECK_SECONDS = 1.0
_BUSY_EVENTS = 8
_LINGER_SECONDS = 0.03
"""A projection that is woken again and again, or by many events, waits so long for more: larger batches cost much less.
One that has little to do, or that somebody waits for, is woken by every append."""


class ProjectionRunner:
    """One registered projection with its position, its task while the manager follows the log, and its waiters.

    Args:
        reader: The shared reader; None when events are only handed in by `ProjectionManager.process`.
        turn: Held while a batch is applied; one lock for all runners makes projections take turns.
        batch_size: Events per batch, from 1.
        before: Returns the runners that must have processed a position before this one does.
        lease: The claim that must be held while it runs, and its group; None = this process is alone.
    """

    def __init__(
        self,
        applier: BatchApplier,
        reader: LogReader | PartitionReader | None,
        *,
        turn: asyncio.Lock | None,
        batch_size: int,
        before: Callable[[], list[ProjectionRunner]],
        lease: tuple[LeaseGroup, Claim] | None = None,
    ) -> None:
        self.projection: ProjectionProtocol = applier.projection
        self.applier = applier
        self.last_error: str | None = None
        self.reader = reader
        self._ownership = None if lease is None else Ownership(*lease, applier)
        self._look_again = None if lease is None else _LEASE_CHECK_SECONDS
        self._turn = turn
        self._batch_size = batch_size
        self._before = before
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._applied_at: tuple[float, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._phase = ProjectionState.RUNNING
        self._found_nothing = False
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._history: deque[tuple[float, int]] = deque()

    @property
    def state(self) -> ProjectionState:
        """What the projection is doing now."""
        status = self.projection.status
        if self.fault is not None:
            return ProjectionState.FAULTED
        if status is ProjectionStatus.REBUILDING:
            return ProjectionState.REBUILDING
        if self.is_paused or not self.following or not self.is_owner:
            return ProjectionState.STOPPED
        return self._phase

    @property
    def following(self) -> bool:
        """Whether a task follows the log."""
        return self._task is not None and not self._task.done()

    @property
    def is_owner(self) -> bool:
        """Whether this process runs it now; False while another worker has the lease."""
        return self._ownership is None or self._ownership.is_held

    @property
    def is_paused(self) -> bool:
        """Whether it was paused: here, or a shared one anywhere."""
        return self.projection.status is ProjectionStatus.PAUSED or (
            self._ownership is not None and self._ownership.is_paused
        )

    @property
    def fault(self) -> str | None:
        """The error that stopped it, in whatever process that happened; None if nothing is wrong."""
        if self._ownership is None or self._ownership.is_held:
            return fault_of(self.projection)
        own = None if self.following else fault_of(self.projection)
        return own or self._ownership.fault

    @property
    def lag(self) -> int:
        """Positions between this projection and the last known head of the log."""
        return max(0, (self.reader.head if self.reader else 0) - self.projection.position)

    @property
    def rate(self) -> float:
        """Positions per second over the last ten seconds."""
        now = time.monotonic()
        while self._history and now - self._history[0][0] > _RATE_WINDOW_SECONDS:
            self._history.popleft()
        if not self._history:
            return 0.0
        return sum(count for _, count in self._history) / max(now - self._history[0][0], 0.001)

    async def prepare(self) -> None:
        """Create the tables and load the position; a failure is recorded on the projection."""
        if self.following:
            return
        self.applier.forget()
        try:
            async with self.exclusively():
                pass
        except Exception as error:
            self._fault(error)

    def start(self) -> None:
        """Begin to follow the log in a task of the running loop; a second call does nothing."""
        if not self.following:
            self._phase = ProjectionState.RUNNING
            self._found_nothing = True  # look at the end of the log at once
            self._task = asyncio.get_running_loop().create_task(
                self._follow(), name=f"projection {self.projection.name}"
            )

    async def stop(self) -> None:
        """Stop following; the batch being applied is rolled back or finished, and the position stored."""
        task, self._task = self._task, None
        if task is not None:
            await stopped(task)
            with suppress(Exception):  # the store may be gone; the position is only behind what was done
                await self.applier.flush()
        self.applier.forget()

    def abandon(self) -> None:
        """Stop following without waiting for it."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._fail_waiters(f"Projection {self.projection.name!r} was unregistered")

    def resume(self) -> None:
        """Go on after a pause or a fault; a shared projection that nobody works on because of a fault is taken."""
        self.projection.resume()
        if self._ownership is not None:
            self._ownership.retry()
        self.notify()

    async def take_back(self) -> None:
        """Take a shared projection that nobody works on because of a fault; return once that was tried."""
        async with self._lock:  # not while it is being given back
            if self._ownership is not None:
                await self._ownership.take_back()

    def notify(self) -> None:
        """Look at the projection's status again: it was paused, resumed or reset."""
        self._changed.set()
        self._hurry.set()

    async def apply(self, batch: list[Positioned], *, strict: bool = False) -> int:
        """Apply events that lie after the position; record errors on the projection and raise them."""
        started = self.projection.position
        fresh = batch if batch and batch[0][1] > started else [item for item in batch if item[1] > started]
        if not fresh:
            return 0
        try:
            async with self._taking_turns():
                return await self.applier.apply(fresh, strict=strict)
        except asyncio.CancelledError:
            self.applier.forget()
            raise
        except AdapterConnectionError:
            self.applier.forget()
            raise
        except ConcurrencyError as error:
            self.applier.forget()
            if self._ownership is None:
                self._fault(error)
            raise
        except Exception as error:
            self._fault(error)
            raise
        finally:
            self._moved(self.projection.position - started)

    async def flush(self) -> None:
        """Store the position, where it lags behind what was processed."""
        await self.applier.flush()

    async def before_reset(self) -> None:
        """Called in the transaction of a reset before it changes anything."""

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[None]:
        """Keep the following task away: for a rebuild, a reset, or events handed in by hand."""
        async with self._lock:
            if self._ownership is not None:
                self._ownership.begin()
            await self._prepare()
            yield

    async def wait_for(self, position: int) -> None:
        """Return once everything up to `position` is processed.

        Raises:
            ProjectionBuildError: The projection is or becomes faulted, or is unregistered.
        """
        if self._ownership is not None and (self.following or fault_of(self.projection) is None):
            self._hurry.set()
            await self._ownership.wait_for(position)
            return
        if self.projection.position >= position:
            return
        if self.fault is not None:
            raise ProjectionBuildError(self.fault)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (position, future)
        self._waiters.append(entry)
        self._hurry.set()
        try:
            await future
        finally:
            with suppress(ValueError):
                self._waiters.remove(entry)

    async def _follow(self) -> None:
        backoff = 0.05
        while True:
            try:
                if self._ownership is not None:
                    await self._ownership.hold(self._lock)
                await self._step()
                backoff = 0.05
            except AdapterConnectionError as error:
                self.last_error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            except ConcurrencyError as error:
                if self._ownership is not None:  # another worker has taken over meanwhile
                    self._ownership.lose()
                elif self.projection.status is not ProjectionStatus.ERROR:
                    self._fault(error)
            except Exception as error:  # apply() has recorded its own; reading or preparing failed
                if self.projection.status is not ProjectionStatus.ERROR:
                    self._fault(error)
                elif self._ownership is not None:  # that could not be stored for the others
                    await asyncio.sleep(backoff)
            except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a handler's own; nobody looks at the end of this task
                self.applier.forget()
                self._fault(error)

    async def _step(self) -> None:
        """Apply the next batch, or wait until there is one."""
        assert self.reader is not None
        self._changed.clear()
        if self.projection.status is not ProjectionStatus.RUNNING or self.is_paused:
            if self._look_again is None:
                await self._changed.wait()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_again):
                    await self._changed.wait()
            return
        busy = False
        async with self._lock:
            if self.projection.status is not ProjectionStatus.RUNNING or self.is_paused:
                return
            await self._prepare()
            batch = await self.reader.read(self.projection.position, self._batch_size)
            if not batch and self._found_nothing:
                await self._skip_gap(self.reader)
            self._found_nothing = not batch
            if batch and not await self._predecessors(batch[-1][1]):
                return
            if batch:
                behind = len(batch) == self._batch_size
                self._phase = ProjectionState.CATCHING_UP if behind else ProjectionState.LIVE
                await self.apply(batch)
                busy = not behind and self._is_busy(len(batch))
        if busy:
            await self._linger()
        if batch:
            return
        self._phase = ProjectionState.LIVE
        if self._ownership is not None:
            await self.applier.flush()  # other processes wait for the stored position
        await self._wait()

    async def _skip_gap(self, reader: LogReader | PartitionReader) -> None:
        """Go on behind the last events of the log where compaction has removed them."""
        position = self.projection.position
        end = await reader.end_of_gap(position)
        if end > position:
            await self.applier.skip_to(end)
            self._moved(end - position)

    async def _predecessors(self, position: int) -> bool:
        """Wait for the projections this one depends on; False if this one was paused meanwhile."""
        for runner in self._before():
            while runner.projection.position < position:
                if self._changed.is_set():
                    return False
                with suppress(TimeoutError, ProjectionBuildError):
                    async with asyncio.timeout(0.1):
                        await runner.wait_for(position)
                        break  # its position here is behind where another process runs it
                await asyncio.sleep(0.05)
        return True

    def _is_busy(self, events: int) -> bool:
        """Return whether events come in so quickly that larger batches are worth a short wait."""
        now = time.monotonic()
        previous, self._applied_at = self._applied_at, (*self._applied_at[-2:], now)
        return events >= _BUSY_EVENTS or (len(previous) == 3 and now - previous[0] < _LINGER_SECONDS)

    async def _linger(self) -> None:
        """Let more events come, unless somebody waits for what is there."""
        self._hurry.clear()
        if not self._waiters:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._hurry.wait()

    async def _wait(self) -> None:
        """Wait for the log to grow or for a change of status."""
        assert self.reader is not None
        growth = asyncio.ensure_future(self.reader.wait(self.projection.position))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait(
                (growth, change),
                timeout=self._look_again,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if growth.done():
                growth.result()
        finally:
            growth.cancel()
            change.cancel()

    @asynccontextmanager
    async def _taking_turns(self) -> AsyncIterator[None]:
        if self._turn is None:
            yield
        else:
            async with self._turn:
                yield

    def _fault(self, error: BaseException) -> None:
        self.last_error = getattr(error, "message", None) or str(error)
        self.projection.set_error(self.last_error)
        self._fail_waiters(self.last_error)
        self.notify()

    def _fail_waiters(self, reason: str) -> None:
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(ProjectionBuildError(reason))

    async def _prepare(self) -> None:
        await self.applier.prepare()
        self._release_waiters()

    def _moved(self, count: int) -> None:
        if count > 0:
            self._history.append((time.monotonic(), count))
            self._release_waiters()

    def _release_waiters(self) -> None:
        position = self.projection.position
        for wanted, future in self._waiters:
            if wanted <= position and not future.done():
                future.set_result(None)
