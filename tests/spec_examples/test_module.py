"""spec/package-page.md, spec/api-reference.md, spec/architecture.md, spec/guide-event-driven.md: module and settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexigram import Application
from lexigram.di.module import Module, module
from lexigram.events import (
    CommandBus,
    CommandHandlerProtocol,
    EventBusImpl,
    EventHandlerProtocol,
    EventsConfig,
    EventsModule,
    EventStoreProtocol,
    InMemoryEventStore,
    QueryBusProtocol,
    QueryHandlerProtocol,
)
from tests.spec_examples.shop import (
    CreateOrderCommand,
    GetOrdersQuery,
    OrderCreatedEvent,
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples write and read `application.yaml` in a directory of their own."""
    monkeypatch.chdir(tmp_path)


async def test_quick_start() -> None:
    """spec/package-page.md, first example: zero configuration."""

    @module(imports=[EventsModule.configure()])
    class AppModule(Module):
        pass

    async def main():
        async with Application.boot(modules=[AppModule]) as app:
            # your event sourcing code
            assert isinstance(await app.container.resolve(EventStoreProtocol), InMemoryEventStore)
            return True

    assert await main()


def test_yaml_of_the_package_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """spec/package-page.md, option 1: `application.yaml`, with `${DATABASE_URL}` from the environment."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/shop")
    text = """
events:
  event_store_backend: postgres
  postgres:
    connection_string: "${DATABASE_URL}"
  event_bus:
    backend: redis
  redis:
    url: "redis://localhost:6379/0"
  outbox:
    enabled: true
    poll_interval: 5
"""
    import yaml

    config = EventsConfig.from_dict(yaml.safe_load(text)["events"])
    from lexigram.events.types import EventStoreBackend

    assert config.event_store_backend == EventStoreBackend.POSTGRES
    assert config.postgres is not None
    assert config.postgres.dsn.get_secret_value() == "postgresql://localhost/shop"
    assert config.event_bus.backend == "redis"
    assert (config.outbox.enabled, config.outbox.poll_interval) == (True, 5)


def test_environment_of_the_package_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """spec/package-page.md, option 2: environment variables."""
    monkeypatch.setenv("LEX_EVENTS__EVENT_STORE__BACKEND", "postgres")
    monkeypatch.setenv("LEX_EVENTS__EVENT_BUS__BACKEND", "redis")
    monkeypatch.setenv("LEX_EVENTS__OUTBOX__ENABLED", "true")
    config = EventsConfig.from_yaml(tmp_path / "application.yaml")
    assert (config.event_store_backend, config.event_bus.backend, config.outbox.enabled) == ("postgres", "redis", True)


def test_configuration_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """spec/package-page.md, option 3: settings as objects."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/shop")
    from lexigram.events import EventsConfig, EventsModule, PostgresEventStoreConfig
    from lexigram.events.types import EventStoreBackend

    config = EventsConfig(
        event_store_backend=EventStoreBackend.POSTGRES,
        postgres=PostgresEventStoreConfig(connection_string="${DATABASE_URL}"),
        outbox_enabled=True,
    )
    EventsModule.configure(config)
    assert config.outbox.enabled
    assert config.postgres is not None
    assert config.postgres.dsn.get_secret_value() == "postgresql://localhost/shop"


def test_yaml_of_the_guide() -> None:
    """spec/guide-event-driven.md, 4: event bus and command bus settings."""
    text = """
events:
  enabled: true
  event_store_backend: postgres # memory | postgres | mongodb
  event_bus:
    parallel_dispatch: true
    enable_dead_letter: true
  command_bus:
    max_retries: 3
    timeout_seconds: 30.0
"""
    import yaml

    config = EventsConfig.from_dict(yaml.safe_load(text)["events"])
    assert config.event_bus.parallel_dispatch
    assert config.event_bus.enable_dead_letter
    assert (config.command_bus.max_retries, config.command_bus.timeout_seconds) == (3, 30.0)


async def test_stub() -> None:
    """spec/package-page.md, testing."""
    async with Application.boot(modules=[EventsModule.stub()]) as app:
        # your test code
        store = await app.container.resolve(EventStoreProtocol)
        assert await store.append("o", [OrderCreatedEvent(order_id="o", customer_email="a@b")]) == 1


async def test_events_module() -> None:
    """spec/api-reference.md, "EventsModule", usage."""
    from lexigram.events.config import EventsConfig
    from lexigram.events.types import EventStoreBackend

    @module(imports=[EventsModule.configure(EventsConfig(event_store_backend=EventStoreBackend.MEMORY))])
    class AppModule(Module):
        pass

    async with Application.boot(modules=[AppModule]) as app:
        assert await app.container.resolve(CommandBus) is not None


async def test_events_module_scope() -> None:
    """spec/api-reference.md, "EventsModule.scope", example: the handlers of a feature."""
    config, seen = EventsConfig(), []

    class CreateOrderHandler(CommandHandlerProtocol[CreateOrderCommand, str]):
        async def handle(self, command: CreateOrderCommand) -> str:
            return f"created for {command.customer_id}"

    class GetOrderHandler(QueryHandlerProtocol[GetOrdersQuery, list[str]]):
        async def handle(self, query: GetOrdersQuery) -> list[str]:
            return [query.customer_id]

    class OrderShippedHandler(EventHandlerProtocol[OrderCreatedEvent]):
        async def handle(self, event: OrderCreatedEvent) -> None:
            seen.append(event.order_id)

    @module(
        imports=[
            EventsModule.configure(config),
            EventsModule.scope(
                CreateOrderHandler,
                GetOrderHandler,
                OrderShippedHandler,
            ),
        ]
    )
    class OrderFeatureModule(Module):
        pass

    async with Application.boot(modules=[OrderFeatureModule]) as app:
        commands = await app.container.resolve(CommandBus)
        queries = await app.container.resolve(QueryBusProtocol)
        events = await app.container.resolve(EventBusImpl)
        assert await commands.dispatch(CreateOrderCommand(customer_id="c", items=[])) == "created for c"
        assert await queries.execute(GetOrdersQuery(customer_id="c", status="open")) == ["c"]
        await events.publish(OrderCreatedEvent(order_id="o1", customer_email="a@b"))
        await events.flush()
    assert seen == ["o1"]


def test_the_four_lines_of_the_architecture_document() -> None:
    """spec/architecture.md, module lines."""

    class CreateOrderHandler(CommandHandlerProtocol[CreateOrderCommand, str]):
        async def handle(self, command: CreateOrderCommand) -> str: ...

    class GetOrderHandler(QueryHandlerProtocol[GetOrdersQuery, list[str]]):
        async def handle(self, query: GetOrdersQuery) -> list[str]: ...

    BACKEND = "sqlite"

    EventsModule.configure()  # in-memory defaults
    EventsModule.configure(EventsConfig(event_store_backend=BACKEND))  # production
    EventsModule.scope(CreateOrderHandler, GetOrderHandler)  # feature-scoped handlers
    EventsModule.stub()  # unit test stub
