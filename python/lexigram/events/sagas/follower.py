"""Feeds the saga manager from the log, with a checkpoint. Source: design, sections projections and sagas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.sagas.process import LATE, Place
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.sagas.manager import SagaManager


class SagaFollower(DurableProjection):
    """Stores, in the transaction that moves its checkpoint, what each event means to the sagas; runs them after it.

    It reads the whole log in order, undivided: the event that starts a saga may be in another stream than the next.
    """

    needs_whole_order = True
    needs_parked = True
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
        unit, number = current_unit_of_work(), event.sequence_number
        place = None if number is None else Place(self._name, number, self._is_exact(unit))
        self._run(await self._manager.accept(event, place), unit)

    async def handle_late(self, event: Any) -> None:
        """Apply an event that was parked: its position is one that the sagas are past, so its id decides."""
        self._run(await self._manager.accept(event, LATE), current_unit_of_work())

    def _is_exact(self, unit: Any) -> bool:
        """Return whether no event can be parked of which one of the sagas has kept something."""
        return not self.may_park or (unit is not None and self._manager.store.joins(unit))

    def _run(self, to_run: list[str], unit: Any) -> None:
        if unit is None:
            self._manager.run_in_background(to_run)
        else:
            unit.on_commit(lambda: self._manager.run_in_background(to_run))

    async def reset(self) -> None:
        """Forget the position only: sagas that were started stay, and what they have been handed has no new effect."""
        await ProjectionProtocol.reset(self)
