"""What an application can inject from this package, beside the classes of the chosen stores."""

from __future__ import annotations

from typing import Any

from lexigram.contracts.data.outbox import OutboxStoreProtocol
from lexigram.contracts.events.outbox import OutboxBackendProtocol
from lexigram.contracts.events.protocols.cqrs import CommandBusProtocol, QueryBusProtocol
from lexigram.contracts.events.protocols.domain import (
    DomainEventPublisherProtocol,
    EventBusDiagnosticsProtocol,
    EventBusProtocol,
)
from lexigram.contracts.events.protocols.projection import ProjectionProtocol
from lexigram.contracts.events.protocols.store import EventReplayProtocol, EventStoreProtocol, SnapshotStoreProtocol
from lexigram.contracts.workflow.protocols import SagaManagerProtocol
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.buses.query import QueryBusImpl
from lexigram.events.config import EventsConfig
from lexigram.events.handlers.registry import HandlerRegistry
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.repository.time_travel import TimeTravel
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.store import SagaStore
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores.base import AbstractCheckpointStore, AbstractEventStore, AbstractIdempotencyStore
from lexigram.events.stores.outbox import AbstractOutboxStore
from lexigram.events.stores.snapshot import SnapshotManager, SnapshotPolicy

__all__ = ["EXPORTS"]

EXPORTS: tuple[Any, ...] = (
    AbstractCheckpointStore,
    AbstractEventStore,
    AbstractIdempotencyStore,
    AbstractOutboxStore,
    AbstractSnapshotStore,
    CommandBusImpl,
    CommandBusProtocol,
    DeadLetterOperations,
    DeadLetterStore,
    DomainEventPublisherProtocol,
    EventBusDiagnosticsProtocol,
    EventBusImpl,
    EventBusProtocol,
    EventReplayProtocol,
    EventStoreProtocol,
    EventsConfig,
    HandlerRegistry,
    OutboxBackendProtocol,
    OutboxStoreProtocol,
    ProjectionManager,
    ProjectionProtocol,
    QueryBusImpl,
    QueryBusProtocol,
    SagaManager,
    SagaManagerProtocol,
    SagaStore,
    SnapshotManager,
    SnapshotPolicy,
    SnapshotStoreProtocol,
    TimeTravel,
)
