"""The module in a real application: boot, use, shut down, with memory and SQLite."""

from __future__ import annotations

import asyncio
import logging
import sys
import textwrap
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from lexigram import Application
from lexigram.config import LexigramConfig
from lexigram.contracts.core import ProviderPriority
from lexigram.contracts.core.hooks import HookRegistryProtocol
from lexigram.contracts.events.protocols.cqrs import CommandBusProtocol, QueryBusProtocol
from lexigram.contracts.events.protocols.domain import DomainEventPublisherProtocol, EventBusProtocol
from lexigram.contracts.events.protocols.projection import ProjectionProtocol
from lexigram.contracts.events.protocols.store import EventReplayProtocol, EventStoreProtocol, SnapshotStoreProtocol
from lexigram.contracts.workflow.protocols import SagaManagerProtocol
from lexigram.di.module import DynamicModule, Module, module
from lexigram.di.provider import Provider
from lexigram.events import (
    AbstractEventStore,
    AbstractSnapshotStore,
    AggregateRoot,
    Command,
    CommandBus,
    CommandBusImpl,
    CommandHandlerProtocol,
    DomainEvent,
    EventBus,
    EventBusImpl,
    EventHandledHook,
    EventHandlerProtocol,
    EventPublishedHook,
    EventsConfig,
    EventsModule,
    EventSourcingRepository,
    EventsProvider,
    EventStoredHook,
    EventValidationError,
    HandlerRegistry,
    ProjectionManager,
    Query,
    QueryBusImpl,
    QueryHandlerProtocol,
    SagaBase,
    SagaContext,
    SagaManager,
    SagaStepResult,
    SnapshotManager,
    command_handler,
    event_handler,
    projection,
    saga,
    saga_step,
)
from lexigram.events.di.sub_providers.store_provider import StoreSubProvider
from lexigram.hooks import HookRegistry

pytestmark = pytest.mark.usefixtures("own_handlers")

BACKENDS = ["memory", "sqlite"]


class OrderPlaced(DomainEvent):
    order_id: str
    total: int


class Order(AggregateRoot):
    total: int = 0

    def place(self, total: int) -> None:
        self._apply(OrderPlaced(order_id=str(self.id), total=total))

    def _handle_order_placed(self, event: OrderPlaced) -> None:
        self.total = event.total


class PlaceOrder(Command):
    order_id: str
    total: int


class GetTotal(Query[int]):
    order_id: str


class Ledger:
    """A service of the application that handlers inject."""

    def __init__(self) -> None:
        self.entries: list[str] = []


class PlaceOrderHandler(CommandHandlerProtocol[PlaceOrder, int]):
    def __init__(self, orders: EventSourcingRepository[Order], ledger: Ledger) -> None:
        self.orders, self.ledger = orders, ledger

    async def handle(self, command: PlaceOrder) -> int:
        order = await self.orders.get(command.order_id) or Order(id=command.order_id)
        order.place(command.total)
        await self.orders.save(order)
        self.ledger.entries.append(f"placed {command.order_id}")
        return order.version


class GetTotalHandler(QueryHandlerProtocol[GetTotal, int]):
    def __init__(self, orders: EventSourcingRepository[Order]) -> None:
        self.orders = orders

    async def handle(self, query: GetTotal) -> int:
        return (await self.orders.get_or_raise(query.order_id)).total


class NotifyHandler(EventHandlerProtocol[OrderPlaced]):
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def handle(self, event: OrderPlaced) -> None:
        self.ledger.entries.append(f"notified {event.order_id}")


class LedgerProvider(Provider):
    """Boots after the events provider, as application providers do."""

    name = "ledger"
    priority = ProviderPriority.DOMAIN

    async def register(self, container: Any) -> None:
        container.singleton(Ledger, Ledger())


@module(providers=[LedgerProvider], exports=[Ledger])
class LedgerModule(Module):
    """The application's own module."""


def settings(backend: str, folder: Path) -> EventsConfig:
    return EventsConfig(event_store={"backend": backend}, sqlite={"database": str(folder / "events.db")})


