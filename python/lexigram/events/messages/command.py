"""Commands. Temporary pure-Python base until the Rust message object lands."""

from __future__ import annotations

import dataclasses as dc
from typing import Any, Self, dataclass_transform
from uuid import UUID

from lexigram.contracts.events.messages import Command as ContractCommand
from lexigram.contracts.events.messages import IdempotentCommand as ContractIdempotentCommand
from lexigram.contracts.events.messages import TResult


def construct(self: Any, base: set[str], kw: dict[str, Any]) -> None:
    cls = type(self)
    missing = []
    for n, f in cls.__dataclass_fields__.items():
        if n in kw:
            object.__setattr__(self, n, kw.pop(n))
        elif f.default is not dc.MISSING:
            object.__setattr__(self, n, f.default)
        elif f.default_factory is not dc.MISSING:
            object.__setattr__(self, n, f.default_factory())
        else:
            missing.append(n)
    if missing:
        raise TypeError(f"{cls.__name__}() missing required keyword arguments: {missing}")
    if kw:
        raise TypeError(f"{cls.__name__}() got unexpected keyword arguments: {list(kw)}")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dc.field, dc.Field))
class _Typed:
    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if "__dataclass_params__" in cls.__dict__ or not hasattr(cls, "__dataclass_fields__"):
            return
        dc.dataclass(init=False, frozen=True, eq=True)(cls)


class Command(_Typed, ContractCommand[TResult]):
    def __init__(self, **kw: Any) -> None:
        construct(self, set(), kw)

    @property
    def target_aggregate_id(self) -> UUID | None:
        return self.metadata.custom.get("target_aggregate_id")

    @property
    def expected_version(self) -> int | None:
        return self.metadata.custom.get("expected_version")

    def for_aggregate(self, aggregate_id: UUID, version: int | None = None) -> Self:
        m = self.metadata.with_custom("target_aggregate_id", aggregate_id).with_custom("expected_version", version)
        return dc.replace(self, metadata=m)


class IdempotentCommand(Command[TResult], ContractIdempotentCommand[TResult]):
    idempotency_key: str | None = None
