"""One namespace in one Redis: what all stores on it share. The event log's operations, and the writing of all of them."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.constants import NAMESPACE_PATTERN
from lexigram.events.exceptions import EventPersistenceError, EventStoreConnectionError, EventValidationError
from lexigram.events.stores._loop_lock import OneLoopLock
from lexigram.events.stores._primitives import Appended, StreamBounds
from lexigram.events.stores.redis.committer import Committer
from lexigram.events.stores.redis.connection import RedisConnection
from lexigram.events.stores.redis.operations import (
    AppendOperation,
    Argument,
    CompactOperation,
    SmallOperation,
    group,
    query_arguments,
)
from lexigram.events.stores.redis.scripts import (
    APPEND_SCRIPT,
    BOUNDS_SCRIPT,
    PAGE_SCRIPT,
    READ_SCRIPT,
    STREAMS_SCRIPT,
    Script,
)
from lexigram.events.stores.redis.small_scripts import EVERY_SCRIPT
from lexigram.events.stores.redis.wakeup import RedisWakeup
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.stores.condition import ResolvedQuery

logger = logging.getLogger(__name__)

_NAMESPACE: Final = re.compile(NAMESPACE_PATTERN)
_LARGEST_NUMBER: Final = 2**53
"""Lua counts in doubles."""
_EVENTS_AT_ONCE: Final = 1000

_warned: set[str] = set()

Row = tuple[str, str, bytes, int, int]


class LogPage(NamedTuple):
    """What one call has looked at: the head meanwhile, how many events match, where to go on (None: at the end)."""

    head: int
    matches: int
    more_after: int | None
    rows: list[tuple[Any, ...]]


class RedisLog:
    """The keys `{namespace}:…` of one Redis; opened once for all stores that share it.

    Args:
        connection: To the server.
        namespace: Letters, digits, `_`, `:`, `.` and `-`, at most 63; becomes the hash tag of every key.
        require_durable: Refuse to open where an acknowledged write can be lost, instead of warning once.
    """

    def __init__(self, connection: RedisConnection, namespace: str, require_durable: bool = False) -> None:
        self.connection = connection
        self.namespace = check_namespace(namespace)
        self.prefix = f"{{{namespace}}}:"
        self.wakeup = RedisWakeup(connection, f"{self.prefix}appended")
        self.is_durable: bool | None = None
        self._key = f"{self.prefix}log"
        self._require_durable = require_durable
        self._committer: Committer | None = None
        self._opening = OneLoopLock("Redis")
        self._users = 0

    async def open(self) -> None:
        """Connect and check; each `open` needs its `close`.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the server cannot be reached.
            EventPersistenceError: LEX_ERR_EVT_012, it can lose what it acknowledges and `require_durable` is on.
        """
        async with self._opening:
            if self._committer is None:
                await self.connection.open()
                try:
                    await self.connection.check_format(f"{self.prefix}format")
                    await self._check_durability()
                except BaseException:
                    await self.connection.close()
                    raise
                self._committer = Committer(self.connection, self._key, self._committed)
            self._users += 1

    async def close(self) -> None:
        """Give it back; the last one to do so ends what is under way and closes the connection."""
        self._users -= 1
        if self._users == 0 and self._committer is not None:
            committer, self._committer = self._committer, None
            await committer.close()
            await self.wakeup.close()
            await self.connection.close()

    async def _check_durability(self) -> None:
        reasons = await self.connection.shortcomings()
        self.is_durable = not reasons
        if not reasons:
            return
        message = f"{self.connection.name} is not durable: {'; '.join(reasons)}"
        if self._require_durable:
            raise EventPersistenceError(f"{message}. Set appendonly yes and appendfsync always")
        if self.connection.name not in _warned:
            _warned.add(self.connection.name)
            logger.warning("%s. Acknowledged events may be lost; require_durable=True refuses such a server", message)

    def _committed(self, script: Script, groups: int) -> None:
        if script is APPEND_SCRIPT and self.wakeup.observe_batch is not None:
            self.wakeup.observe_batch(groups)

    async def write(
        self, operations: Sequence[Any], *, script: Script = APPEND_SCRIPT, token: bool = False
    ) -> list[Any]:
        """Execute operations, all or none, and return an answer for each.

        Args:
            token: Let a retry after a lost connection find the answer of the first try. Appends need none: they are
                found by their event ids.
        """
        arguments = group(operations, secrets.token_hex(12) if token else "")
        return self._answers(operations, await self._running().submit(script, arguments))

    async def apply(self, operation: SmallOperation) -> Any:
        """Execute one operation, or keep it for the unit of work that this task is in; return its answer.

        In a unit of work the answer is what the operation is based on now; `unit.outcome` has the final one.
        """
        unit: Any = current_unit_of_work(self)
        return await self.execute(operation) if unit is None else await unit.add(operation)

    async def execute(self, operation: SmallOperation) -> Any:
        """Execute one operation at once and return its answer."""
        return (await self.write((operation,), script=EVERY_SCRIPT, token=True))[0]

    async def settle(self, operations: Sequence[Any]) -> list[Any]:
        """Execute the operations of a unit of work, all or none, and return an answer for each."""
        is_log = all(isinstance(operation, AppendOperation) for operation in operations)
        return await self.write(operations, script=APPEND_SCRIPT if is_log else EVERY_SCRIPT, token=not is_log)

    async def foresee(self, operation: Any) -> Any:
        """Check one operation without executing it; return what it is based on."""
        script = APPEND_SCRIPT if isinstance(operation, AppendOperation) else EVERY_SCRIPT
        arguments: list[Argument] = ["1", 1, *group((operation,))]
        replies = await self.connection.change(script, self._key, arguments)
        return self._answers((operation,), replies[0])[0]

    @staticmethod
    def _answers(operations: Sequence[Any], reply: list[Any]) -> list[Any]:
        done, *answers = reply
        if done:
            return answers
        index, code, *details = answers
        raise operations[index].failure(code.decode(), details[0] if details else None)

    def _running(self) -> Committer:
        if self._committer is None:
            raise EventStoreConnectionError(f"{self.connection.name} is not connected; call connect() first")
        return self._committer

    async def append(self, operation: AppendOperation) -> Appended:
        """Store the events of one append, or find that they are stored."""
        return Appended(*(await self.write((operation,)))[0])

    async def compact(self, stream_id: str, up_to_version: int) -> int:
        """Remove a stream's first events, a thousand at a time; return how many."""
        removed = 0
        while True:
            step = (await self.write((CompactOperation(stream_id, min(up_to_version, _LARGEST_NUMBER)),)))[0]
            if not step:
                return removed
            removed += step

    async def read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Row]:
        """Return rows (type name, event type, payload, version, position) of a stream."""
        rows: list[Any] = []
        last = min(_LARGEST_NUMBER if to_version is None else to_version, _LARGEST_NUMBER)
        while from_version <= last:
            size = _EVENTS_AT_ONCE if limit is None else min(_EVENTS_AT_ONCE, limit - len(rows))
            lengths, pieces = await self.evaluate(READ_SCRIPT, stream_id, from_version, last, size)
            found = _rows(lengths, pieces, 5)
            rows += found
            if len(found) < size or len(rows) == limit:
                break
            from_version = found[-1][3] + 1
        return rows

    async def page(
        self, after: int, up_to: int | None, limit: int, query: ResolvedQuery | None, *, rows: bool = True
    ) -> LogPage:
        """Return up to `limit` events after a position, or how many there are; rows also have stream id and time."""
        head, count, more, lengths, pieces = await self.evaluate(
            PAGE_SCRIPT,
            after,
            "+inf" if up_to is None else up_to,
            min(limit, _EVENTS_AT_ONCE),
            int(rows),
            *query_arguments(query),
        )
        return LogPage(head, count, None if more < 0 else more, _rows(lengths, pieces, 7))

    async def count(self, after: int, up_to: int | None, query: ResolvedQuery | None) -> int:
        """Return how many events are selected."""
        if query is None and after == 0 and (up_to is None or up_to >= await self.head()):
            return int(await self.connection.read("XLEN", self._key))
        total = 0
        while True:
            page = await self.page(after, up_to, _EVENTS_AT_ONCE, query, rows=False)
            total += page.matches
            if page.more_after is None:
                return total
            after = page.more_after

    async def bounds(self, stream_id: str) -> StreamBounds:
        """Return the first version stored and the current version."""
        removed, version = await self.evaluate(BOUNDS_SCRIPT, stream_id)
        return StreamBounds(removed + 1 if version > removed else 0, version)

    async def head(self) -> int:
        """Return the highest position assigned."""
        return int(await self.connection.read("GET", f"{self.prefix}head") or 0)

    async def removals(self) -> dict[str, int]:
        """Return the highest removed version by stream."""
        return {stream_id: int(version) for stream_id, version in (await self.hash("removed")).items()}

    async def stream_ids(self) -> list[str]:
        """Return the ids of the streams that hold events."""
        return sorted(name.decode() for name in await self.evaluate(STREAMS_SCRIPT))

    async def hash(self, key: str) -> dict[str, bytes]:
        """Return all fields of a hash."""
        reply: Any = await self.connection.read("HGETALL", self.prefix + key)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {name.decode(): value for name, value in pairs}

    async def evaluate(self, script: Script, *arguments: Any) -> Any:
        """Run a reading script on this namespace."""
        return await self.connection.evaluate(script, self._key, *arguments)


def check_namespace(namespace: object) -> str:
    """Return a namespace if it can be put in front of keys, as a hash tag too."""
    if not isinstance(namespace, str) or _NAMESPACE.fullmatch(namespace) is None:
        raise EventValidationError(
            "namespace must start with a letter or '_' and have at most 63 letters, digits, '_', ':', '.' and '-', "
            f"got {namespace!r}",
            field="namespace",
        )
    return namespace


def _rows(lengths: bytes, pieces: bytes, width: int) -> list[tuple[Any, ...]]:
    """Cut one piece of text into rows. Thousands of separate answers would cost the driver far more."""
    if not lengths:
        return []
    values, at = [], 0
    for length in map(int, lengths.split(b",")):
        values.append(pieces[at : at + length])
        at += length
    fields = [iter(values)] * width
    return [
        (row[0].decode(), row[1].decode(), row[2], int(row[3]), int(row[4]), *(item.decode() for item in row[5:]))
        for row in zip(*fields, strict=True)
    ]
