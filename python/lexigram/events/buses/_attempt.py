"""One call of one handler for one event."""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any

from lexigram.contracts.core.result import Err
from lexigram.events.buses._backlog import Delivery
from lexigram.events.buses._routes import Subscription
from lexigram.events.exceptions import EventHandlerError
from lexigram.events.messages.context import enter_message
from lexigram.events.messages.texts import words_of


def failure_of(result: Err[Any, Any]) -> BaseException:
    """Return what an `Err` holds as an exception."""
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
        """Take the handler's result; return whether it is a success. `Err` is a failure."""
        if isinstance(value, Err):
            failure = value.unwrap_err()
            self.error = (
                failure if isinstance(failure, BaseException) else RuntimeError(f"handler returned {failure!r}")
            )
            return False
        self.error = None
        self.delivery.results.append(value)
        return True
