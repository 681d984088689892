"""Commands: intents to change state, handled by exactly one handler.

A class with annotations is a complete command: keyword-only, immutable, typed. Source: spec/reference-surface.md.
"""

from __future__ import annotations

import dataclasses as dc
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from lexigram.contracts.events.messages import Command as ContractCommand
from lexigram.contracts.events.messages import IdempotentCommand as ContractIdempotentCommand
from lexigram.contracts.events.messages import MessageMetadata
from lexigram.events import _core
from lexigram.events.messages.message import NativeMessage, metadata_fields

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    TResult = TypeVar("TResult", default=Any)  # so that `class Ship(Command)` is complete for type checkers
else:
    from lexigram.contracts.events.messages import TResult


class Command(NativeMessage, ContractCommand[TResult]):
    """An intent to change state; `TResult` is what its handler returns.

    Attributes:
        id: UUIDv7, made at construction.
        timestamp: Timezone-aware UTC time with microseconds.
        metadata: Correlation, causation, user, tenant, trace and custom keys; inherited from the message being handled.

    Raises:
        TypeError: A required field is missing or a keyword is unknown; the message names all of them.
    """

    if TYPE_CHECKING:
        id: UUID = dc.field(default_factory=_core.new_id, kw_only=True)
        timestamp: datetime = dc.field(default_factory=datetime.now, kw_only=True)
        metadata: MessageMetadata = dc.field(default_factory=MessageMetadata, kw_only=True)
    else:
        __metadata_fields__ = metadata_fields()

    @property
    def target_aggregate_id(self) -> UUID | None:
        """Id of the aggregate the command is for, as set by `for_aggregate`."""
        return self.metadata.custom.get("target_aggregate_id")

    @property
    def expected_version(self) -> int | None:
        """Version the aggregate must have, as set by `for_aggregate`."""
        return self.metadata.custom.get("expected_version")

    def for_aggregate(self, aggregate_id: UUID, version: int | None = None) -> Self:
        """Return a copy aimed at an aggregate.

        Args:
            aggregate_id: Its id.
            version: Version it should have, for the handler to check or give to `aggregate.set_expected_version`; None accepts
                any.
        """
        custom: dict[str, Any] = {"target_aggregate_id": aggregate_id}
        if version is not None:
            custom["expected_version"] = version
        return self.with_metadata(dc.replace(self.metadata, custom={**self.metadata.custom, **custom}))


class IdempotentCommand(Command[TResult], ContractIdempotentCommand[TResult]):
    """A command that may be sent again: under `@idempotent` its handler runs once per `idempotency_key`."""

    idempotency_key: str | None = None
