"""What the packages below `lexigram.events` export, so that the names of their modules can be imported from them too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import lexigram.events

_DEEPER = {
    "buses.base": "Bus",
    "decorators.handlers": "clear_handlers get_all_handlers get_handler_info set_handler_info",
    "decorators.idempotency_cache": "IdempotencyCache",
    "decorators.idempotent": "clear_idempotency_cache",
    "handlers.base": "MultiEventHandlerProtocol",
    "handlers.discovery": "discover_and_register discover_event_types register_discovered_types",
    "middleware.base": "middleware",
    "middleware.circuit_breaker": "CircuitBreakerMiddleware",
    "middleware.logging": "LoggingMiddleware",
    "middleware.metrics": "MessageMetrics MetricsMiddleware",
    "middleware.retry": "RetryMiddleware",
    "middleware.transaction": "TransactionContext TransactionMiddleware UnitOfWorkMiddleware",
    "middleware.validation": "ValidationMiddleware",
    "projections.base": "ProjectionCheckpoint ProjectionProtocol ProjectionStatus",
    "sagas.manager": "SagaManagerProtocol",
    "sagas.orchestrator": "OrchestratedStep SagaAction SagaOrchestrator",
    "sagas.store": "SagaStore",
    "sagas.types": "SagaRecord SagaStepRecord SagaStepStatus",
    "schema.evolution": "Downcaster EventMigrator MigrationPath SchemaEvolution Upcaster",
    "schema.models": "EventSchema SchemaIncompatibleError SchemaNotFoundError",
    "schema.registry": "SchemaRegistry",
    "schema.store": "InMemorySchemaStore SchemaStore",
    "stores.checkpoints": "SqlCheckpointStore",
    "stores.idempotency": "InMemoryIdempotencyStore SqlIdempotencyStore",
    "stores.registry": "EventStoreRegistry",
}
"""Names that the packages below export and `lexigram.events` does not, by module."""


def from_package(package: str, name: str) -> Any:
    """Return what `from <package> import <name>` gives: a public name of a module below that package.

    Raises:
        AttributeError: There is none, or the name is that of a module.
    """
    root: Any = lexigram.events  # its stub is the list of public names
    module, attribute = root._EXPORTS.get(name, ("", ""))
    for deeper, names in _DEEPER.items():
        if f"lexigram.events.{deeper}".startswith(f"{package}.") and name in names.split():
            module, attribute = f"lexigram.events.{deeper}", name
    is_contract = package == "lexigram.events.messages" and module == "lexigram.contracts.events.messages"
    if not (is_contract or module.startswith(f"{package}.")) or module == f"{package}.{name}":
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(module), attribute)
