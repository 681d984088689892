"""Moves entries from the outbox to a publisher. Source: spec/reference-surface.md, `OutboxPublisher`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lexigram.events.exceptions import EventLoadError, EventValidationError
from lexigram.events.stores._settled import ended, nobody_cancelled
from lexigram.events.stores.outbox.publishers import BusOutboxPublisher, OutboxPublisherProtocol
from lexigram.events.stores.outbox.setting_aside import UNREACHABLE, Aside
from lexigram.events.stores.outbox.store import OutboxBatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.outbox.entry import OutboxEntry
    from lexigram.events.stores.outbox.store import AbstractOutboxStore

logger = logging.getLogger(__name__)

_QUICK_RETRIES = (0.01, 0.05, 0.25)
_MAX_PAUSE_SECONDS = 30.0
_PURGE_SECONDS = 60.0


class OutboxRelay:
    """Delivers what the outbox holds, at least once and in order per key, beside any number of other relays.

    An entry is settled only after the publisher has confirmed it. A failing entry is tried again at once a few times,
    then set aside with the later entries of its key; set-aside entries are tried with growing pauses up to
    `max_attempts`, and then wait for an operator (`DeadLetterOperations`). If the publisher cannot be reached at all,
    nothing is set aside: the relay waits.

    Args:
        outbox: Where entries are.
        publisher: Where they go.
        batch_size: Entries per claim, at least 1.
        poll_interval: Seconds between looks into an idle outbox, above 0; appends wake the relay sooner.
        max_attempts: Attempts before a set-aside entry is left to an operator, at least 1.
        lease_seconds: How long claimed lanes are out of reach of other relays if this one stalls, above 0.
        backoff_seconds: First pause after a failure; doubles up to five minutes.
    """

    def __init__(
        self,
        outbox: AbstractOutboxStore,
        publisher: OutboxPublisherProtocol,
        *,
        batch_size: int = 100,
        poll_interval: float = 1.0,
        max_attempts: int = 10,
        lease_seconds: float = 30.0,
        backoff_seconds: float = 1.0,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_attempts", max_attempts)):
            if type(value) is not int or value < 1:
                raise EventValidationError(f"{name} must be an int of at least 1", field=name)
        for name, seconds in (("poll_interval", poll_interval), ("lease_seconds", lease_seconds)):
            if not seconds > 0:
                raise EventValidationError(f"{name} must be a number of seconds above 0", field=name)
        self.outbox = outbox
        self.publisher = publisher
        self.owner = f"{os.getpid()}-{uuid4().hex[:12]}"
        self._batch_size = batch_size
        self._poll_interval = poll_interval
        self._lease_seconds = lease_seconds
        self._aside = Aside(outbox, publisher, self.owner, max_attempts, backoff_seconds, lease_seconds)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._purged = 0.0
        self.delivered = 0
        """Entries delivered by this relay."""
        self.failures = 0
        """Failed attempts of this relay."""
        self.last_error: str | None = None

    async def start(self) -> None:
        """Connect and deliver in a task; a second call does nothing."""
        await self.outbox.connect()
        connect = getattr(self.publisher, "connect", None)
        if connect is not None:
            await connect()
        if self._task is None or self._task.done():
            self._stopping.clear()
            self._task = asyncio.create_task(self._run(), name=f"events: outbox relay {self.outbox.name}")

    async def stop(self, timeout_seconds: float = 10.0) -> None:
        """Finish the batch in hand and stop; after the timeout it is given up and delivered again by the next relay."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self.outbox.store._wakeup.notify()
        try:
            await asyncio.wait((task,), timeout=timeout_seconds)
        finally:
            task.cancel()
            await ended(task)
            close = getattr(self.publisher, "close", None)
            if close is not None:
                await close()

    async def publish_pending(self) -> int:
        """Deliver what waits now and return how many entries were delivered.

        Raises:
            ConnectionError, TimeoutError: The publisher cannot be reached; the rest waits.
        """
        return (await self.process_pending())[0]

    async def process_pending(self) -> tuple[int, int]:
        """Deliver what waits now; return how many entries were delivered and how many were set aside or failed."""
        delivered, failed = self.delivered, self.failures
        while await self.run_once():
            pass
        return self.delivered - delivered, self.failures - failed

    async def run_once(self) -> int:
        """Claim one batch, deliver and settle it; return how many entries it had."""
        await self.outbox._ready()
        self.delivered += await self._aside.retry_due()
        batch = await self.outbox.claim(self.owner, self._batch_size, self._lease_seconds)
        if not batch.claims:
            return 0
        done: list[OutboxEntry] = []
        try:
            await self._deliver(batch, done)
        finally:
            await self.outbox.settle(batch, done)
        return len(batch.entries)

    async def _deliver(self, batch: OutboxBatch, done: list[OutboxEntry]) -> None:
        """Deliver a batch or set aside what fails; what is settled afterwards goes into `done`."""
        ready, waiting = await self._aside.split(batch.entries)
        for entry in waiting:
            await self.outbox.set_aside(entry, None)
        done += waiting
        ready = await self._without_damaged(ready, done)
        reached = False
        for pause in (*_QUICK_RETRIES, None):
            failures = await self._publish(ready, reached=reached)
            sent, ready = _confirmed(ready, failures)
            reached = reached or bool(sent)
            self.delivered += len(sent)
            done += sent
            if not ready or pause is None:
                break
            await asyncio.sleep(pause)
        for entry in ready:
            error = failures.get(entry.entry_id)
            counts = error is not None and not isinstance(error, UNREACHABLE)
            await self.outbox.set_aside(entry, error, len(_QUICK_RETRIES) + 1 if counts else 0)
        done += ready

    async def _without_damaged(self, entries: list[OutboxEntry], done: list[OutboxEntry]) -> list[OutboxEntry]:
        """Set aside what cannot be decoded, with the later entries of its key, and return the others."""
        damaged = {entry.entry_id: EventLoadError(entry.error) for entry in entries if entry.error is not None}
        sound, aside = _confirmed(entries, damaged)
        for entry in aside:
            await self.outbox.set_aside(entry, damaged.get(entry.entry_id), self._aside.max_attempts)
        done += aside
        return sound

    async def _publish(self, entries: Sequence[OutboxEntry], *, reached: bool) -> Mapping[str, BaseException]:
        """Return what failed; raise if nothing of the batch could be delivered because the broker is away.

        Args:
            reached: Whether something of the batch has been delivered before.
        """
        if not entries:
            return {}
        failures = await self.publisher.publish(entries)
        if failures:
            self.failures += len(failures)
            self.last_error = _shown(next(iter(failures.values())))
            every_key_failed = not reached and len(failures) == len({entry.key for entry in entries})
            if every_key_failed and all(isinstance(error, UNREACHABLE) for error in failures.values()):
                raise next(iter(failures.values()))  # the broker is away: nothing is wrong with the entries
        return failures

    async def _run(self) -> None:
        wakeup = self.outbox.store._wakeup
        pause = 0.05
        with wakeup.reader():
            while not self._stopping.is_set():
                seen = wakeup.count
                try:
                    worked = await self.run_once()
                    pause = 0.05
                    if not worked:
                        await self._purge()
                        if not self._stopping.is_set():
                            await wakeup.wait(seen, self._poll_interval)
                except (Exception, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) and not nobody_cancelled():
                        raise
                    self.last_error = _shown(error)
                    logger.warning("outbox %s: %s; again in %.2f s", self.outbox.name, self.last_error, pause)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause)
                    pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def _purge(self) -> None:
        now = time.monotonic()
        if self.outbox.retention_seconds and now - self._purged > _PURGE_SECONDS:
            self._purged = now
            await self.outbox.purge()

    async def health_check(self, timeout: float = 5.0) -> HealthCheckResult:
        """Report within `timeout` seconds how far delivery is behind; unhealthy if the outbox does not answer."""
        from lexigram.contracts.core.health import HealthCheckResult, HealthStatus

        details: dict[str, Any] = {
            "delivered": self.delivered,
            "failures": self.failures,
            "last_error": self.last_error,
        }
        error: str | None = None
        status = HealthStatus.HEALTHY
        try:
            async with asyncio.timeout(timeout):
                stats = await self.outbox.stats()
            details |= {
                "waiting": stats.waiting,
                "oldest_age_seconds": round(stats.oldest_age_seconds, 3),
                "set_aside": stats.set_aside,
            }
            if stats.set_aside or self._task is None or self._task.done():
                status = HealthStatus.DEGRADED
        except Exception as failure:
            status, error = HealthStatus.UNHEALTHY, _shown(failure)
        return HealthCheckResult(
            component="outbox", status=status, message=f"outbox {self.outbox.name}", error=error, details=details
        )


