"""Sagas that steps of another saga run, and that are undone with it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lexigram.events.exceptions import SagaError
from lexigram.events.sagas.context import ChildNeeded
from lexigram.events.sagas.types import SagaRecord, SagaStatus, check_readable

if TYPE_CHECKING:
    from lexigram.events.sagas.engine import SagaEngine


class Children:
    """Starts, looks up and undoes the sagas that the steps of one saga have run.

    They are sagas of their own, with an id made of that of their parent and its step: each is started once, and goes on
    after a crash whether its parent does or not.
    """

    def __init__(self, engine: SagaEngine) -> None:
        self._engine = engine

    async def known(self, record: SagaRecord) -> dict[str, SagaRecord | None]:
        """Return the present state of all of them."""
        found = {child_id: await self._engine.store.load(child_id) for child_id in record.children}
        for child in found.values():
            if child is not None:
                check_readable(child)
        return found

    def check(self, needed: ChildNeeded) -> None:
        """Raise if there is no saga of this name.

        Raises:
            SagaError: LEX_ERR_EVT_026; names the registered ones.
        """
        self._engine._definition(needed.saga_name)

    async def start(self, parent: SagaRecord, needed: ChildNeeded) -> bool:
        """Start one unless it was started before; return whether its end is still to come."""
        await self._engine.start(
            needed.saga_name, needed.data, needed.saga_id, wait=False, metadata={"parent": parent.saga_id}
        )
        child = await self._engine.store.load(needed.saga_id)
        return child is None or child.status.is_unfinished

    async def undo(self, parent: SagaRecord, keep: Collection[str]) -> str | None:
        """Undo the last one that is not undone; return its id, or None when none is left.

        Args:
            keep: Names of the steps that are undone later, and with them what they have run.

        Raises:
            SagaError: LEX_ERR_EVT_026; it cannot be undone without an operator.
        """
        for child_id, step in reversed(parent.children.items()):
            child = None if step in keep else await self._engine.store.load(child_id)
            if child is None or _is_undone(child):
                continue
            if child.status is SagaStatus.COMPENSATION_FAILED:
                raise SagaError(f"Saga {child_id!r} could not be undone: {child.error}; retry it first, then this one")
            if child.status is not SagaStatus.COMPENSATING:
                await self._engine.turn_back(child_id, f"undone with {parent.saga_id}")
            return child_id
        return None


def _is_undone(child: SagaRecord) -> bool:
    return child.status.is_terminal and (child.status is not SagaStatus.COMPLETED or child.reason == "forced")
