"""Names that the documents' examples use without defining them: the smallest thing that fits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import Field

from lexigram.events import AggregateRoot, Command, DomainEvent, Query, ValueObject

OrderId = UUID
OrderDTO = dict
UserDTO = dict


class InvalidOperationError(Exception):
    """The example's own error."""


class OrderCreated(DomainEvent):
    order_id: str
    customer_id: str = "cust-123"


class OrderCreatedEvent(DomainEvent):
    order_id: str
    customer_email: str


class ItemAdded(DomainEvent):
    product_id: str
    quantity: int = 1


class ItemAddedEvent(DomainEvent):
    order_id: UUID | str
    product_id: str
    quantity: int
    price: Decimal


class OrderItem(ValueObject):
    product_id: str
    quantity: int
    price: Decimal


class UserCreatedEvent(DomainEvent):
    email: str


class CreateOrderCommand(Command[OrderId]):
    customer_id: str
    items: list[str]


class CreateUserCommand(Command[str]):
    username: str
    email: str


class GetOrdersByCustomerQuery(Query[list[OrderDTO]]):
    customer_id: str
    status: str


class GetOrdersQuery(Query[list[OrderDTO]]):
    customer_id: str
    status: str


class GetUserQuery(Query[UserDTO]):
    user_id: str


class Recorder:
    """Stands for a service: every method is asynchronous, notes its call and returns `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answer = answer

    def __getattr__(self, name: str) -> Any:
        async def method(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return self.answer

        return method


class CreatedOrder(AggregateRoot):
    """An `Order` with the factory method that one example calls."""

    customer_id: str = ""
    items: list[str] = Field(default_factory=list)

    @classmethod
    def create(cls, customer_id: str, items: list[str]) -> CreatedOrder:
        order = cls()
        order._apply(OrderCreated(order_id=str(order.id), customer_id=customer_id))
        for item in items:
            order._apply(ItemAdded(product_id=item))
        return order

    def _handle_order_created(self, event: OrderCreated) -> None:
        self.customer_id = event.customer_id

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.items.append(event.product_id)
