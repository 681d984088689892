"""The query bus. Source: spec/api-reference.md, `QueryBusImpl`."""

from __future__ import annotations

from typing import Any, TypeVar

from lexigram.contracts.events.messages import Query
from lexigram.events.buses._request import KNOWN_ERRORS, RequestBus
from lexigram.events.exceptions import QueryExecutionError
from lexigram.events.messages.context import enter_message, leave_message
from lexigram.events.messages.texts import words_of

TResult = TypeVar("TResult")


class QueryBusImpl(RequestBus[Any, Any]):
    """Gives each query to its one handler and returns what that returns.

    Args:
        middlewares: Around every handler, the first one outermost.
        config: A `QueryBusConfig`; None means no timeout. Queries are never retried unless a middleware does it.
        handler_factory: Builds handler classes and injects further parameters of handler functions.
    """

    _kind = "query"
    _config_class = "QueryBusConfig"

    async def execute(self, query: Query[TResult]) -> TResult:
        """Run the query's handler in the caller's task and return its value.

        Raises:
            HandlerNotFoundError: Nobody handles the query (LEX_ERR_EVT_002).
            QueryExecutionError: The handler failed with an error outside of EventError, DomainError and
                InfrastructureError; it is the `__cause__` (LEX_ERR_EVT_006).
        """
        try:
            chain = self._chains[type(query)]
        except KeyError:
            raise self._missing(query) from None
        token = enter_message(query)
        try:
            result: TResult = await chain(query)
        except KNOWN_ERRORS:
            raise
        except Exception as error:
            name, words = type(query).__name__, words_of(error)
            raise QueryExecutionError(
                f"{name} failed: {type(error).__name__}: {words}", query_type=name, error=words, cause=error
            ) from error
        finally:
            try:  # noqa: SIM105 - suppress() would cost as much as the dispatch
                leave_message(token)
            except ValueError:  # an abandoned call, closed by the collector in another context
                pass
        return result