class OutboxPublisher(OutboxRelay):
    """The relay from an event store's outbox to the event bus of this process.

    Args:
        event_store: An `OutboxEventStore`, or any event store: its appends are then captured from the first use on.
        event_bus: Gets the events.
        outbox_table: Name of the outbox.
        batch_size: Entries per claim.
        poll_interval: Seconds between looks into an idle outbox.
    """

    def __init__(
        self,
        event_store: AbstractEventStore,
        event_bus: Any,
        outbox_table: str = "event_outbox",
        batch_size: int = 100,
        poll_interval: float = 1.0,
        **options: Any,
    ) -> None:
        command_bus = options.pop("command_bus", None)
        publisher = BusOutboxPublisher(event_bus, command_bus)
        super().__init__(
            event_store.outbox(outbox_table), publisher, batch_size=batch_size, poll_interval=poll_interval, **options
        )


def _confirmed(
    entries: Sequence[OutboxEntry], failures: Mapping[str, BaseException]
) -> tuple[list[OutboxEntry], list[OutboxEntry]]:
    """Split into what was confirmed, and what failed or comes behind a failure of its key."""
    if not failures:
        return list(entries), []
    sent: list[OutboxEntry] = []
    left: list[OutboxEntry] = []
    stopped: set[str | None] = set()
    for entry in entries:
        if entry.key in stopped or entry.entry_id in failures:
            stopped.add(entry.key)
            left.append(entry)
        else:
            sent.append(entry)
    return sent, left


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
