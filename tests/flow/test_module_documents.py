"""The examples of the package page, the architecture page and the guide that concern the module, as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexigram import Application
from lexigram.di.module import Module, module
from lexigram.events import (
    Command,
    CommandBus,
    CommandHandlerProtocol,
    DomainEvent,
    EventBus,
    EventBusImpl,
    EventsConfig,
    EventsModule,
    EventsProvider,
    EventValidationError,
    PostgresEventStoreConfig,
    Query,
    QueryBus,
    QueryHandlerProtocol,
    event_handler,
)
from lexigram.events.types import EventStoreBackend

pytestmark = pytest.mark.usefixtures("own_handlers")

PACKAGE_PAGE_YAML = """
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

GUIDE_YAML = """
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


class RegisterUser(Command):
    user_id: str
    email: str


class RegistrationController:
    def __init__(self, commands: CommandBus) -> None:
        self._commands = commands

    async def register(self) -> None:
        await self._commands.dispatch(RegisterUser(user_id="u1", email="ada@example.com"))


class UserRegistered(DomainEvent):
    user_id: str
    email: str


welcomed: list[str] = []


@event_handler(UserRegistered)
async def welcome_new_user(event: UserRegistered) -> None:
    # send email, create profile, …
    welcomed.append(event.email)


class RegisterUserHandler(CommandHandlerProtocol[RegisterUser, None]):
    def __init__(self, events: EventBus) -> None:
        self.events = events

    async def handle(self, command: RegisterUser) -> None:
        await self.events.publish([UserRegistered(user_id=command.user_id, email=command.email)])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    welcomed.clear()


async def test_the_first_example_of_the_package_page_boots() -> None:
    """`@module(imports=[EventsModule.configure()])` and `Application.boot`."""

    @module(imports=[EventsModule.configure()])
    class AppModule(Module):
        pass

    async with Application.boot(modules=[AppModule]) as app:
        assert await app.container.resolve(CommandBus) is not None


async def test_the_stub_of_the_package_page_boots() -> None:
    """`async with Application.boot(modules=[EventsModule.stub()])`."""
    async with Application.boot(modules=[EventsModule.stub()]) as app:
        assert await app.container.resolve(QueryBus) is not None


async def test_the_guide_from_controller_to_subscriber() -> None:
    """A controller with an injected bus, a command, an event and a decorated subscriber, which is subscribed again."""
    scope = EventsModule.scope(RegisterUserHandler)
    async with Application.boot(modules=[EventsModule.configure(), scope]) as app:
        controller = RegistrationController(await app.container.resolve(CommandBus))
        await controller.register()
        bus = await app.container.resolve(EventBus)
        assert isinstance(bus, EventBusImpl)
        await bus.flush()
        assert welcomed == ["ada@example.com"]
        # Register a handler
        bus.subscribe(UserRegistered, welcome_new_user)
        # Publish events (e.g. an aggregate's pending events)
        await bus.publish([UserRegistered(user_id="u1", email="ada@example.com")])
        await bus.flush()
        assert welcomed == ["ada@example.com"] * 2


def test_the_yaml_of_the_package_page_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Option 1: every key arrives."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada@db/events")
    (tmp_path / "application.yaml").write_text(PACKAGE_PAGE_YAML, encoding="utf-8")
    config = EventsConfig.from_yaml()
    assert config.event_store_backend is EventStoreBackend.POSTGRES
    assert config.postgres is not None
    assert config.postgres.dsn is not None
    assert config.postgres.dsn.get_secret_value() == "postgresql://ada@db/events"
    assert (config.event_bus.backend, config.outbox.enabled, config.outbox.poll_interval) == ("redis", True, 5)
    assert config.redis is not None


def test_the_yaml_of_the_guide_is_understood(tmp_path: Path) -> None:
    """The guide's section, comment included."""
    (tmp_path / "application.yaml").write_text(GUIDE_YAML, encoding="utf-8")
    config = EventsConfig.from_yaml()
    assert config.event_bus.parallel_dispatch
    assert (config.command_bus.max_retries, config.command_bus.timeout_seconds) == (3, 30.0)


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("LEX_EVENTS__EVENT_STORE__BACKEND", "postgres", lambda c: c.event_store_backend),
        ("LEX_EVENTS__EVENT_BUS__BACKEND", "redis", lambda c: c.event_bus.backend),
        ("LEX_EVENTS__OUTBOX__ENABLED", "false", lambda c: str(c.outbox.enabled).lower()),
        ("LEX_EVENTS__OUTBOX__POLL_INTERVAL", "7.0", lambda c: str(c.outbox.poll_interval)),
        ("LEX_EVENTS__SAGAS__ENABLED", "false", lambda c: str(c.saga.enabled).lower()),
    ],
)
def test_the_variables_of_the_package_page_have_an_effect(
    variable: str, value: str, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option 2: every documented variable sets its field."""
    monkeypatch.setenv(variable, value)
    assert callable(read)
    assert read(EventsConfig.from_yaml()) == value


def test_the_code_of_the_package_page_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option 3: an `EventsConfig` made in code."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada@db/events")
    config = EventsConfig(
        event_store_backend=EventStoreBackend.POSTGRES,
        postgres=PostgresEventStoreConfig(connection_string="${DATABASE_URL}"),
        outbox_enabled=True,
    )
    EventsModule.configure(config)
    assert config.outbox.enabled


class CreateOrder(Command):
    order_id: str


class GetOrder(Query[str]):
    order_id: str


class CreateOrderHandler(CommandHandlerProtocol[CreateOrder, str]):
    async def handle(self, command: CreateOrder) -> str:
        return command.order_id


class GetOrderHandler(QueryHandlerProtocol[GetOrder, str]):
    async def handle(self, query: GetOrder) -> str:
        return query.order_id


async def test_configure_and_scope_live_in_one_module() -> None:
    """The api reference's feature module imports both."""

    @module(
        imports=[
            EventsModule.configure(EventsConfig(event_store_backend=EventStoreBackend.MEMORY)),
            EventsModule.scope(CreateOrderHandler, GetOrderHandler),
        ]
    )
    class OrderFeatureModule(Module):
        pass

    async with Application.boot(modules=[OrderFeatureModule]) as app:
        assert await (await app.container.resolve(CommandBus)).dispatch(CreateOrder(order_id="o1")) == "o1"
        assert await (await app.container.resolve(QueryBus)).execute(GetOrder(order_id="o1")) == "o1"


async def test_the_provider_can_be_added_to_an_application() -> None:
    """Providers are added directly, without a module, with a configuration or a mapping."""
    provider = EventsProvider({"event_store": {"backend": "memory"}})
    async with Application.boot(providers=[provider]) as app:
        assert await app.container.resolve(CommandBus) is provider.command_bus
        assert provider.query_bus is not None
        assert provider.event_store is not None
        assert provider.projection_manager is not None
        assert provider.saga_manager is not None
        assert provider.snapshot_manager is not None


def test_a_scope_without_the_module_is_refused() -> None:
    """Handlers alone have no bus; a class that does not say what it handles is refused at once."""

    class Silent:
        async def handle(self, message: object) -> None: ...

    with pytest.raises(EventValidationError, match="does not say what it handles"):
        EventsModule.scope(Silent)


async def test_a_scope_needs_configure() -> None:
    """The framework says which provider is missing."""
    with pytest.raises(Exception, match="depends on 'events'"):
        async with Application.boot(modules=[EventsModule.scope(CreateOrderHandler)]):
            pass
