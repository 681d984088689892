"""What the committer knows of the log: where it ends, and keys and versions of streams as of there.

It follows from the committer's own commits and holds as long as nobody else has appended. The server checks that with
each batch that was numbered from it: the log must still end with the event that it ended with then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from lexigram.events.stores._primitives import Appended
from lexigram.events.stores.postgres.batch import AppendRequest

_MAX_STREAMS: Final = 65_536


class Batch(NamedTuple):
    """Appends that the client has numbered: all of them succeed if the log ends where it should."""

    arguments: tuple[Any, ...]
    answers: list[Appended]
    streams: dict[str, tuple[int, int]]
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

    def forget(self, is_alone: bool = True) -> None:
        """Know nothing.

        Args:
            is_alone: Others have not been seen appending; numbering is tried again only when they pause.
        """
        self._position = self._last = None
        self._streams.clear()
        self._types.clear()
        self._is_alone = is_alone

    def numbered(self, requests: Sequence[AppendRequest]) -> Batch | None:
        """Number appends, or return None if the server has to: something is not known, or one of them may fail."""
        position = self._position
        if position is None or not self._is_alone:
            return None
        known, types, binary = self._streams, self._types, self._binary
        streams: dict[str, tuple[int, int]] = {}
        answers: list[Appended] = []
        e_stream: list[int] = []
        e_version: list[int] = []
        e_type: list[int] = []
        e_id: list[UUID] = []
        e_at: list[int] = []
        e_payload: list[Any] = []
        t_event: list[int] = []
        t_tag: list[str] = []
        for stream_id, events, expected, condition in requests:
            found = streams.get(stream_id) or known.get(stream_id)
            if found is None:
                return None
            key, version = found
            if expected is not None and expected != version:
                return None
            if condition is not None and condition.after < position:
                return None
            for event_id, type_name, event_type, at, tags, payload in events:
                kind = types.get((type_name, event_type))
                if kind is None:
                    return None
                version += 1
                e_stream.append(key)
                e_version.append(version)
                e_type.append(kind)
                e_id.append(UUID(event_id))
                e_at.append(at)
                e_payload.append(payload if binary else payload.decode())
                if tags:
                    for tag in dict.fromkeys(tags):
                        t_event.append(len(e_id))
                        t_tag.append(tag)
            position += len(events)
            streams[stream_id] = key, version
            answers.append(Appended(version, position))
        arguments = self._position, self._last, e_stream, e_version, e_type, e_id, e_at, e_payload, t_event, t_tag
        return Batch(arguments, answers, streams, position, e_id[-1])

    def took(self, batch: Batch) -> None:
        """Learn that a batch was stored as it was numbered."""
        self._position, self._last = batch.position, batch.last
        self._streams.update(batch.streams)

    def learn(self, requests: Sequence[AppendRequest], arrays: tuple[list[Any], ...], row: Sequence[Any]) -> None:
        """Learn from what the server has answered to the arrays of a batch."""
        statuses, _, positions, before, keys, versions, kinds = row
        is_alone = self._is_alone if self._position is None else before == self._position
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
        streams, _, names, event_types = arrays[:4]
        self._streams.update(
            (stream_id, (key, version))
            for stream_id, key, version in zip(streams, keys, versions, strict=True)
            if key is not None
        )
        self._types.update(zip(zip(names, event_types, strict=True), kinds, strict=True))
