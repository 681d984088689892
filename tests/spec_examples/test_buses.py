"""spec/api-reference.md, spec/guide-event-driven.md, spec/architecture.md: buses, handlers, middleware, messages."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from lexigram.contracts.events import EventMiddlewareProtocol
from lexigram.events import (
    AbstractMiddleware,
    Command,
    CommandBus,
    CommandBusImpl,
    CommandHandlerProtocol,
    DomainEvent,
    EventBusImpl,
    EventHandlerProtocol,
    EventSourcingRepository,
    HandlerRegistry,
    InMemoryEventStore,
    Message,
    NextHandler,
    PagedResult,
    QueryBusImpl,
    QueryHandlerProtocol,
    clear_handler_registry,
    command_handler,
    event_handler,
    query_handler,
)
from tests.spec_examples.shop import (
    CreatedOrder,
    CreateOrderCommand,
    CreateUserCommand,
    GetOrdersByCustomerQuery,
    GetOrdersQuery,
    GetUserQuery,
    OrderCreatedEvent,
    OrderDTO,
    OrderId,
    Recorder,
    UserCreatedEvent,
    UserDTO,
)

logger = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """The decorated handlers of one test are not seen by the next."""
    clear_handler_registry()
    yield
    clear_handler_registry()


@pytest.fixture
async def event_bus() -> AsyncIterator[EventBusImpl]:
    """An event bus, closed afterwards."""
    bus = EventBusImpl()
    yield bus
    await bus.close()


class Mailer:
    """A service that a handler needs."""


class OrderRepository(EventSourcingRepository[CreatedOrder]):
    """The repository that the example injects."""


async def test_command_bus_and_command_handler() -> None:
    """Section "CommandBusImpl" and "CommandHandlerProtocol", examples: the handler saves a new order and returns its id."""

    class CreateOrderHandler(CommandHandlerProtocol[CreateOrderCommand, OrderId]):
        def __init__(self, repository: OrderRepository):
            self.repository = repository

        async def handle(self, command: CreateOrderCommand) -> OrderId:
            order = CreatedOrder.create(customer_id=command.customer_id, items=command.items)
            await self.repository.save(order)
            return order.id

    repository = OrderRepository(CreatedOrder, InMemoryEventStore())
    bus = CommandBusImpl()
    bus.register(CreateOrderCommand, CreateOrderHandler(repository))

    # Commands are automatically routed to handlers
    result = await bus.dispatch(CreateOrderCommand(customer_id="cust-123", items=["p1", "p2"]))

    assert isinstance(result, UUID)
    order = await repository.get_or_raise(result)
    assert (order.customer_id, order.items) == ("cust-123", ["p1", "p2"])


async def test_query_bus_and_query_handler() -> None:
    """Section "QueryBusImpl" and "QueryHandlerProtocol", examples."""

    class GetOrdersHandler(QueryHandlerProtocol[GetOrdersQuery, list[OrderDTO]]):
        def __init__(self, read_model: Any):
            self.read_model = read_model

        async def handle(self, query: GetOrdersQuery) -> list[OrderDTO]:
            return await self.read_model.get_orders(customer_id=query.customer_id, status=query.status)

    handler = GetOrdersHandler(Recorder([{"id": "o1"}]))
    bus = QueryBusImpl()
    bus.register(GetOrdersQuery, handler)
    bus.register(GetOrdersByCustomerQuery, handler)

    # Queries are automatically routed to handlers
    orders = await bus.execute(GetOrdersByCustomerQuery(customer_id="cust-123", status="pending"))

    assert orders == [{"id": "o1"}]
    assert handler.read_model.calls == [("get_orders", (), {"customer_id": "cust-123", "status": "pending"})]


async def test_event_handler_class(event_bus: EventBusImpl) -> None:
    """Section "EventHandlerProtocol", example: a class with an injected service."""

    class SendOrderConfirmationHandler(EventHandlerProtocol[OrderCreatedEvent]):
        def __init__(self, email_service: Any):
            self.email_service = email_service

        async def handle(self, event: OrderCreatedEvent) -> None:
            await self.email_service.send_confirmation(order_id=event.order_id, customer_email=event.customer_email)

    email_service = Recorder()
    event_bus.subscribe(OrderCreatedEvent, SendOrderConfirmationHandler(email_service))
    await event_bus.publish(OrderCreatedEvent(order_id="o1", customer_email="ada@example.com"))
    await event_bus.flush()
    assert email_service.calls == [("send_confirmation", (), {"order_id": "o1", "customer_email": "ada@example.com"})]


async def test_handler_registry(event_bus: EventBusImpl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section "HandlerRegistry", example: discover a module, register with the buses."""
    module = ModuleType("app.handlers")
    source = """
from lexigram.events import command_handler
from tests.spec_examples.shop import CreateUserCommand

@command_handler(CreateUserCommand)
async def handle_create_user(command: CreateUserCommand) -> str:
    return "u1"
"""
    package = ModuleType("app")
    package.__path__ = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "app", package)
    monkeypatch.setitem(sys.modules, "app.handlers", module)
    exec(compile(source, "app/handlers.py", "exec"), module.__dict__)
    command_bus, query_bus = CommandBusImpl(), QueryBusImpl()

    # Create registry
    registry = HandlerRegistry()
    # Discover handlers from modules
    registry.discover("app.handlers")
    # Register with buses
    registry.register_with_buses(command_bus=command_bus, query_bus=query_bus, event_bus=event_bus)

    assert await command_bus.dispatch(CreateUserCommand(username="ada", email="ada@example.com")) == "u1"


