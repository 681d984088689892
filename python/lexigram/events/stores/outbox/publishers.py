"""Where a relay delivers to. A message broker implements `send`, and `publish` where it can confirm many at once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lexigram.contracts.core.result import Err
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.events.messages.unknown import UnknownEvent
from lexigram.events.stores._settled import nobody_cancelled
from lexigram.events.stores.outbox.entry import OutboxEntry, OutboxMessage


@runtime_checkable
class OutboxPublisherProtocol(Protocol):
    """Delivers entries; what it does not report as failed has been confirmed."""

    async def publish(self, entries: Sequence[OutboxEntry]) -> Mapping[str, BaseException]:
        """Deliver entries in order per key and return what failed, by entry id.

        After a failure it must not deliver later entries of the same key. Raising means that the broker cannot be
        reached and that nothing is known: the relay waits, then delivers the same entries again.
        """
        ...


class AbstractOutboxPublisher(ABC):
    """Delivers the entries of one key one after the other, those of different keys at the same time.

    Args:
        concurrency: Keys delivered at the same time, at least 1.
        send_timeout_seconds: How long one `send` may take, above 0; then it has failed. None = for ever, which holds up
            every key if the broker never answers.
    """

    def __init__(self, concurrency: int = 16, *, send_timeout_seconds: float | None = 30.0) -> None:
        if concurrency < 1:
            raise EventValidationError("concurrency must be at least 1", field="concurrency")
        if send_timeout_seconds is not None and not send_timeout_seconds > 0:
            raise EventValidationError("send_timeout_seconds must be above 0 or None", field="send_timeout_seconds")
        self._concurrency = concurrency
        self._send_timeout = send_timeout_seconds

    @abstractmethod
    async def send(self, entry: OutboxEntry) -> None:
        """Deliver one entry and return once the broker has confirmed it; raise if it has not.

        `ConnectionError` and `TimeoutError` say that the broker cannot be reached, anything else that it refuses
        this entry.
        """

    async def publish(self, entries: Sequence[OutboxEntry]) -> Mapping[str, BaseException]:
        """Deliver entries; see `OutboxPublisherProtocol`."""
        keys: dict[str | None, list[OutboxEntry]] = {}
        for entry in entries:
            keys.setdefault(entry.key, []).append(entry)
        failures: dict[str, BaseException] = {}
        turns = asyncio.Semaphore(self._concurrency)

        async def deliver(queue: list[OutboxEntry]) -> None:
            async with turns:
                for entry in queue:
                    try:
                        async with asyncio.timeout(self._send_timeout):
                            await self.send(entry)
                    except (Exception, asyncio.CancelledError) as error:
                        if isinstance(error, asyncio.CancelledError) and not nobody_cancelled():
                            raise
                        failures[entry.entry_id] = error
                        return

        await asyncio.gather(*map(deliver, keys.values()))
        return failures

    async def connect(self) -> None:  # noqa: B027
        """Connect to the broker."""

    async def close(self) -> None:  # noqa: B027
        """Release the connection."""


class BusOutboxPublisher:
    """Delivers to the buses of this process: events to the event bus, commands to the command bus.

    An event counts as delivered once its handlers have run: what a handler cannot handle is kept by the bus's own
    dead letters.

    Args:
        event_bus: Gets events.
        command_bus: Gets commands; without one they are refused.
    """

    def __init__(self, event_bus: Any, command_bus: Any = None) -> None:
        self._events = event_bus
        self._commands = command_bus

    async def publish(self, entries: Sequence[OutboxEntry]) -> Mapping[str, BaseException]:
        """Deliver entries; see `OutboxPublisherProtocol`."""
        failures: dict[str, BaseException] = {}
        stopped: set[str | None] = set()
        events: list[OutboxEntry] = []
        for entry in entries:
            if isinstance(entry.event, UnknownEvent) and entry.key not in stopped:
                failures[entry.entry_id] = EventError(f"no class of this process is stored as {entry.type_name}")
                stopped.add(entry.key)
            if not isinstance(entry.event, OutboxMessage):
                events.append(entry)
                continue
            await self._publish(events, failures, stopped)
            events = []
            if entry.key not in stopped:
                await self._dispatch(entry, failures, stopped)
        await self._publish(events, failures, stopped)
        flush = getattr(self._events, "flush", None)
        if flush is not None:
            await flush()
        return failures

    async def _publish(
        self, entries: Sequence[OutboxEntry], failures: dict[str, BaseException], stopped: set[str | None]
    ) -> None:
        wanted = [entry for entry in entries if entry.key not in stopped] if stopped else entries
        if not wanted:
            return
        if _failure(await self._events.publish([entry.event for entry in wanted])) is None:
            return
        # One of them is refused: find out which.
        for entry in wanted:
            error = None if entry.key in stopped else _failure(await self._events.publish(entry.event))
            if error is not None:
                failures[entry.entry_id] = error
                stopped.add(entry.key)

    async def _dispatch(self, entry: OutboxEntry, failures: dict[str, BaseException], stopped: set[str | None]) -> None:
        error: BaseException | None
        try:
            if self._commands is None:
                raise EventError(f"no command bus to deliver {type(entry.message).__name__} to")
            error = _failure(await self._commands.dispatch(entry.message))
        except Exception as raised:
            error = raised
        if error is not None:
            failures[entry.entry_id] = error
            stopped.add(entry.key)


def _failure(outcome: Any) -> BaseException | None:
    """Return what an `Err` holds, or None for anything else."""
    if isinstance(outcome, Err):
        failure: BaseException = outcome.unwrap_err()
        return failure
    return None
