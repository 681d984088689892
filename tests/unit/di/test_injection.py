"""Handlers get what they annotate from the container, lazily and with clear errors."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from lexigram.di.container import Container
from lexigram.di.markers import Named
from lexigram.events.di.injection import Injector, run_now
from lexigram.events.di.services import ContainerServices
from lexigram.events.exceptions import EventValidationError, SagaError
from lexigram.logging import get_logger

logger = get_logger(__name__)


class Mailer:
    """A service of the application."""

    def __init__(self, sender: str = "noreply") -> None:
        self.sender = sender


class Clock:
    """A service that is made anew each time."""


class InventoryService:
    """A service that sagas call `inventory`."""

    def __init__(self) -> None:
        self.reserved: list[str] = []


class WelcomeHandler:
    def __init__(self, mailer: Mailer, clock: Clock | None, retries: int = 3) -> None:
        self.mailer, self.clock, self.retries = mailer, clock, retries

    async def handle(self, event: Any) -> None: ...


class PlainHandler:
    async def handle(self, event: Any) -> None: ...


class NeedsUnknown:
    def __init__(self, inventory: InventoryService) -> None: ...


class NeedsUnannotated:
    def __init__(self, inventory) -> None: ...  # type: ignore[no-untyped-def]


async def welcome(
    event: str, mailer: Mailer, *, clock: Clock | None = None, greeting: str = "hello"
) -> tuple[Any, ...]:
    return event, mailer, clock, greeting


async def tick(event: str, clock: Clock) -> Clock:
    return clock


async def named(event: str, mailer: Annotated[Mailer, Named("marketing")]) -> Mailer:
    return mailer


@pytest.fixture
def container() -> Container:
    container = Container()
    container.singleton(Mailer, Mailer())
    container.singleton(Mailer, Mailer("marketing"), name="marketing")
    container.transient(Clock, Clock)
    return container


async def test_a_handler_class_gets_its_constructor_arguments(container: Container) -> None:
    """Annotated parameters come from the container, defaults stay, the class itself is not registered."""
    handler = await Injector(container).handler(WelcomeHandler)
    assert handler.mailer is await container.resolve(Mailer)
    assert isinstance(handler.clock, Clock)
    assert handler.retries == 3
    assert isinstance(await Injector(container).handler(PlainHandler), PlainHandler)


async def test_an_unregistered_optional_parameter_is_none() -> None:
    """`X | None` without a default means None where nobody offers X."""
    container = Container()
    container.singleton(Mailer, Mailer())
    assert (await Injector(container).build(WelcomeHandler)).clock is None


async def test_a_registered_handler_is_resolved_by_the_container(container: Container) -> None:
    """Applications may build their handlers themselves."""
    own = PlainHandler()
    container.singleton(PlainHandler, own)
    assert await Injector(container).build(PlainHandler) is own


async def test_a_function_gets_what_follows_the_message(container: Container) -> None:
    """The first parameter is the message; the rest is injected, also by keyword."""
    call = await Injector(container).handler(welcome)
    event, mailer, clock, greeting = await call("registered")
    assert (event, mailer, greeting) == ("registered", await container.resolve(Mailer), "hello")
    assert isinstance(clock, Clock)


async def test_a_transient_service_is_new_for_every_message(container: Container) -> None:
    """What the container makes anew each time is not kept between messages."""
    call = await Injector(container).handler(tick)
    assert await call("a") is not await call("b")


async def test_annotated_names_are_honoured(container: Container) -> None:
    """`Annotated[X, Named("…")]` asks for the named registration."""
    assert (await (await Injector(container).handler(named))("x")).sender == "marketing"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (NeedsUnknown, r"NeedsUnknown: nothing can be injected for parameter 'inventory': InventoryService"),
        (NeedsUnannotated, r"NeedsUnannotated: parameter 'inventory' has no annotation"),
    ],
)
async def test_a_missing_dependency_is_named(container: Container, target: type, message: str) -> None:
    """The error says who needs what and how to provide it."""
    with pytest.raises(EventValidationError, match=message) as caught:
        await Injector(container).build(target)
    assert caught.value.field == "inventory"


async def test_an_annotation_that_cannot_be_evaluated_is_named(container: Container) -> None:
    """Names that only a type checker sees cannot be injected."""

    async def handler(event: str, mailer: OnlyForTypeCheckers) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    with pytest.raises(EventValidationError, match="'OnlyForTypeCheckers' cannot be evaluated"):
        await Injector(container).handler(handler)


async def test_saga_services_are_found_by_name_and_type(container: Container) -> None:
    """`services.inventory` is `InventoryService`; named registrations and types work too."""
    container.singleton(InventoryService)
    services = ContainerServices(container)
    assert services.inventory is services.inventory_service
    assert services.inventory is await services.resolve(InventoryService)
    assert services.marketing.sender == "marketing"
    assert not hasattr(services, "billing")


async def test_an_ambiguous_service_name_is_refused(container: Container) -> None:
    """Two classes that fit equally well are named in the error."""
    other = type("Inventory_Service", (), {"__module__": __name__})
    container.singleton(InventoryService, InventoryService())
    container.singleton(other, other())
    with pytest.raises(SagaError, match="InventoryService, Inventory_Service"):
        _ = ContainerServices(container).inventory


async def test_a_service_that_has_to_wait_is_reported() -> None:
    """Attribute access cannot await; the error says what to write instead."""

    async def slow() -> InventoryService:
        await asyncio.sleep(0)
        return InventoryService()

    container = Container()
    container.singleton(InventoryService, factory=slow)
    with pytest.raises(SagaError, match=r"use await services\[InventoryService\]"):
        _ = ContainerServices(container).inventory


def test_run_now_returns_the_value_of_a_coroutine_that_never_waits() -> None:
    """The value of a coroutine without waiting is available at once."""

    async def value() -> int:
        return 7

    assert run_now(value()) == 7