def orders_app(config: EventsConfig | None, *, stub: bool = False) -> type:
    """Return an application module with the order feature."""
    events = EventsModule.stub(config) if stub else EventsModule.configure(config)
    feature = EventsModule.scope(PlaceOrderHandler, GetTotalHandler, NotifyHandler)

    @module(imports=[events, feature, LedgerModule])
    class AppModule(Module):
        pass

    return AppModule


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No application.yaml and no events.db of the checkout is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_command_goes_all_the_way(backend: str, tmp_path: Path) -> None:
    """Command, aggregate, store, event handler and query work together, with everything injected."""
    async with Application.boot(modules=[orders_app(settings(backend, tmp_path))]) as app:
        commands = await app.container.resolve(CommandBus)
        assert await commands.dispatch(PlaceOrder(order_id="o1", total=7)) == 1
        assert await commands.dispatch(PlaceOrder(order_id="o1", total=9)) == 2
        queries = await app.container.resolve(QueryBusProtocol)
        assert await queries.execute(GetTotal(order_id="o1")) == 9
        await (await app.container.resolve(EventBusImpl)).flush()
        ledger = await app.container.resolve(Ledger)
        assert sorted(ledger.entries) == ["notified o1", "notified o1", "placed o1", "placed o1"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_contracts_and_classes_are_bound(backend: str, tmp_path: Path) -> None:
    """After boot every contract of the framework and every class of ours resolves to the same object."""
    pairs: list[tuple[type, ...]] = [
        (EventStoreProtocol, EventReplayProtocol, AbstractEventStore),
        (SnapshotStoreProtocol, AbstractSnapshotStore),
        (CommandBusProtocol, CommandBusImpl),
        (QueryBusProtocol, QueryBusImpl),
        (EventBusProtocol, EventBusImpl, DomainEventPublisherProtocol, EventBus),
        (SagaManagerProtocol, SagaManager),
        (ProjectionProtocol, ProjectionManager),
        (SnapshotManager,),
        (HandlerRegistry,),
        (EventsConfig,),
    ]
    async with Application.boot(modules=[EventsModule.configure(settings(backend, tmp_path))]) as app:
        for names in pairs:
            first = await app.container.resolve(names[0])
            for name in names:
                assert await app.container.resolve(name) is first
                if getattr(name, "_is_runtime_protocol", True):
                    assert isinstance(first, name)
        store = await app.container.resolve(EventStoreProtocol)
        assert await app.container.resolve(type(store)) is store
        assert backend in type(store).__name__.lower().replace("inmemory", "memory")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_all_stores_follow_the_backend(backend: str, tmp_path: Path) -> None:
    """Choosing a backend chooses it for events, snapshots, checkpoints, idempotency, dead letters and sagas."""
    stores = StoreSubProvider(settings(backend, tmp_path))
    await stores.setup()
    assert len({type(store) for store in stores.stores}) == 6
    prefix = {"memory": "InMemory", "sqlite": "Sql"}[backend]
    assert all(type(store).__name__.startswith(prefix) for store in stores.stores)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """What a SQLite application stored is there in the next one, snapshots and projections included."""
    config = settings("sqlite", tmp_path)
    config.snapshots.event_count_threshold = 2
    for expected in (1, 2, 3):
        async with Application.boot(modules=[orders_app(config)]) as app:
            commands = await app.container.resolve(CommandBus)
            assert await commands.dispatch(PlaceOrder(order_id="o1", total=expected)) == expected
    async with Application.boot(modules=[orders_app(config)]) as app:
        snapshots = await app.container.resolve(AbstractSnapshotStore)
        snapshot = await snapshots.get_latest("o1")
        assert snapshot is not None
        assert snapshot.version == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["events.db"]


async def test_the_configuration_comes_from_yaml_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`configure()` without arguments reads the application's section, and the environment overrides it."""
    (tmp_path / "application.yaml").write_text(
        "events:\n  event_store_backend: memory\n  sqlite: {path: '${EVENTS_FILE:unused.db}'}\n", encoding="utf-8"
    )
    monkeypatch.setenv("EVENTS_FILE", str(tmp_path / "from_env.db"))
    monkeypatch.setenv("LEX_EVENTS__EVENT_STORE__BACKEND", "sqlite")
    async with Application.boot(modules=[EventsModule.configure()]) as app:
        store = await app.container.resolve(AbstractEventStore)
        assert type(store).__name__ == "SqliteEventStore"
    assert (tmp_path / "from_env.db").exists()


async def test_the_applications_own_configuration_is_used() -> None:
    """A section in the `LexigramConfig` that an application is given in code counts."""
    config = LexigramConfig.from_dict({"events": {"command_bus": {"max_retries": 9}}})
    async with Application.boot(modules=[EventsModule.configure()], config=config) as app:
        assert (await app.container.resolve(EventsConfig)).command_bus.max_retries == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"event_store_backend": "postgres"}, "needs the section events.postgres"),
        ({"event_store_backend": "mongodb"}, "needs .*mongodb"),
        ({"event_store_backend": "redis"}, "needs the section events.redis"),
        ({"event_bus": {"backend": "kafka"}}, "event_bus.backend 'kafka' is not available"),
        ({"kafka": {"bootstrap_servers": "h"}}, "events.kafka is configured"),
    ],
)
async def test_a_backend_that_is_not_built_refuses_to_boot(values: dict[str, Any], message: str) -> None:
    """The backend that was asked for boots, or nothing does: never silently memory."""
    with pytest.raises(EventValidationError, match=message):
        async with Application.boot(modules=[EventsModule.configure(EventsConfig(**values))]):
            pass


