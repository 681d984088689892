"""Base classes of handlers; their type argument says what they handle. Source: spec/api-reference.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from lexigram.contracts.core.result import Result
from lexigram.contracts.exceptions.events import EventError

TCommand = TypeVar("TCommand")
TQuery = TypeVar("TQuery")
TEvent = TypeVar("TEvent")
TResult = TypeVar("TResult")


class CommandHandlerProtocol(ABC, Generic[TCommand, TResult]):
    """Handles one command class: `class CreateOrderHandler(CommandHandlerProtocol[CreateOrder, UUID])`."""

    @abstractmethod
    async def handle(self, command: TCommand) -> TResult:
        """Handle the command and return its result."""


class QueryHandlerProtocol(ABC, Generic[TQuery, TResult]):
    """Handles one query class; it changes nothing."""

    @abstractmethod
    async def handle(self, query: TQuery) -> TResult:
        """Return the answer."""


class EventHandlerProtocol(ABC, Generic[TEvent]):
    """Handles events of one class and its subclasses."""

    @abstractmethod
    async def handle(self, event: TEvent) -> Result[None, EventError] | None:
        """Handle the event; raising or returning `Err` means that it failed."""


class MultiEventHandlerProtocol(ABC):
    """Handles events of several classes."""

    @abstractmethod
    def handles(self) -> list[type]:
        """Return the event classes. Asked before the handler is built, so it must not need the handler's state."""

    @abstractmethod
    async def handle(self, event: Any) -> Result[None, EventError] | None:
        """Handle the event; raising or returning `Err` means that it failed."""
