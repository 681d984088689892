"""How many Python frames the usual operations enter: a count that no noise changes."""

from __future__ import annotations

from benches.frames import BUDGETS, Placed, drive, entered, frames
from lexigram.events import InMemoryEventStore


async def test_the_usual_operations_stay_within_their_budgets() -> None:
    """Dispatch 6, `_apply` 5, append 6 however many events it has, publish and flush 60 with the event loop's own."""
    assert BUDGETS == {
        "dispatch of a command": 6,
        "_apply": 5,
        "append of 1 event": 6,
        "append of 100 events": 6,
        "publish + flush": 60,
    }
    found = await frames()
    assert found.keys() == BUDGETS.keys()
    assert not {name: names for name, names in found.items() if len(names) > BUDGETS[name]}


async def test_streaming() -> None:
    """`stream_all` enters no frame per event, only some per page of 100."""
    store = InMemoryEventStore()
    await store.append("o", [Placed(order_id="o", quantity=1) for _ in range(1000)])

    async def read() -> int:
        return len([event async for event in store.stream_all()])

    names = entered(lambda: drive(read()))
    assert len(names) <= 100, names
