"""Going through all aggregates of one class."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.exceptions import EventValidationError
from lexigram.events.repository.loading import AggregateLoader

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)


async def list_aggregates(
    loader: AggregateLoader[TAggregate], limit: int | None = None, offset: int | None = None
) -> AsyncIterator[TAggregate]:
    """Yield the aggregates of the loader's class in order of their ids.

    A stream belongs to the class whose name its events carry as `aggregate_type`. Streams without any event left are
    not found. Costs one short read for every stream up to the last one returned, and a load for each one returned:
    for large numbers use a projection.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, limit or offset is negative.
    """
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and (type(value) is not int or value < 0):
            raise EventValidationError(f"{name} must be an int of at least 0, got {value!r}", field=name)
    skip, left = offset or 0, limit
    if left == 0:
        return
    async for aggregate_id in _ids(loader):
        if skip:
            skip -= 1
            continue
        aggregate = await loader.load(aggregate_id)
        if aggregate is None:
            continue
        yield aggregate
        if left is not None:
            left -= 1
            if not left:
                return


async def count_aggregates(loader: AggregateLoader[TAggregate]) -> int:
    """Return the number of aggregates of the loader's class; one short read for every stream."""
    return len([aggregate_id async for aggregate_id in _ids(loader)])


async def _ids(loader: AggregateLoader[Any]) -> AsyncIterator[Any]:
    """Yield the ids of the class's aggregates, as UUID where the events carry one."""
    name = loader.aggregate_type.__name__
    for stream_id in await loader.event_store.get_stream_ids():
        first = await loader.event_store.read(stream_id, limit=1)
        if first and first[0].aggregate_type == name:
            own_id = first[0].aggregate_id
            yield own_id if str(own_id) == stream_id else stream_id
