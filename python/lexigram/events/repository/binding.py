"""`EventSourcingRepository[Order]` as a class that a container can build. Source: design/semantics.md, section 9."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from lexigram.contracts.events.protocols.domain import EventBusProtocol
from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol
from lexigram.events.config import EventsConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.snapshot import SnapshotPolicy

__all__ = ["bound_to"]

TRepository = TypeVar("TRepository")


@cache
def bound_to(repository: type[TRepository], aggregate_type: type[Any]) -> type[TRepository]:
    """Return the subclass of `repository` for one aggregate class, always the same one.

    The framework resolves a class that is marked for injection without a registration, and builds it from the
    annotations of its constructor. A generic alias could not be resolved: it is no class.
    """

    name = f"{repository.__name__}[{aggregate_type.__name__}]"

    def __init__(
        self: Any,
        aggregate_type: Any = aggregate_type,
        event_store: EventStoreProtocol = None,  # type: ignore[assignment]
        snapshot_store: SnapshotStoreProtocol | None = None,
        event_bus: EventBusProtocol | None = None,
        snapshot_policy: SnapshotPolicy | None = None,
        snapshot_every: Any = 100,
        *,
        config: EventsConfig | None = None,
        **options: Any,
    ) -> None:
        if config is not None:
            options.setdefault("keep_snapshots", config.snapshots.max_snapshots_per_aggregate)
            snapshot_store = snapshot_store if config.takes_snapshots else None
        if event_store is None:
            raise EventValidationError(f"{name} needs an event_store", field="event_store")
        constructor: Any = repository.__init__
        constructor(
            self, aggregate_type, event_store, snapshot_store, event_bus, snapshot_policy, snapshot_every, **options
        )

    attributes = {
        "__init__": __init__,
        # The framework refuses to boot when a registered class depends on an unregistered one, except on builtins.
        "__module__": "builtins",
        "__doc__": repository.__doc__,
        "__lexigram_inject__": True,
    }
    return cast("type[TRepository]", type(name, (repository,), attributes))
