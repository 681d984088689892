"""Feeds the saga manager from the log, with a checkpoint. Source: design, sections projections and sagas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.sagas.manager import SagaManager


class SagaFollower(DurableProjection):
    """Stores, in the transaction that moves its checkpoint, what each event means to the sagas; runs them after it.

    It reads the whole log in order, undivided: the event that starts a saga may be in another stream than the next.
    """

    needs_whole_order = True
    defers = True

    def __init__(self, manager: SagaManager, name: str) -> None:
        super().__init__()
        self._manager = manager
        self._name = name

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._name

    @property
    def handles(self) -> tuple[type[Any], ...]:
        """The events that start or continue a registered saga."""
        return self._manager.wanted_events()

    async def apply(self, event: Any) -> None:
        """Store new and changed sagas; their steps run once this is committed."""
        to_run = await self._manager.accept(event)
        unit = current_unit_of_work()
        if unit is None:
            self._manager.run_in_background(to_run)
        else:
            unit.on_commit(lambda: self._manager.run_in_background(to_run))

    async def reset(self) -> None:
        """Forget the position only: sagas that were started stay, and events they have handled have no new effect."""
        await ProjectionProtocol.reset(self)
