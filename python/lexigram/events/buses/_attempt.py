"""One call of one handler for one event."""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any

from lexigram.contracts.core.result import Err
from lexigram.events.buses._backlog import Delivery
from lexigram.events.buses._routes import Subscription
from lexigram.events.exceptions import EventHandlerError
from lexigram.events.messages.context import enter_message
from lexigram.events.messages.texts import words_of

FAILING = (Err, CoroutineType)
"""What a handler or middleware returns when it has failed, or has forgotten to await what should have been done."""


def failure_of(result: Any) -> BaseException:
    """Return what an `Err` holds, or that an await is missing, as an exception."""
    if isinstance(result, CoroutineType):
        result.close()
        return RuntimeError(f"handler returned the coroutine {result.__qualname__}: an await is missing")
    failure = result.unwrap_err()
    return failure if isinstance(failure, BaseException) else RuntimeError(f"handler returned {failure!r}")


def failed(event_type: str, handler: str, error: BaseException) -> EventHandlerError:
    """Return what the bus tells about a handler that has failed with `error`."""
    failure = EventHandlerError(event_type, handler, f"{type(error).__name__}: {words_of(error)}")
    failure.__cause__ = failure.cause = error
    return failure


class Attempt:
    """A handler call that could not be completed at once: it suspended, failed, or its lane is parked."""

    __slots__ = ("context", "coro", "delivery", "error", "subscription", "suspended", "yielded")

    def __init__(self, delivery: Delivery, subscription: Subscription) -> None:
        self.delivery = delivery
        self.subscription = subscription
        self.context: Context | None = None
        self.coro: Coroutine[Any, Any, Any] | None = None
        self.suspended = False
        self.yielded: Any = None
        self.error: BaseException | None = None

    def start(self) -> bool:
        """Run the handler's first step; return whether that completed it successfully."""
        event = self.delivery.event
        enter_message(event)
        self.suspended, self.error = False, None
        inherited = self.delivery.context
        self.context = copy_context() if inherited is None else inherited.copy()
        try:
            self.coro = coro = self.subscription.call(event)
            self.yielded = self.context.run(coro.send, None)
        except StopIteration as stop:
            return self.end(stop.value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.error = error
            return False
        self.suspended = True
        return False

    def end(self, value: Any) -> bool:
        """Take the handler's result; return whether it is a success."""
        if isinstance(value, FAILING):
            self.error = failure_of(value)
            return False
        self.error = None
        self.delivery.results.append(value)
        return True
