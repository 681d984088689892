"""The order that `depends_on` asks for."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from lexigram.events.exceptions import EventValidationError
from lexigram.events.projections.base import ProjectionProtocol


def in_dependency_order(projections: Iterable[ProjectionProtocol]) -> list[ProjectionProtocol]:
    """Return projections so that each comes after those it depends on; names that are not registered do not count.

    Raises:
        EventValidationError: The dependencies form a circle.
    """
    by_name = {projection.name: projection for projection in projections}
    graph = {
        name: [other for other in projection.depends_on if other in by_name] for name, projection in by_name.items()
    }
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise EventValidationError(
            f"Projections depend on each other in a circle: {circle}", field="depends_on"
        ) from None
