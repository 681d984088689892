"""Events are removed alike from every backend, also those that the program cannot read any more."""

from __future__ import annotations

import pytest

from lexigram.events import DomainEvent
from tests.backends import BACKENDS, MakeStore, make_store

__all__ = ["make_store"]


def note(*, newer: bool) -> type[DomainEvent]:
    """Return a class as the program had it before, or as it has it now, with a field that older events lack."""
    if newer:

        class Note(DomainEvent):
            text: str
            author: str
    else:

        class Note(DomainEvent):  # type: ignore[no-redef]
            text: str

    return Note


@pytest.mark.parametrize("backend", BACKENDS)
async def test_events_that_cannot_be_rebuilt_can_be_removed(make_store: MakeStore, backend: str) -> None:
    """Their class has changed since; nothing finds them by their tags afterwards."""
    async with make_store(backend) as store:
        older = note(newer=False)
        await store.append("a", [older(text=text).with_tags("t") for text in "123"])
        newer = note(newer=True)
        assert await store.compact("a", 2) == 2
        assert await store.delete_stream("a") == 1
        assert await store.query(tags=["t"]) == []
        await store.append("a", [newer(text="4", author="x").with_tags("t")])
        assert [event.version for event in await store.query(types=[newer], tags=["t"])] == [4]
