"""The command bus. Source: spec/api-reference.md, `CommandBusImpl`."""

from __future__ import annotations

from typing import Any

from lexigram.events.buses._request import KNOWN_ERRORS, RequestBus
from lexigram.events.exceptions import CommandExecutionError
from lexigram.events.messages.context import enter_message, leave_message
from lexigram.events.messages.texts import words_of


class CommandBusImpl(RequestBus[Any, Any]):
    """Gives each command to its one handler and returns what that returns.

    Args:
        middlewares: Around every handler, the first one outermost.
        config: A `CommandBusConfig`; None means no retry and no timeout.
        handler_factory: Builds handler classes and injects further parameters of handler functions.
    """

    _kind = "command"
    _config_class = "CommandBusConfig"

    async def dispatch(self, command: Any) -> Any:
        """Run the command's handler in the caller's task and return its value.

        Messages made by the handler carry this command's correlation id, and its id as causation id.

        Raises:
            HandlerNotFoundError: Nobody handles the command (LEX_ERR_EVT_002).
            CommandExecutionError: The handler failed with an error outside of EventError, DomainError and
                InfrastructureError; it is the `__cause__` (LEX_ERR_EVT_005).
        """
        try:
            chain = self._chains[type(command)]
        except KeyError:
            raise self._missing(command) from None
        token = enter_message(command)
        try:
            return await chain(command)
        except KNOWN_ERRORS:
            raise
        except Exception as error:
            name, words = type(command).__name__, words_of(error)
            raise CommandExecutionError(
                f"{name} failed: {type(error).__name__}: {words}", command_type=name, error=words, cause=error
            ) from error
        finally:
            try:  # noqa: SIM105 - suppress() would cost as much as the dispatch
                leave_message(token)
            except ValueError:  # an abandoned call, closed by the collector in another context
                pass
