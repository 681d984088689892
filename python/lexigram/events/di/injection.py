"""Builds what the program declares (handlers, projections, sagas) with what it annotates, from the container."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from lexigram.contracts.exceptions import UnresolvableDependencyError
from lexigram.di.context import clear_module_context, set_module_context
from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerResolverProtocol

__all__ = ["Injector", "no_module", "run_now"]


class Injector:
    """Resolves the annotated parameters of classes and functions.

    Nothing has to be registered beforehand but the dependencies themselves. A class that the container knows is
    resolved by it; a parameter with a default is optional, and so is one annotated `X | None`.

    Args:
        container: The application's container.
    """

    def __init__(self, container: ContainerResolverProtocol) -> None:
        self._container = container

    async def handler(self, target: Any) -> Any:
        """Return a class as an instance, and a function as one that takes the message alone.

        Args:
            target: A handler class, or a function whose first parameter is the message.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. A parameter has no annotation, or nothing is registered for it.
        """
        if inspect.isclass(target):
            return await self.build(target)
        parameters = list(_parameters(target))[1:]
        fixed = {p.name: p for p in parameters if not self._per_call(target, p)}
        cached = await self._arguments(target, fixed.values())
        late = [p for p in parameters if p.name not in fixed]
        if not late:
            return functools.partial(target, **cached)

        @functools.wraps(target)
        async def call(message: Any) -> Any:
            result = target(message, **cached, **await self._arguments(target, late))
            return await result if inspect.isawaitable(result) else result

        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("message", inspect.Parameter.POSITIONAL_ONLY)]
        )
        return call

    async def build(self, cls: type[Any]) -> Any:
        """Return an instance of `cls`.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. A parameter has no annotation, or nothing is registered for it.
        """
        if self._container.has(cls):
            with no_module():
                return await self._container.resolve(cls)
        constructor = cls.__init__
        if constructor is object.__init__:
            return cls()
        return cls(**await self._arguments(constructor, list(_parameters(constructor))[1:], owner=cls))

    def _per_call(self, target: Any, parameter: inspect.Parameter) -> bool:
        """Return whether the container makes a new object each time, so that it must not be kept."""
        service = _service(_hints(target).get(parameter.name))
        is_singleton = getattr(self._container, "is_singleton", None)
        return self._container.has(service) and is_singleton is not None and not is_singleton(service)

    async def _arguments(
        self, function: Callable[..., Any], parameters: Iterable[inspect.Parameter], owner: type[Any] | None = None
    ) -> dict[str, Any]:
        name = f"{(owner or function).__module__}.{(owner or function).__qualname__}"
        hints = _hints(function, owner)
        found: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            hint = hints.get(parameter.name, parameter.empty)
            value = await self._resolved(hint, parameter, name)
            if value is not parameter.empty:
                found[parameter.name] = value
        return found

    async def _resolved(self, hint: Any, parameter: inspect.Parameter, name: str) -> Any:
        """Return the service for one parameter, or `parameter.empty` to leave its default."""
        optional = parameter.default is not parameter.empty
        if hint is parameter.empty or hint is Any:
            if optional:
                return parameter.empty
            raise EventValidationError(
                f"{name}: parameter {parameter.name!r} has no annotation, so nothing can be injected; annotate it",
                field=parameter.name,
            )
        service, nullable = _service(hint), _is_nullable(hint)
        known = self._container.has(service) or getattr(service, "__lexigram_inject__", False)
        if (optional or nullable) and not known:
            return parameter.empty if optional else None
        try:
            with no_module():
                return await self._container.resolve(service)
        except UnresolvableDependencyError as error:
            shown = getattr(service, "__name__", str(service))
            raise EventValidationError(
                f"{name}: nothing can be injected for parameter {parameter.name!r}: {shown} ({error.message}); "
                "register it in a provider of your application, or give the parameter a default",
                field=parameter.name,
            ) from error


@contextmanager
def no_module() -> Iterator[None]:
    """Resolve for the application, not for the framework module that happens to be booting in this context."""
    tokens = set_module_context(None, None)
    try:
        yield
    finally:
        clear_module_context(tokens)


def _parameters(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    return inspect.signature(function).parameters.values()


def _hints(function: Any, owner: type[Any] | None = None) -> dict[str, Any]:
    """Return the evaluated annotations, or raise naming the one that cannot be."""
    target = inspect.unwrap(function)
    local = dict(vars(inspect.getmodule(owner))) if owner is not None and inspect.getmodule(owner) else None
    try:
        return get_type_hints(target, localns=local, include_extras=True)
    except NameError as error:
        raise EventValidationError(
            f"{target.__module__}.{target.__qualname__}: annotation {error.name!r} cannot be evaluated; "
            "import it at the top of the module, not under TYPE_CHECKING",
            field=str(error.name),
        ) from error


def _service(hint: Any) -> Any:
    """Return what to ask the container for: `X | None` asks for X, `Annotated[X, Named("x")]` is kept."""
    if get_origin(hint) is Annotated:
        inner = get_args(hint)[0]
        return _service(inner) if _is_nullable(inner) else hint
    if get_origin(hint) in (Union, UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _is_nullable(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


def run_now(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that does not wait for anything, outside of the event loop.

    Raises:
        RuntimeError: It would have to wait.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise RuntimeError("it has to be awaited")
