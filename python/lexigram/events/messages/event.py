"""Events: facts that happened. Temporary pure-Python base until the Rust event object lands."""

from __future__ import annotations

import dataclasses as dc
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform, get_origin
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent

META: dict[str, Any] = {
    "event_id": None, "occurred_at": None, "event_type": None, "aggregate_id": None, "aggregate_type": None,
    "sequence_number": None, "actor_id": None, "schema_version": 1, "version": 0, "correlation_id": None,
    "causation_id": None, "tags": (), "metadata": {},
}  # fmt: skip


def new_id() -> UUID:
    ms = time.time_ns() // 1_000_000
    r = int.from_bytes(os.urandom(10), "big")
    return UUID(int=(ms << 80) | (7 << 76) | ((r >> 68 & 0xFFF) << 64) | (2 << 62) | (r & (1 << 62) - 1))


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dc.field, dc.Field))
class _Typed:
    __slots__ = ()


class DomainEvent(_Typed, ContractEvent):
    version: int = 0
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}  # noqa: RUF012
    if not TYPE_CHECKING:

        def __init__(self, **kw: Any) -> None:
            cls, names = type(self), {}
            for b in reversed(cls.__mro__):
                if issubclass(b, DomainEvent) and b not in (DomainEvent, Event):
                    for n, a in b.__dict__.get("__annotations__", {}).items():
                        if "ClassVar" not in str(a):
                            names[n] = b.__dict__.get(n, dc.MISSING)
            put = object.__setattr__
            for n, d in META.items():
                v = kw.pop(n) if n in kw else names.pop(n, d) if n in names else getattr(cls, n, d)
                put(self, n, v)
            self.__dict__.setdefault("x", None)
            del self.__dict__["x"]
            if self.event_id is None:
                put(self, "event_id", new_id())
            if self.occurred_at is None:
                put(self, "occurred_at", datetime.now(UTC))
            if self.event_type is None:
                put(self, "event_type", cls.__name__)
            missing = []
            for n, d in names.items():
                if n in META:
                    continue
                if isinstance(d, dc.Field):
                    d = d.default if d.default is not dc.MISSING else d.default_factory() if d.default_factory is not dc.MISSING else dc.MISSING  # noqa: E501
                if n in kw:
                    put(self, n, kw.pop(n))
                elif d is dc.MISSING:
                    missing.append(n)
                else:
                    put(self, n, d)
            if missing:
                raise TypeError(f"{cls.__name__}() missing required keyword arguments: {missing}")
            if kw and cls is not Event:
                raise TypeError(f"{cls.__name__}() got unexpected keyword arguments: {list(kw)}")
            for n, v in kw.items():
                put(self, n, v)

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        fs = {n: f for b in cls.__mro__[-1:0:-1] for n, f in b.__dict__.get("__dataclass_fields__", {}).items()}
        for n, a in cls.__dict__.get("__annotations__", {}).items():
            if "ClassVar" in str(a):
                continue
            d = cls.__dict__.get(n, dc.MISSING)
            f = d if isinstance(d, dc.Field) else dc.field(default=d, kw_only=True)
            f.name, f.type, f._field_type = n, a, dc._FIELD  # type: ignore[attr-defined]
            fs[n] = f
        cls.__dataclass_fields__ = fs

    def _copy(self, **changes: Any) -> Self:
        new = object.__new__(type(self))
        for n, v in {**self.__dict__, **changes}.items():
            object.__setattr__(new, n, v)
        return new

    def __eq__(self, other: object) -> bool:
        skip = ("sequence_number", "version")
        return type(self) is type(other) and {k: v for k, v in self.__dict__.items() if k not in skip} == {
            k: v for k, v in other.__dict__.items() if k not in skip
        }

    def __hash__(self) -> int:
        return hash(self.event_id)

    def with_version(self, version: int) -> Self:
        return self._copy(version=version)

    def for_aggregate(self, aggregate_id: Any, aggregate_type: str) -> Self:
        return self._copy(aggregate_id=aggregate_id, aggregate_type=aggregate_type)

    def with_correlation_id(self, correlation_id: UUID) -> Self:
        return self._copy(correlation_id=correlation_id)

    def with_causation_id(self, causation_id: UUID) -> Self:
        return self._copy(causation_id=causation_id)

    def with_tags(self, *tags: str) -> Self:
        return self._copy(tags=tuple(dict.fromkeys((*self.tags, *tags))))

    def with_metadata(self, **values: Any) -> Self:
        return self._copy(metadata={**self.metadata, **values})


class Event(DomainEvent):
    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...


class IntegrationEvent(Event):
    source_service: str = ""
    destination_services: list[str] = dc.field(default_factory=list)


DomainEvent.__dataclass_fields__ = {**ContractEvent.__dataclass_fields__}
for _n in ("version", "correlation_id", "causation_id", "tags", "metadata"):
    _f = dc.field(default=META[_n] if _n != "metadata" else None, kw_only=True)
    _f.name, _f.type, _f._field_type = _n, "Any", dc._FIELD  # type: ignore[attr-defined]
    DomainEvent.__dataclass_fields__[_n] = _f
