"""Finds other seats for the passengers of a cancelled flight; if the group does not fit, everything is undone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from examples.flights.commands import ConfirmRebooking, OpenRebooking, RefundPassengers, ReleaseSeats, ReserveSeats
from examples.flights.events import FlightCancelled
from lexigram.events import ProjectionManager, SagaBase, SagaContext, SagaStepResult, saga_step
from lexigram.events.buses.command import CommandBusImpl

if TYPE_CHECKING:
    from examples.flights.app import Store

MAX_FLIGHTS = 4
"""A group is spread over at most so many flights."""


@dataclass(frozen=True)
class Desk:
    """What the saga works with."""

    store: Store
    projections: ProjectionManager
    bus: CommandBusImpl

    async def later_flights(self, route: str, day: date, departs: int) -> list[str]:
        """Return flights of a route with free seats that leave within a day and a half, those with most seats first."""
        rows = await self.store.engine.fetch_all(
            "SELECT flight FROM timetable WHERE route = ? AND free > 0 AND "
            "((day = ? AND departs > ?) OR day = ?) ORDER BY free DESC, day, departs, flight LIMIT ?",
            (route, day.isoformat(), departs, (day + timedelta(days=1)).isoformat(), MAX_FLIGHTS),
        )
        return [flight for (flight,) in rows]


class RebookPassengers(SagaBase):
    """Open a case, reserve seats, confirm; undone in reverse if somebody is left without a seat."""

    name = "rebook_passengers"
    start_events = (FlightCancelled,)
    timeout = 3600.0

    def correlation_key(self, event: FlightCancelled) -> str:
        return event.flight

    def start_data(self, event: FlightCancelled) -> dict[str, Any]:
        return {
            "flight": event.flight,
            "route": event.origin + event.destination,
            "day": event.day,
            "departs": event.departs,
            "passengers": event.passengers,
            "position": event.sequence_number,
        }

    async def refund(self, ctx: SagaContext) -> None:
        desk: Desk = ctx.services.desk
        await desk.bus.dispatch(RefundPassengers(flight=ctx.data["flight"], passengers=ctx.data["passengers"]))

    async def release_seats(self, ctx: SagaContext) -> None:
        desk: Desk = ctx.services.desk
        for flight, seats in ctx.step_results["reserve_seats"]["seats"].items():
            await desk.bus.dispatch(ReleaseSeats(flight=flight, seats=seats, coming_from=ctx.data["flight"]))

    @saga_step(compensation=refund)
    async def open_case(self, ctx: SagaContext) -> None:
        desk: Desk = ctx.services.desk
        await desk.bus.dispatch(OpenRebooking(flight=ctx.data["flight"]))

    @saga_step(compensation=release_seats)
    async def reserve_seats(self, ctx: SagaContext) -> SagaStepResult:
        desk: Desk = ctx.services.desk
        await desk.projections.wait_for("timetable", ctx.data["position"])
        found: dict[str, int] = {}
        missing = ctx.data["passengers"]
        for flight in await desk.later_flights(ctx.data["route"], ctx.data["day"], ctx.data["departs"]):
            command = ReserveSeats(flight=flight, seats=missing, coming_from=ctx.data["flight"])
            taken = await desk.bus.dispatch(command) if missing else 0
            if taken:
                found[flight] = taken
                missing -= taken
        return SagaStepResult.success(data={"seats": found, "missing": missing})

    @saga_step
    async def confirm(self, ctx: SagaContext) -> SagaStepResult:
        desk: Desk = ctx.services.desk
        seats, missing = ctx.step_results["reserve_seats"]["seats"], ctx.step_results["reserve_seats"]["missing"]
        if missing:
            return SagaStepResult.fail(f"{missing} of {ctx.data['passengers']} passengers have no seat")
        command = ConfirmRebooking(flight=ctx.data["flight"], passengers=ctx.data["passengers"], flights=len(seats))
        await desk.bus.dispatch(command)
        return SagaStepResult.Ok()
