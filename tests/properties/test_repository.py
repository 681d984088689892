"""Whatever is done to an aggregate, and whenever snapshots are taken: what comes back equals what was saved."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lexigram.events import (
    CompositePolicy,
    EventCountPolicy,
    EventSourcingRepository,
    InMemoryEventStore,
    InMemorySnapshotStore,
    OnDemandPolicy,
    SnapshotPolicy,
    TimeBasedPolicy,
)
from tests.unit.aggregates.domain import Address, Note, Order

actions = st.lists(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=5),
            st.integers(1, 10**20),
            st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
        ),
        max_size=4,
    ),
    max_size=8,
)
policies: st.SearchStrategy[SnapshotPolicy] = st.one_of(
    st.builds(EventCountPolicy, st.integers(1, 12)),
    st.just(TimeBasedPolicy(1)),
    st.just(OnDemandPolicy()),
    st.builds(
        lambda count, every: CompositePolicy([EventCountPolicy(count), TimeBasedPolicy(3600)], require_all=every),
        st.integers(1, 5),
        st.booleans(),
    ),
)


def state_of(order: Order) -> dict[str, Any]:
    """Return everything that makes up an order, with the types of its parts."""
    values = {name: value for name, value in vars(order).items() if not name.startswith("_")}
    return {**values, "version": order.version, "prices": [vars(line) for line in order.lines]}


@settings(max_examples=80, deadline=None)
@given(saves=actions, policy=policies, reload=st.booleans(), compact=st.booleans(), note=st.text(max_size=10))
def test_what_comes_back_equals_what_was_saved(
    saves: list[list[tuple[str, int, Decimal]]], policy: SnapshotPolicy, reload: bool, compact: bool, note: str
) -> None:
    """For any policy, with or without loading between the saves, also after the covered events are compacted."""

    async def run() -> None:
        events, snapshots = InMemoryEventStore(), InMemorySnapshotStore()
        repository = EventSourcingRepository(Order, events, snapshots, snapshot_policy=policy)
        order = Order(id="o")
        for batch in saves:
            for sku, quantity, price in batch:
                order.add(sku, quantity, price)
            await repository.save(order)
            if order.version and reload:
                order = await repository.get_or_raise("o")
        if not order.version:
            assert await repository.get("o") is None
            return
        latest = await snapshots.get_latest("o")
        if latest is not None and compact:
            await events.compact("o", latest.version)
        assert state_of(await repository.get_or_raise("o")) == state_of(order)

    asyncio.run(run())


@settings(max_examples=80, deadline=None)
@given(
    text=st.text(max_size=20),
    labels=st.sets(st.text(max_size=5), max_size=3),
    moment=st.none() | st.datetimes(timezones=st.just(UTC)),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    since=st.none() | st.dates(),
    number=st.uuids(),
)
def test_any_state_survives_a_snapshot(
    text: str, labels: set[str], moment: datetime | None, amount: Decimal, since: Any, number: Any
) -> None:
    """The types that the annotations name come back with equal values."""
    order = Order(
        id=number,
        status=text,
        labels=labels,
        shipped_at=moment,
        total=amount,
        address=Address(street=text, since=since),
        notes=(Note(text, number),),
    )
    twin = Order(id="twin")
    twin.load_from_snapshot(order.create_snapshot())
    assert state_of(twin) == state_of(order)
    assert type(twin.total) is Decimal
