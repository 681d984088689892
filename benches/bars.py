"""What the comparison has to reach: operation, other library, smallest ratio other/ours."""

from __future__ import annotations

from typing import NamedTuple


class Bar(NamedTuple):
    """`ours` must be at least `ratio` times as fast as `other` at `operation`; with `at_most`, at most so many times as slow.

    Args:
        operation: What ours does.
        other: The library it is compared with.
        ratio: How many times as fast, or with `at_most` as slow.
        other_operation: What the other library does, where that is called differently.
        ours: Which of our environments.
        at_most: The ratio is ours/other and an upper bound.
    """

    operation: str
    other: str
    ratio: float
    other_operation: str = ""
    ours: str = "ours"
    at_most: bool = False


OURS, OURS_313 = "ours", "ours, 3.13"
PUBLISHED, PURE, ES, ES_PY = "published", "pure Python", "eventsourcing", "eventsource-py"
BARS = (
    Bar("construct event, 5 fields", PUBLISHED, 30),
    Bar("construct event, 5 fields", PURE, 1.5, "construct a bare msgspec.Struct, 5 fields", at_most=True),
    Bar("construct + append 1, awaited", PUBLISHED, 45),
    Bar("construct + append 1, awaited", ES, 12),
    Bar("append, batch of 1", PUBLISHED, 50),
    Bar("append, batch of 100", PUBLISHED, 400),
    Bar("append, batch of 100", PURE, 2.5),
    Bar("read 1,000", PUBLISHED, 10),
    Bar("read last 100 of 1,000", PUBLISHED, 50),
    Bar("stream_all, per event", PUBLISHED, 2),
    Bar("stream_all, last 100 of 100,000", PUBLISHED, 1000),
    Bar("stream_by_type, 1 of 10, per event", PUBLISHED, 3),
    Bar("repository: load 1,000 events", PUBLISHED, 20),
    Bar("repository: load 1,000 events", ES_PY, 5, ours=OURS_313),
    Bar("repository: save 10 events", PUBLISHED, 20),
    Bar("dispatch a command, no middleware", PUBLISHED, 12),
    Bar("dispatch a command, 6 middleware", PUBLISHED, 5),
    Bar("publish + flush 1 event, 1 handler", PUBLISHED, 8),
    Bar("publish + flush 1 event, 10 handlers", PUBLISHED, 4),
    Bar("publish 1,000 events then flush, sequential, 1 handler, per event", PUBLISHED, 15),
    Bar("publish 1,000 events then flush, sequential, 10 handlers, per event", PUBLISHED, 20),
    Bar("channel put + get, capacity 1,024", PUBLISHED, 10),
    Bar("channel put + get, capacity 1,024", PURE, 4, "asyncio.Queue put + get, capacity 1,024"),
    Bar("codec: binary encode, 12 fields", PURE, 1.7, "codec: msgspec.msgpack encode, 12 fields"),
    Bar("codec: binary decode, 12 fields", PURE, 1.3, "codec: msgspec.msgpack decode, 12 fields"),
    Bar("codec: JSON decode, 12 fields", OURS, 1, "codec: msgspec.json decode and conversion, 12 fields"),
)

GROWTH, GROWTH_BOUND = ("append", "tail", "by type"), 0.2
"""What must cost the same from a thousand to a million events, and by how much it may differ."""

COLLECTION_MS = 20
"""How much longer a full collection may take with a million stored events than in the same process without them."""

MEMORY_BYTES = 200
"""What one stored event of five small fields may take, index included."""

IMPORT_RATIO = 1.3
"""How much longer importing ours may take than importing what it is built on."""
