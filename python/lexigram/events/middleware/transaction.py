"""Runs handlers in transactions. Source: spec/reference-surface.md, `lexigram.events.middleware.transaction`."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from lexigram.contracts.core.result import Err
from lexigram.events.constants import TransactionPropagation
from lexigram.events.exceptions import EventValidationError
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler

_log = logging.getLogger(__name__)


class TransactionContext(ABC):
    """One transaction: `begin`, then either `commit` or `rollback`."""

    @abstractmethod
    async def begin(self) -> None:
        """Start the transaction."""

    @abstractmethod
    async def commit(self) -> None:
        """Make its changes permanent."""

    @abstractmethod
    async def rollback(self) -> None:
        """Undo its changes."""


class _Scope:
    """A transaction that is running; `open` turns False when it ends, whoever still sees it."""

    __slots__ = ("handle", "open")

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.open = True


class _RolledBackError(Exception):
    """Carries an `Err` result out of a transaction that is to be rolled back because of it."""


class TransactionMiddleware(AbstractMiddleware[Any, Any]):
    """Commits when the handler returns, rolls back when it raises, is cancelled, or returns `Err`.

    The current transaction is a context variable: concurrent messages never share one, while what a handler starts
    itself joins it as long as it is open.

    Args:
        context_factory: Makes a `TransactionContext` or an async context manager per transaction, for example a
            store's `unit_of_work`. Without one there is nothing to commit and only the scope is tracked.
        propagation: "required" joins the open transaction or starts one, "requires_new" always starts one,
            "supports" joins or runs without.
    """

    def __init__(
        self,
        context_factory: Callable[[], Any] | None = None,
        propagation: str = TransactionPropagation.REQUIRED,
    ) -> None:
        try:
            self._propagation = TransactionPropagation(propagation)
        except ValueError:
            known = ", ".join(TransactionPropagation)
            raise EventValidationError(
                f"propagation must be one of {known}, not {propagation!r}", field="propagation"
            ) from None
        self._factory = context_factory or _NothingToCommit
        self._current: ContextVar[_Scope | None] = ContextVar("lexigram_events_transaction", default=None)

    @property
    def current(self) -> Any | None:
        """What the factory's transaction gave on entering, inside of one; else None."""
        scope = self._current.get()
        return scope.handle if scope is not None and scope.open else None

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Handle the message in a transaction, by the propagation rule."""
        scope = self._current.get()
        joins = scope is not None and scope.open and self._propagation is not TransactionPropagation.REQUIRES_NEW
        if joins or self._propagation is TransactionPropagation.SUPPORTS:
            return await next_handler(message)
        result: Any = None
        try:
            async with self.transaction():
                result = await next_handler(message)
                if isinstance(result, Err):
                    raise _RolledBackError
        except _RolledBackError:
            pass
        return result

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Open a new transaction around a block and yield its handle."""
        async with _managed(self._factory) as handle:
            scope = _Scope(handle)
            token = self._current.set(scope)
            try:
                yield handle
            finally:
                scope.open = False
                try:
                    self._current.reset(token)
                except ValueError:  # closed by the collector in another context
                    _log.debug("transaction scope left in another context")


class UnitOfWorkMiddleware(AbstractMiddleware[Any, Any]):
    """Runs each handler in its own unit of work and commits it when the handler returns.

    Args:
        uow_factory: Makes an async context manager (its `commit()` is awaited before leaving, if it has one), or an
            object with `begin`, `commit` and `rollback`.
    """

    def __init__(self, uow_factory: Callable[[], Any]) -> None:
        self._factory = uow_factory

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Handle the message; any exception, cancellation included, or an `Err` rolls back."""
        result: Any = None
        try:
            async with _managed(self._factory) as unit:
                result = await next_handler(message)
                if isinstance(result, Err):
                    raise _RolledBackError
                commit = None if isinstance(unit, TransactionContext) else getattr(unit, "commit", None)
                if commit is not None:
                    done = commit()
                    if inspect.isawaitable(done):
                        await done
        except _RolledBackError:
            pass
        return result


class _NothingToCommit(TransactionContext):
    """The transaction of a middleware without a factory."""

    async def begin(self) -> None:
        """Nothing to start."""

    async def commit(self) -> None:
        """Nothing to commit."""

    async def rollback(self) -> None:
        """Nothing to undo."""


@asynccontextmanager
async def _managed(factory: Callable[[], Any]) -> AsyncIterator[Any]:
    """Enter what the factory makes, and leave it with commit or rollback."""
    made = factory()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager) or hasattr(made, "__aenter__"):
        async with made as handle:
            yield made if handle is None else handle
        return
    if not all(callable(getattr(made, name, None)) for name in ("begin", "commit", "rollback")):
        raise EventValidationError(
            f"{type(made).__name__} is neither an async context manager nor has begin, commit and rollback",
            field="context_factory",
        )
    await made.begin()
    try:
        yield made
        await made.commit()
    except BaseException:
        try:
            await made.rollback()
        except Exception:  # the first error is the one to see
            _log.warning("rollback failed", exc_info=True)
        raise
