"""What the committer knows of the log: where it ends, and keys and versions of streams as of there.

It follows from the committer's own commits and holds as long as nobody else has appended. The server checks that with
each batch that was numbered from it: the log must still end with the event that it ended with then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from lexigram.events.stores._primitives import Appended
from lexigram.events.stores.postgres.batch import columns, hashes
from lexigram.events.stores.postgres.requests import AppendRequest

_MAX_STREAMS: Final = 65_536
_SURE: Final = 4
"""After so many look-ups in turn that found new streams only, one that is not known is taken to be new."""


class Batch(NamedTuple):
    """Appends that the client has numbered: all of them succeed if the log ends where it should."""

    arguments: tuple[Any, ...]
    answers: list[Appended]
    streams: dict[str, tuple[int, int]]
    new: list[str]
    position: int
    last: UUID


class Knowledge:
    """One for each committer.

    Args:
        binary: Payloads go into a `bytea` column.
    """

    def __init__(self, binary: bool) -> None:
        self._binary = binary
        self._position: int | None = None
        self._last: UUID | None = None
        self._streams: dict[str, tuple[int, int]] = {}
        self._types: dict[tuple[str, str], int] = {}
        self._is_alone = True
        self._found_new = 0

    def forget(self, is_alone: bool = True) -> None:
        """Know nothing.

        Args:
            is_alone: Others have not been seen appending; numbering is tried again only when they pause.
        """
        self._position = self._last = None
        self._streams.clear()
        self._types.clear()
        self._is_alone = is_alone
        self._found_new = 0

    def numbered(self, requests: Sequence[AppendRequest]) -> Batch | None:
        """Number appends, or return None if the server has to: something is not known, or one of them may fail."""
        position = self._position
        if position is None or not self._is_alone:
            return None
        known, is_sure = self._streams, self._found_new >= _SURE
        streams: dict[str, tuple[int, int]] = {}
        new: list[str] = []
        answers: list[Appended] = []
        e_stream: list[int] = []
        e_version: list[int] = []
        for stream_id, events, expected, condition in requests:
            found = streams.get(stream_id) or known.get(stream_id)
            if found is None:
                if expected is None and not is_sure:
                    return None
                new.append(stream_id)
                found = -len(new), 0
            key, version = found
            if expected is not None and expected != version:
                return None
            if condition is not None and condition.after < position:
                return None
            count = len(events)
            if count == 1 or len(requests) == 1:  # the server counts on
                e_stream.append(key)
                e_version.append(version + 1)
                version += count
            else:
                e_stream += [key] * count
                e_version += range(version + 1, version + count + 1)
                version += count
            position += count
            streams[stream_id] = key, version
            answers.append(Appended(version, position))
        type_names, event_types, ids, *rest = columns(requests, self._binary)
        kinds = list(map(self._types.get, zip(type_names, event_types, strict=True)))
        if None in kinds:
            return None
        if kinds.count(kinds[0]) == len(kinds):
            del kinds[1:]  # the server takes one for all
        streams_made = new or None, hashes(new) or None  # None is quicker to send than an empty list
        arguments = (self._position, self._last, *streams_made, e_stream, e_version, kinds, ids, *rest)
        return Batch(arguments, answers, streams, new, position, ids[-1])

    def took(self, batch: Batch, keys: Sequence[int]) -> None:
        """Learn that a batch was stored as it was numbered, and which keys its new streams were given."""
        self._position, self._last = batch.position, batch.last
        if len(self._streams) > _MAX_STREAMS:
            self._streams.clear()
        self._streams.update(batch.streams)
        for stream_id, key in zip(batch.new, keys, strict=True):
            self._streams[stream_id] = key, batch.streams[stream_id][1]

    def learn(self, requests: Sequence[AppendRequest], arrays: tuple[Sequence[Any], ...], row: Sequence[Any]) -> None:
        """Learn from what the server has answered to the arrays of a batch."""
        statuses, _, positions, before, keys, versions, kinds = row
        is_alone = self._is_alone if self._position is None else before == self._position
        found_new = self._found_new
        if before != self._position or len(self._streams) > _MAX_STREAMS:
            self.forget(is_alone)
        self._is_alone = is_alone
        stored = [place for place, status in enumerate(statuses) if status == 0]
        if keys is None or not (stored or self._last):
            self.forget(is_alone)
            return
        if stored:
            place = stored[-1]
            self._position, self._last = positions[place], UUID(requests[place].events[-1].event_id)
        streams, _, names, event_types, a_stream, _, a_count = arrays[:7]
        before_batch = list(versions)
        for place in stored:
            before_batch[a_stream[place] - 1] -= a_count[place]
        unknown = [
            not version
            for stream_id, version in zip(streams, before_batch, strict=True)
            if stream_id not in self._streams
        ]
        if unknown:
            self._found_new = found_new + 1 if all(unknown) else 0
        self._streams.update(
            (stream_id, (key, version))
            for stream_id, key, version in zip(streams, keys, versions, strict=True)
            if key is not None
        )
        self._types.update(zip(zip(names, event_types, strict=True), kinds, strict=True))
