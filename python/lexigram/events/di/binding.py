"""Binding of finished objects in a container."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol

__all__ = ["bind_all"]


def bind_all(container: ContainerRegistrarProtocol, bindings: Iterable[tuple[Any, Any]]) -> None:
    """Bind each object under its contract or class.

    The framework checks conformance of protocols. It takes a class that inherits from one for a protocol too, and
    would read properties that need an open connection, so classes are bound without the check.
    """
    for service_type, instance in bindings:
        container.singleton(service_type, instance, validate=service_type.__dict__.get("_is_protocol", False))
