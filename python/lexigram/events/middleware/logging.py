"""Logs what was handled, how long it took and how it ended. Source: spec/reference-surface.md."""

from __future__ import annotations

import logging
import time
from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.context import id_of
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler

_SECRET_PARTS = ("password", "passwd", "secret", "token", "api_key", "apikey", "credential", "authorization", "private")
_OWN_FIELDS = frozenset({"id", "timestamp", "metadata", "event_id", "occurred_at"})


class LoggingMiddleware(AbstractMiddleware[Any, Any]):
    """Writes one line per message: type, id, duration, outcome. Values of fields only on request, secrets never.

    Args:
        logger: Standard logger, or anything with `log(level, text, *arguments)`; "lexigram.events" by default.
        log_level: Level of successes, as number or name.
        error_log_level: Level of failures.
        include_message_data: Add the message's fields; those whose name suggests a secret are masked.
        message_data_max_length: Cut the fields after this many characters.
    """

    def __init__(
        self,
        logger: Any | None = None,
        log_level: int | str = logging.INFO,
        error_log_level: int | str = logging.ERROR,
        include_message_data: bool = False,
        message_data_max_length: int = 200,
    ) -> None:
        self._logger = logger if logger is not None else logging.getLogger("lexigram.events")
        self._level = _level(log_level, "log_level")
        self._error_level = _level(error_log_level, "error_log_level")
        self._include_data = include_message_data
        self._max_length = message_data_max_length
        self._enabled = getattr(self._logger, "isEnabledFor", lambda level: True)

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Hand the message on and log the outcome; errors go on unchanged."""
        started = time.perf_counter()
        try:
            result = await next_handler(message)
        except Exception as error:
            if self._enabled(self._error_level):
                # not the error's text: it may quote the payload; whoever handles the error decides
                self._write(self._error_level, message, started, f"failed with {type(error).__name__}")
            raise
        if self._enabled(self._level):
            self._write(self._level, message, started, "handled")
        return result

    def _write(self, level: int, message: Any, started: float, outcome: str) -> None:
        """Log one line."""
        text, values = "%s %s %s in %.2f ms", [type(message).__name__, id_of(message), outcome]
        values.append((time.perf_counter() - started) * 1000)
        if self._include_data:
            text += ": %s"
            values.append(self._fields(message))
        self._logger.log(level, text, *values)

    def _fields(self, message: Any) -> str:
        """Return the message's own fields, masked and cut."""
        names = getattr(type(message), "__dataclass_fields__", None) or getattr(message, "__dict__", {})
        shown = [f"{name}={_masked(name, getattr(message, name, None))}" for name in names if name not in _OWN_FIELDS]
        text = ", ".join(shown)
        return text if len(text) <= self._max_length else text[: self._max_length] + "…"


def _masked(name: str, value: Any) -> str:
    """Return the value as text, or asterisks where the name suggests a secret."""
    return "***" if any(part in name.lower() for part in _SECRET_PARTS) else repr(value)


def _level(level: int | str, field: str) -> int:
    """Return a level given by number or name as a number."""
    number = level if isinstance(level, int) else logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise EventValidationError(f"{field} must be a level of the logging module, not {level!r}", field=field)
    return number