@pytest.mark.parametrize("bad", [3, "memory", object()])
def test_configure_refuses_other_types(bad: Any) -> None:
    """The mistake is reported where it is made, not at boot."""
    with pytest.raises(EventValidationError, match="EventsConfig"):
        EventsModule.configure(bad)
    with pytest.raises(EventValidationError, match="handler_modules"):
        EventsModule.configure(None, "myapp.handlers")  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="is no handler"):
        EventsModule.scope(lambda event: None)


async def test_a_disabled_module_boots_and_binds_nothing() -> None:
    """`enabled: false` switches everything off, scoped handlers included."""
    async with Application.boot(modules=[orders_app(EventsConfig(enabled=False))]) as app:
        assert not app.container.has(EventStoreProtocol)
        assert (await app.startup_check()).status is not None
        provider = next(p for p in app.providers if isinstance(p, EventsProvider))
        assert (await provider.health_check()).message == "disabled"


async def test_the_stub_is_in_memory_and_ignores_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests do not depend on files and variables, whatever backend the configuration names."""
    monkeypatch.setenv("LEX_EVENTS__EVENT_STORE__BACKEND", "sqlite")
    async with Application.boot(modules=[orders_app(settings("sqlite", tmp_path), stub=True)]) as app:
        assert type(await app.container.resolve(AbstractEventStore)).__name__ == "InMemoryEventStore"
    async with Application.boot(modules=[EventsModule.stub()]) as app:
        assert type(await app.container.resolve(AbstractEventStore)).__name__ == "InMemoryEventStore"
    assert list(tmp_path.iterdir()) == []


async def test_one_declaration_boots_again_and_twice_at_once() -> None:
    """Every boot makes stores of its own: nothing is shared between applications."""
    app_module = orders_app(EventsConfig())
    async with (
        Application.boot(name="one", modules=[app_module]) as one,
        Application.boot(name="two", modules=[app_module]) as two,
    ):
        await (await one.container.resolve(CommandBus)).dispatch(PlaceOrder(order_id="o1", total=1))
        first = await one.container.resolve(AbstractEventStore)
        second = await two.container.resolve(AbstractEventStore)
        assert (await first.head(), await second.head()) == (1, 0)
    async with Application.boot(modules=[app_module]) as third:
        assert await (await third.container.resolve(AbstractEventStore)).head() == 0


async def test_a_failed_boot_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are closed again if a later part of the boot fails."""
    opened: list[StoreSubProvider] = []

    async def refuse(self: EventsProvider, container: Any) -> None:
        assert self._stores is not None
        opened.append(self._stores)
        raise RuntimeError("no handlers today")

    monkeypatch.setattr(EventsProvider, "_wire_optional", refuse)
    with pytest.raises(RuntimeError, match="no handlers today"):
        async with Application.boot(modules=[EventsModule.configure(settings("sqlite", tmp_path))]):
            pass
    assert opened[0]._opened == []


