"""Every code example of the specification documents has a test, or waits for a part that is not built yet."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent / "spec_examples"

TESTED = {
    "api-reference.md": {
        "CommandBusProtocol": "test_protocols.test_command_bus_protocol",
        "EventBusProtocol": "test_protocols.test_event_bus_protocol",
        "EventStoreProtocol": "test_protocols.test_event_store_protocol",
        "QueryBusProtocol": "test_protocols.test_query_bus_protocol",
        "ReadOnlyRepositoryProtocol": "test_protocols.test_read_only_repository_protocol",
        "RepositoryProtocol": "test_protocols.test_repository_protocol",
        "AbstractEventStore": "test_stores.test_abstract_event_store",
        "AbstractMiddleware": "test_buses.test_abstract_middleware",
        "AbstractRepository": "test_aggregates.test_abstract_repository",
        "AbstractSnapshotStore": "test_stores.test_abstract_snapshot_store",
        "AggregateRoot": "test_aggregates.test_aggregate_root",
        "CommandBusImpl": "test_buses.test_command_bus_and_command_handler",
        "CommandHandlerProtocol": "test_buses.test_command_bus_and_command_handler",
        "EventHandlerProtocol": "test_buses.test_event_handler_class",
        "EventSourcingRepository": "test_aggregates.test_event_sourcing_repository",
        "EventsModule": "test_module.test_events_module",
        "EventsModule.scope": "test_module.test_events_module_scope",
        "HandlerRegistry": "test_buses.test_handler_registry",
        "HandlerRegistry, container": "test_buses.test_handler_registry_with_a_container",
        "InMemoryEventStore": "test_stores.test_in_memory_event_store",
        "InMemorySnapshotStore": "test_stores.test_in_memory_snapshot_store",
        "MongoDBEventStore": "test_mongodb_stores.test_mongodb_event_store",
        "MongoDBSnapshotStore": "test_mongodb_stores.test_mongodb_snapshot_store",
        "PagedResult": "test_buses.test_paged_result",
        "QueryBusImpl": "test_buses.test_query_bus_and_query_handler",
        "QueryHandlerProtocol": "test_buses.test_query_bus_and_query_handler",
        "SnapshotManager": "test_aggregates.test_snapshot_manager",
        "command_handler": "test_buses.test_handler_decorators",
        "event_handler": "test_buses.test_handler_decorators",
        "query_handler": "test_buses.test_handler_decorators",
    },
    "architecture.md": {
        "AuditMiddleware": "test_buses.test_audit_middleware",
        "sequence of saving and reconstruction": "test_aggregates.test_the_sequence_of_the_architecture_document",
        "Order": "test_aggregates.test_aggregate_root_of_the_architecture_document",
        "EventsModule": "test_module.test_the_four_lines_of_the_architecture_document",
        "OrderSummaryProjection": "test_projections_and_sagas.test_projection",
        "OrderFulfillmentSaga": "test_projections_and_sagas.test_saga",
    },
    "guide-event-driven.md": {
        "2. commands": "test_buses.test_guide_commands",
        "3. events": "test_buses.test_guide_events",
        "4. settings": "test_module.test_yaml_of_the_guide",
    },
    "package-page.md": {
        "quick start": "test_module.test_quick_start",
        "option 1, application.yaml": "test_module.test_yaml_of_the_package_page",
        "option 2, environment": "test_module.test_environment_of_the_package_page",
        "option 3, in code": "test_module.test_configuration_in_code",
        "testing": "test_module.test_stub",
    },
}

WAITING = {
    ("api-reference.md", "RedisEventStore"): "the Redis backend is a later issue",
    ("api-reference.md", "WebhookDispatcher"): "webhooks are a later issue",
    ("package-page.md", "option 1, booting it"): "booting with PostgreSQL and a Redis bus needs those backends",
    ("package-page.md", "uv add"): "a shell command that needs a published release of this version",
}
"""Example -> why it has no test yet."""


def defined_tests() -> set[str]:
    """Return `file.test` for every test below `spec_examples`."""
    found = set()
    for path in FOLDER.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem}.{node.name}")
    return found


def test_every_example_has_its_test() -> None:
    """Each listed test exists, and no test below `spec_examples` is missing from the list."""
    listed = {test for examples in TESTED.values() for test in examples.values()}
    assert listed == defined_tests()


def test_what_waits_says_why() -> None:
    """Nothing is both tested and waiting, and each reason is a sentence."""
    tested = {(document, example) for document, examples in TESTED.items() for example in examples}
    assert not tested & WAITING.keys()
    assert all(len(reason.split()) > 3 for reason in WAITING.values())
