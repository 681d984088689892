"""The container as sagas see it: services by name or by type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lexigram.events.di.injection import no_module, run_now
from lexigram.events.exceptions import SagaError

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerResolverProtocol

__all__ = ["ContainerServices"]

_ROLES = ("_protocol", "_impl", "_service")


class ContainerServices:
    """What `SagaContext.services` reads: `ctx.services.inventory`, `await ctx.services[Inventory]`.

    A name is that of a named registration, or that of a registered class in snake case, with or without its ending
    `Service`, `Impl` or `Protocol`: `InventoryService` is `inventory_service` and `inventory`.

    Args:
        container: The application's container.
    """

    def __init__(self, container: ContainerResolverProtocol) -> None:
        self._container = container

    async def resolve(self, service_type: type[Any]) -> Any:
        """Return the service registered for a type."""
        with no_module():
            return await self._container.resolve(service_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        keys = self._keys(name)
        if not keys:
            raise AttributeError(f"nothing is registered as {name!r}")
        found = {id(service): service for service in (self._now(key, name) for key in keys)}
        if len(found) > 1:
            shown = ", ".join(sorted(getattr(key, "__qualname__", str(key)) for key in keys))
            raise SagaError(f"The service name {name!r} fits several registrations ({shown}); use services[Type]")
        return next(iter(found.values()))

    def _keys(self, name: str) -> list[Any]:
        """Return the registrations that the name means: the named one, else those whose class name fits best."""
        if self._container.has(name):
            return [name]
        # The framework has no public way to list registrations as types.
        registry = getattr(self._container, "_registry", None)
        types = [] if registry is None else [entry.service_type for entry in registry.all()]
        ranked: dict[int, list[Any]] = {}
        for service_type in types:
            if isinstance(service_type, type) and name in (names := _names(service_type)):
                ranked.setdefault(names.index(name), []).append(service_type)
        return ranked[min(ranked)] if ranked else []

    def _now(self, key: Any, name: str) -> Any:
        try:
            with no_module():
                return run_now(self._container.resolve(key))
        except RuntimeError as error:
            shown = getattr(key, "__qualname__", key)
            raise SagaError(f"The service {name!r} cannot be made at once; use await services[{shown}]") from error


def _names(service_type: type[Any]) -> list[str]:
    """Return the names of a class, the longest first."""
    names = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", service_type.__name__).lower()]
    while ending := next((role for role in _ROLES if names[-1].endswith(role)), None):
        names.append(names[-1].removesuffix(ending))
    return names
