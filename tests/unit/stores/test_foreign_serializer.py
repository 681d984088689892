"""A store takes a serializer of the user's own instead of the codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import DomainEvent, EventValidationError, SerializationError, SqliteConfig, SqliteEventStore


class Noted(DomainEvent):
    text: str


class JsonLines:
    """Writes and reads one kind of event in a form of its own."""

    def serialize(self, event: Any) -> bytes:
        return json.dumps(["v1", event.text]).encode()

    def deserialize(self, data: bytes) -> Any:
        return Noted(text=json.loads(data)[1])


async def test_the_stored_bytes_are_the_serializers(tmp_path: Path) -> None:
    """What it wrote is in the payload column, what it reads comes back with version and position."""
    config = SqliteConfig(database=str(tmp_path / "notes.db"))
    async with SqliteEventStore(config, event_serializer=JsonLines()) as store:
        await store.append("a", [Noted(text="one"), Noted(text="two")])
        events = await store.read("a")
        assert [(event.text, event.version, event.sequence_number) for event in events] == [
            ("one", 1, 1),
            ("two", 2, 2),
        ]
        async with store.unit_of_work() as unit:
            rows = await unit.fetch_all("SELECT payload FROM events ORDER BY position")
    assert [bytes(row[0]) for row in rows] == [b'["v1", "one"]', b'["v1", "two"]']


async def test_a_serializer_without_its_methods_is_refused() -> None:
    """The error names the parameter."""
    with pytest.raises(EventValidationError, match="needs serialize"):
        SqliteEventStore(SqliteConfig(database=":memory:"), event_serializer=object())


async def test_a_serializer_that_returns_no_bytes_writes_nothing() -> None:
    """The error says what came instead."""

    class Wrong(JsonLines):
        def serialize(self, event: Any) -> Any:
            return {"text": event.text}

    async with SqliteEventStore(SqliteConfig(database=":memory:"), event_serializer=Wrong()) as store:
        with pytest.raises(SerializationError, match="dict, not bytes"):
            await store.append("a", [Noted(text="one")])
        assert await store.head() == 0
