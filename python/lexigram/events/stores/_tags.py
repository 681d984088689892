"""Which tags stored events carry, for backends that keep tags in a table of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EventCodec


def tags_of(codec: EventCodec, rows: Sequence[Sequence[Any]]) -> list[tuple[str, int]]:
    """Return the tags of stored rows `(type_name, event_type, payload, version, position)`, each with its position.

    An event that cannot be rebuilt any more, because its class has changed, must not be in the way of its removal.
    """
    try:
        events = codec.decode_rows(rows)
    except Exception:
        return [(tag, row[4]) for row in rows for tag in _tags(codec, row)]
    return [(tag, event.sequence_number) for event in events for tag in _unique(event)]


def _tags(codec: EventCodec, row: Sequence[Any]) -> Iterable[str]:
    try:
        return _unique(codec.decode_rows([row])[0])
    except Exception:
        pass
    try:
        return dict.fromkeys(codec.parse(row[2])["$meta"].get("tags", ()))
    except Exception:
        return ()  # what is left over in the table of tags is never found


def _unique(event: Any) -> Iterable[str]:
    return dict.fromkeys(getattr(event, "tags", ()))