async def test_two_handlers_for_one_command_refuse_to_boot() -> None:
    """A command has exactly one handler; the second one stops the boot."""

    class Contested(Command):
        pass

    class First(CommandHandlerProtocol[Contested, None]):
        async def handle(self, command: Contested) -> None: ...

    class Second(CommandHandlerProtocol[Contested, None]):
        async def handle(self, command: Contested) -> None: ...

    from lexigram.events import DuplicateHandlerError

    with pytest.raises(DuplicateHandlerError):
        async with Application.boot(modules=[EventsModule.stub(), EventsModule.scope(First, Second)]):
            pass


HANDLERS = """
from lexigram.events import Command, command_handler, event_handler, DomainEvent, CommandHandlerProtocol

calls = []

class Ping(Command):
    pass

class Pong(Command):
    pass

class Rang(DomainEvent):
    pass

@command_handler(Ping)
async def ping(command: Ping) -> str:
    return "pong"

class PongHandler(CommandHandlerProtocol[Pong, str]):
    async def handle(self, command):
        return "ping"

@event_handler(Rang)
async def rang(event: Rang) -> None:
    calls.append(event)
"""


async def test_handler_modules_are_imported_and_found_twice_means_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules are imported and searched; what a decorator, a search and a scope find is registered once."""
    package = tmp_path / "boot_demo_handlers"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "orders.py").write_text(textwrap.dedent(HANDLERS), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    configured = EventsModule.configure(
        EventsConfig(), handler_modules=["boot_demo_handlers", "boot_demo_handlers.orders"]
    )
    async with Application.boot(modules=[configured]) as app:
        orders = sys.modules["boot_demo_handlers.orders"]
        commands = await app.container.resolve(CommandBusImpl)
        assert await commands.dispatch(orders.Ping()) == "pong"
        assert await commands.dispatch(orders.Pong()) == "ping"
        bus = await app.container.resolve(EventBusImpl)
        await bus.publish(orders.Rang())
        await bus.flush()
        assert len(orders.calls) == 1
    again = EventsModule.configure(EventsConfig(), handler_modules=["boot_demo_handlers"])
    scoped = EventsModule.scope(orders.ping, orders.PongHandler, orders.rang)
    async with Application.boot(modules=[again, scoped]) as app:
        bus = await app.container.resolve(EventBusImpl)
        await bus.publish(orders.Rang())
        await bus.flush()
        assert len(orders.calls) == 2


async def test_a_handler_class_without_its_method_is_refused() -> None:
    """A misspelt `handle` is found out where the class is named, not when its first message comes."""

    class Misspelt(CommandHandlerProtocol[Command, None]):
        async def handel(self, command: Command) -> None:
            pass

    with pytest.raises(EventValidationError, match="Misspelt cannot be built; it does not implement handle"):
        EventsModule.scope(Misspelt)


async def test_a_missing_handler_module_is_named() -> None:
    """A typo in `handler_modules` stops the boot with the name in the message."""
    with pytest.raises(Exception, match="no_such_handlers"):
        async with Application.boot(
            modules=[EventsModule.configure(EventsConfig(), handler_modules=["no_such_handlers"])]
        ):
            pass


class Welcomed(DomainEvent):
    user_id: str


@event_handler(Welcomed)
async def welcome(event: Welcomed, ledger: Ledger, commands: CommandBus) -> None:
    ledger.entries.append(f"welcome {event.user_id} via {type(commands).__name__}")


async def test_handler_functions_get_what_they_annotate() -> None:
    """The first parameter is the message, the others come from the container."""
    async with Application.boot(modules=[EventsModule.stub(), LedgerModule]) as app:
        bus = await app.container.resolve(EventBusImpl)
        await bus.publish([Welcomed(user_id="u1")])
        await bus.flush()
        assert bus.dispatch_errors == ()
        assert (await app.container.resolve(Ledger)).entries == ["welcome u1 via CommandBusImpl"]


async def test_handlers_are_resolved_lazily() -> None:
    """A handler whose dependency is missing does not stop the boot; its first message names what is missing."""
    async with Application.boot(modules=[EventsModule.stub(), EventsModule.scope(PlaceOrderHandler)]) as app:
        commands = await app.container.resolve(CommandBus)
        with pytest.raises(
            EventValidationError, match=r"PlaceOrderHandler: nothing can be injected .* 'ledger': Ledger"
        ):
            await commands.dispatch(PlaceOrder(order_id="o1", total=1))


class EagerProvider(Provider):
    """Dispatches while it boots, in the context of its own framework module."""

    name = "eager"
    priority = ProviderPriority.DOMAIN

    async def boot(self, container: Any) -> None:
        commands = await container.resolve(CommandBusProtocol)
        await commands.dispatch(PlaceOrder(order_id="eager", total=1))


async def test_commands_work_while_other_modules_boot() -> None:
    """Injection is not bound to the framework module that happens to be booting."""
    eager = type("EagerModule", (Module,), {})
    providers = DynamicModule(module=eager, providers=[EagerProvider])
    async with Application.boot(modules=[orders_app(EventsConfig()), providers]) as app:
        assert await (await app.container.resolve(AbstractEventStore)).head() == 1


@projection(name="boot_totals")
class Totals:
    """A decorated projection with an injected service."""

    handles = (OrderPlaced,)

    def __init__(self, events: EventBusProtocol) -> None:
        self.events = events
        self.totals: dict[str, int] = {}

    async def apply(self, event: OrderPlaced) -> None:
        self.totals[event.order_id] = event.total


class LateTotals:
    name = "late_totals"
    handles = (OrderPlaced,)

    def __init__(self) -> None:
        self.seen = 0

    async def apply(self, event: OrderPlaced) -> None:
        self.seen += 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_projections_start_with_the_application_or_at_once(backend: str, tmp_path: Path) -> None:
    """Registered before boot they start with it, registered later at once; all are listed with their state."""
    async with Application.boot(modules=[orders_app(settings(backend, tmp_path))]) as app:
        manager = await app.container.resolve(ProjectionManager)
        commands = await app.container.resolve(CommandBus)
        await commands.dispatch(PlaceOrder(order_id="o1", total=7))
        await manager.wait_for("boot_totals", 1, timeout=5)
        late = LateTotals()
        manager.register(late)
        await manager.wait_for("late_totals", 1, timeout=5)
        assert late.seen == 1
        states = {status["name"]: status["state"] for status in manager.list_status()}
        assert {"boot_totals", "late_totals"} <= set(states)
        assert states["late_totals"] in ("live", "running", "catching_up")


class Shipped(DomainEvent):
    order_id: str


@saga(name="boot_shipping")
class Shipping(SagaBase):
    """A saga whose steps use services of the application."""

    start_events = (Shipped,)

    def correlation_key(self, event: Any) -> str:
        return str(event.order_id)

    @saga_step
    async def book(self, ctx: SagaContext) -> SagaStepResult:
        ctx.services.ledger.entries.append(f"booked {ctx.data['order_id']}")
        return SagaStepResult.success(data={"booked": True})


class LateSaga(SagaBase):
    """A saga that an application registers while it runs."""

    name = "boot_late"
    start_events = (OrderPlaced,)

    def correlation_key(self, event: Any) -> str:
        return str(event.order_id)

    @saga_step
    async def note(self, ctx: SagaContext) -> None:
        ctx.services.ledger.entries.append("late")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_sagas_use_the_container_and_react_to_the_log(backend: str, tmp_path: Path) -> None:
    """`ctx.services` is the container; stored events start sagas, those registered later included."""
    async with Application.boot(modules=[orders_app(settings(backend, tmp_path))]) as app:
        store = await app.container.resolve(AbstractEventStore)
        manager = await app.container.resolve(SagaManager)
        ledger = await app.container.resolve(Ledger)
        await store.append("shipping", [Shipped(order_id="o1")])
        async with asyncio.timeout(5):
            while "booked o1" not in ledger.entries:
                await asyncio.sleep(0.01)
        manager.register(LateSaga)
        await store.append("o2", [OrderPlaced(order_id="o2", total=1)])
        async with asyncio.timeout(5):
            while "late" not in ledger.entries:
                await asyncio.sleep(0.01)
        assert {"boot_shipping", "boot_late"} <= set(manager.saga_names)


async def test_a_process_without_projections_still_runs_sagas(tmp_path: Path) -> None:
    """`projection.enabled: false` starts no projections; sagas follow the log all the same, and the other way round."""
    config = settings("memory", tmp_path).model_copy(update={"projection": {"enabled": False}})
    async with Application.boot(modules=[orders_app(config)]) as app:
        store = await app.container.resolve(AbstractEventStore)
        ledger = await app.container.resolve(Ledger)
        await store.append("shipping", [Shipped(order_id="o1")])
        async with asyncio.timeout(5):
            while "booked o1" not in ledger.entries:
                await asyncio.sleep(0.01)
        assert (await app.container.resolve(ProjectionManager)).get_all() == []
    config = settings("memory", tmp_path).model_copy(update={"saga": {"enabled": False}})
    async with Application.boot(modules=[orders_app(config)]) as app:
        assert (await app.container.resolve(SagaManager)).saga_names == []
        assert (await app.container.resolve(ProjectionManager)).get("boot_totals") is not None


class OrderService:
    """A service of the application that is registered as a class."""

    def __init__(self, orders: EventSourcingRepository[Order], commands: CommandBus) -> None:
        self.orders, self.commands = orders, commands


class OrderServiceProvider(Provider):
    name = "order-service"
    priority = ProviderPriority.DOMAIN

    async def register(self, container: Any) -> None:
        container.singleton(OrderService, OrderService)


async def test_registered_classes_may_depend_on_repositories() -> None:
    """The framework's check of the dependency graph accepts repositories that nobody registered."""
    async with Application.boot(modules=[EventsModule.stub()], providers=[OrderServiceProvider()]) as app:
        service = await app.container.resolve(OrderService)
        assert service.orders.aggregate_type is Order
        order = Order(id="o1")
        order.place(3)
        await service.orders.save(order)
        assert await service.orders.exists("o1")


