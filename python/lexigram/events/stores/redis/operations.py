"""What a store asks Redis to change, as the arguments of the script that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lexigram.events.exceptions import ConcurrencyError, EventError, EventValidationError
from lexigram.events.stores._primitives import already_stored

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores.condition import ResolvedCondition, ResolvedQuery

Argument = str | bytes | int


class AppendOperation(NamedTuple):
    """Append encoded events to a stream, unless they are stored already."""

    stream_id: str
    events: Sequence[EncodedEvent]
    expected_version: int | None = None
    condition: ResolvedCondition | None = None

    def arguments(self) -> list[Argument]:
        """Return the operation as the script takes it.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, a tag holds a NUL character.
        """
        expected, condition = self.expected_version, self.condition
        arguments: list[Argument] = ["append", self.stream_id, "" if expected is None else expected]
        if condition is None:
            arguments.append("")
        else:
            arguments += query_arguments(condition.query)
            arguments.append(condition.after)
        arguments.append(len(self.events))
        for event in self.events:
            arguments += (
                event.event_id,
                event.type_name,
                event.event_type,
                event.occurred_at_us,
                event.payload,
                _joined(event.tags) if event.tags else "",
            )
        return arguments

    def failure(self, code: str, detail: int | None) -> EventError:
        """Return the error for what the script answered."""
        if code == "stored":
            return already_stored(self.stream_id)
        if code == "condition":
            return ConcurrencyError(
                "an event that matches the condition was appended meanwhile; nothing was written",
                expected_version=self.expected_version,
                actual_version=detail,
            )
        return version_conflict(self.stream_id, self.expected_version, detail)


class CompactOperation(NamedTuple):
    """Remove a stream's first events up to a version; at most 1,000 at a time, so that nobody waits long."""

    stream_id: str
    up_to_version: int

    def arguments(self) -> list[Argument]:
        """Return the operation as the script takes it."""
        return ["compact", self.stream_id, self.up_to_version]

    def failure(self, code: str, detail: int | None) -> EventError:
        """Return the error for what the script answered; it has none."""
        return EventError(f"compaction of {self.stream_id!r} failed: {code}")


def version_conflict(stream_id: str, expected: int | None, actual: int | None) -> ConcurrencyError:
    """Return the error for a stream that is not at the version expected."""
    return ConcurrencyError(
        f"stream {stream_id!r} is at version {actual}, expected {expected}; nothing was written",
        expected_version=expected,
        actual_version=actual,
    )


def query_arguments(query: ResolvedQuery | None) -> list[Argument]:
    """Return a query as the scripts take it; None selects everything."""
    if query is None:
        return [""]
    arguments: list[Argument] = [len(query)]
    for item in query:
        if item.types is None:
            arguments.append("")
        else:
            arguments += (len(item.types), *item.types)
        arguments += (len(item.tags), *item.tags)
    return arguments


def group(operations: Sequence[Any], token: str = "") -> list[Argument]:
    """Return operations that succeed or fail together. With a token the answer is kept for a retry of the group."""
    arguments: list[Argument] = [token, len(operations)]
    for operation in operations:
        arguments += operation.arguments()
    return arguments


def _joined(tags: Sequence[str]) -> str:
    joined = "\0".join(tags)
    if joined.count("\0") != len(tags) - 1 or not all(tags):
        raise EventValidationError("tags must not be empty or contain NUL characters", field="tags")
    return joined


class SmallOperation(NamedTuple):
    """An operation of one of the smaller stores, with the error for each check of it that can fail."""

    kind: str
    values: Sequence[Argument]
    refused: Callable[[int | None], EventError] | None = None

    def arguments(self) -> list[Argument]:
        """Return the operation as the script takes it."""
        return [self.kind, *self.values]

    def failure(self, code: str, detail: int | None) -> EventError:
        """Return the error for what the script answered."""
        return EventError(f"{self.kind} failed: {code}") if self.refused is None else self.refused(detail)