async def test_handler_registry_with_a_container() -> None:
    """Section "HandlerRegistry", example, last line: the container can make the handlers."""
    from lexigram.di import Container

    class CreateUser(CommandHandlerProtocol[CreateUserCommand, str]):
        def __init__(self, mailer: Mailer) -> None:
            self.mailer = mailer

        async def handle(self, command: CreateUserCommand) -> str:
            return "u1"

    container = Container()
    container.singleton(Mailer, Mailer())
    registry = HandlerRegistry()
    registry.register_command_handler(CreateUserCommand, CreateUser)
    # Or use DI container for handler instantiation
    registry.register_with_container(container)
    handler = await container.resolve(CreateUser)
    assert handler.mailer is await container.resolve(Mailer)


async def test_handler_decorators(event_bus: EventBusImpl) -> None:
    """Section "command_handler", "event_handler", "query_handler", examples."""
    user_service = Recorder(type("User", (), {"user_id": "u1"})())
    email_service, user_repository = Recorder(), Recorder({"id": "u1"})

    @command_handler(CreateUserCommand)
    async def handle_create_user(command: CreateUserCommand) -> str:
        user = await user_service.create(command.username, command.email)
        return user.user_id

    @event_handler(UserCreatedEvent, priority=10)
    async def send_welcome_email(event: UserCreatedEvent) -> None:
        await email_service.send_welcome(event.email)

    @query_handler(GetUserQuery, cacheable=True, cache_ttl=300)
    async def handle_get_user(query: GetUserQuery) -> UserDTO:
        return await user_repository.get(query.user_id)

    command_bus, query_bus, registry = CommandBusImpl(), QueryBusImpl(), HandlerRegistry()
    registry.load_decorators()
    registry.register_with_buses(command_bus=command_bus, query_bus=query_bus, event_bus=event_bus)
    assert await command_bus.dispatch(CreateUserCommand(username="ada", email="ada@example.com")) == "u1"
    for _ in range(2):
        assert await query_bus.execute(GetUserQuery(user_id="u1")) == {"id": "u1"}
    await event_bus.publish(UserCreatedEvent(email="ada@example.com"))
    await event_bus.flush()
    assert user_service.calls == [("create", ("ada", "ada@example.com"), {})]
    assert email_service.calls == [("send_welcome", ("ada@example.com",), {})]
    assert len(user_repository.calls) == 1


async def test_abstract_middleware(caplog: pytest.LogCaptureFixture) -> None:
    """Section "AbstractMiddleware", example: timing a handler."""

    class TimingMiddleware(AbstractMiddleware[Message, Any]):
        async def __call__(self, message: Message, next_handler: NextHandler) -> Any:
            start = time.time()
            result = await next_handler(message)
            duration = time.time() - start
            logger.info("Handler took %.3fs", duration)
            return result

    bus = CommandBusImpl(middlewares=[TimingMiddleware()])
    bus.register(CreateUserCommand, Recorder("u1"))
    with caplog.at_level(logging.INFO, logger=__name__):
        assert await bus.dispatch(CreateUserCommand(username="ada", email="a@b")) == "u1"
    assert any("Handler took" in record.message for record in caplog.records)


async def test_audit_middleware() -> None:
    """spec/architecture.md, middleware example."""
    audited: list[DomainEvent] = []

    async def audit_log(event: DomainEvent) -> None:
        audited.append(event)

    class AuditMiddleware(EventMiddlewareProtocol):
        async def __call__(self, event, next_handler):
            await audit_log(event)
            return await next_handler(event)

    bus = EventBusImpl(middlewares=[AuditMiddleware()])
    handler = Recorder()
    bus.subscribe(UserCreatedEvent, handler)
    event = UserCreatedEvent(email="ada@example.com")
    await bus.publish(event)
    await bus.flush()
    await bus.close()
    assert audited == [event]
    assert len(handler.calls) == 1


async def test_paged_result(caplog: pytest.LogCaptureFixture) -> None:
    """Section "PagedResult", example."""
    result = PagedResult(items=[...], total=150, page=2, page_size=20)
    with caplog.at_level(logging.INFO, logger=__name__):
        logger.info(result.total_pages)  # 8
        logger.info(result.has_next)  # True
    assert [record.message for record in caplog.records] == ["8", "True"]


async def test_guide_commands() -> None:
    """spec/guide-event-driven.md, 2: a command and a controller with an injected bus."""

    class RegisterUser(Command):
        user_id: str
        email: str

    class RegistrationController:
        def __init__(self, commands: CommandBus) -> None:
            self._commands = commands

        async def register(self) -> None:
            await self._commands.dispatch(RegisterUser(user_id="u1", email="ada@example.com"))

    bus, handler = CommandBusImpl(), Recorder()
    bus.register(RegisterUser, handler)
    await RegistrationController(bus).register()
    ((_, (command,), _),) = handler.calls
    assert (command.user_id, command.email) == ("u1", "ada@example.com")
    assert isinstance(command, Command)
    assert isinstance(bus, CommandBus)


async def test_guide_events() -> None:
    """spec/guide-event-driven.md, 3: an event, a decorated handler, subscribing and publishing a list."""
    seen: list[DomainEvent] = []

    class UserRegistered(DomainEvent):
        user_id: str
        email: str

    @event_handler(UserRegistered)
    async def welcome_new_user(event: UserRegistered) -> None:
        # send email, create profile, …
        seen.append(event)

    bus = EventBusImpl()
    # Register a handler
    bus.subscribe(UserRegistered, welcome_new_user)
    # Publish events (e.g. an aggregate's pending events)
    await bus.publish([UserRegistered(user_id="u1", email="ada@example.com")])
    await bus.flush()
    await bus.close()
    assert seen == [seen[0]]
    assert (seen[0].user_id, seen[0].email) == ("u1", "ada@example.com")  # type: ignore[attr-defined]