class SlowHandler(EventHandlerProtocol[Welcomed]):
    done: list[str] = []

    async def handle(self, event: Welcomed) -> None:
        await asyncio.sleep(0.2)
        self.done.append(event.user_id)


async def test_shutdown_drains_the_bus() -> None:
    """Events accepted before shutdown are handled before the stores close."""
    SlowHandler.done.clear()
    async with Application.boot(modules=[EventsModule.stub(), EventsModule.scope(SlowHandler), LedgerModule]) as app:
        bus = await app.container.resolve(EventBusImpl)
        await bus.publish(Welcomed(user_id="u1"))
    assert SlowHandler.done == ["u1"]


async def test_shutdown_reports_what_is_left(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler that outlasts the deadline is named in a warning, and the application still stops."""

    class Endless(EventHandlerProtocol[Welcomed]):
        async def handle(self, event: Welcomed) -> None:
            await asyncio.sleep(60)

    config = EventsConfig(event_bus={"shutdown_timeout_seconds": 0.1})
    async with asyncio.timeout(10):
        async with Application.boot(
            modules=[EventsModule.stub(config), EventsModule.scope(Endless), LedgerModule]
        ) as app:
            bus = await app.container.resolve(EventBusImpl)
            await bus.publish(Welcomed(user_id="u1"))
            await asyncio.sleep(0.05)
    shown = capsys.readouterr()
    assert "events.shutdown.unfinished" in shown.out + shown.err + caplog.text


@pytest.mark.parametrize("backend", BACKENDS)
async def test_health_covers_stores_and_buses(backend: str, tmp_path: Path) -> None:
    """The provider's health is the worst of its parts, each of them in the details."""
    async with Application.boot(modules=[EventsModule.configure(settings(backend, tmp_path))]) as app:
        provider = next(p for p in app.providers if isinstance(p, EventsProvider))
        health = await provider.health_check()
        assert health.status == "healthy"
        assert health.details is not None
        assert {"event_store", "CommandBusImpl", "QueryBusImpl", "EventBusImpl"} <= set(health.details)
        await provider.event_bus.close()
        assert (await provider.health_check()).status == "unhealthy"


async def test_hooks_of_the_application_are_fired() -> None:
    """A hook registry in the container gets the hooks of bus and store; without one nothing happens."""
    fired: list[type] = []
    registry = HookRegistry()

    class HooksProvider(Provider):
        name = "test-hooks"
        priority = ProviderPriority.CRITICAL

        async def register(self, container: Any) -> None:
            if not container.has(HookRegistryProtocol):
                container.singleton(HookRegistryProtocol, registry)

    hooks = (EventPublishedHook, EventHandledHook, EventStoredHook)
    for hook in hooks:
        registry.register_action(hook.name, lambda payload: fired.append(type(payload)))
    async with Application.boot(modules=[orders_app(EventsConfig())], providers=[HooksProvider()]) as app:
        await (await app.container.resolve(CommandBus)).dispatch(PlaceOrder(order_id="o1", total=1))
        await (await app.container.resolve(EventBusImpl)).flush()
    assert set(fired) == set(hooks)


async def test_booting_and_using_is_quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """At the framework's default level this package says nothing when all goes well."""
    caplog.set_level(logging.INFO)
    async with Application.boot(modules=[orders_app(EventsConfig())]) as app:
        await (await app.container.resolve(CommandBus)).dispatch(PlaceOrder(order_id="o1", total=1))
        await (await app.container.resolve(EventBusImpl)).flush()
    shown = capsys.readouterr()
    lines = (shown.out + shown.err + caplog.text).splitlines()
    assert [line for line in lines if "lexigram.events" in line or "PlaceOrder" in line] == []


def test_provider_attributes() -> None:
    """Name, section and priority are those of the documents."""
    provider = EventsProvider.from_config(EventsConfig(debug=True), handler_modules=["a.b"], container=None)
    assert (provider.name, provider.config_key) == ("events", "events")
    assert provider.priority is ProviderPriority.INFRASTRUCTURE
    assert provider.config.debug
    provider.config = {"event_store": {"backend": "sqlite"}}
    assert provider.config.event_store_backend == "sqlite"
    with pytest.raises(Exception, match="is not booted yet"):
        _ = provider.event_store
    for wrong in (5, EventsConfig().event_bus):
        with pytest.raises(EventValidationError, match="config must be an EventsConfig"):
            EventsProvider(wrong)  # type: ignore[arg-type]
        with pytest.raises(EventValidationError, match="config must be an EventsConfig"):
            provider.config = wrong  # type: ignore[assignment]
    with pytest.raises(EventValidationError, match="handler_modules must be a list"):
        EventsProvider(handler_modules="a.b")  # type: ignore[arg-type]


async def test_ids_keep_their_type_through_the_container() -> None:
    """A repository from the container returns aggregates with the id it was asked for."""
    async with Application.boot(modules=[EventsModule.stub()]) as app:
        orders = await app.container.resolve(EventSourcingRepository[Order])
        order = Order(id=uuid4())
        order.place(3)
        await orders.save(order)
        loaded = await orders.get(order.id)
        assert loaded is not None
        assert isinstance(loaded.id, UUID)
        assert loaded.id == order.id


@command_handler(type("Unused", (Command,), {}))
async def unused(command: Command) -> None:
    """A decorated function of this module, loaded by every boot above."""
