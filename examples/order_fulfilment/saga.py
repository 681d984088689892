"""Reserve stock, charge the card, ship; undone in reverse if the bank or the carrier refuses."""

from __future__ import annotations

from examples.order_fulfilment.events import (
    CardCharged,
    CardRefunded,
    OrderPlaced,
    OrderShipped,
    StockReleased,
    StockReserved,
)
from examples.order_fulfilment.outside import Outside
from lexigram.events import DomainEvent, SagaBase, SagaContext, saga_step

RETRIED = (ConnectionError, TimeoutError)
"""What may go better next time; `Refused` is not among them."""


class FulfilOrder(SagaBase):
    """One order, from the log to the customer's door.

    A step does one thing outside, under its idempotency key, and appends one event. The event and the saga's progress
    are one transaction. A kill between the two worlds repeats the call with the same key, and loses or doubles nothing.
    """

    name = "fulfil_order"
    start_events = (OrderPlaced,)
    timeout = 30 * 86_400.0  # whoever kills it may take a while to run it again

    def correlation_key(self, event: OrderPlaced) -> str:
        return event.order

    async def release(self, ctx: SagaContext) -> None:
        outside: Outside = ctx.services.outside
        await outside.release(ctx.idempotency_key, ctx.data["order"], ctx.data["product"], ctx.data["quantity"])
        await append(
            ctx, StockReleased(order=ctx.data["order"], reservation=ctx.step_results["reserve"]["reservation"])
        )

    @saga_step(compensation=release, retry_on=RETRIED)
    async def reserve(self, ctx: SagaContext) -> dict[str, str]:
        outside: Outside = ctx.services.outside
        reservation = await outside.reserve(
            ctx.idempotency_key, ctx.data["order"], ctx.data["product"], ctx.data["quantity"]
        )
        await append(ctx, StockReserved(order=ctx.data["order"], reservation=reservation))
        return {"reservation": reservation}

    async def refund(self, ctx: SagaContext) -> None:
        outside: Outside = ctx.services.outside
        await outside.refund(ctx.idempotency_key, ctx.data["order"], ctx.data["cents"])
        await append(ctx, CardRefunded(order=ctx.data["order"], cents=ctx.data["cents"]))

    @saga_step(compensation=refund, retry_on=RETRIED)
    async def charge(self, ctx: SagaContext) -> dict[str, str]:
        outside: Outside = ctx.services.outside
        receipt = await outside.charge(ctx.idempotency_key, ctx.data["order"], ctx.data["card"], ctx.data["cents"])
        await append(ctx, CardCharged(order=ctx.data["order"], cents=ctx.data["cents"], receipt=receipt))
        return {"receipt": receipt}

    @saga_step(retry_on=RETRIED)
    async def ship(self, ctx: SagaContext) -> dict[str, str]:
        outside: Outside = ctx.services.outside
        parcel = await outside.ship(ctx.idempotency_key, ctx.data["order"], ctx.data["address"], ctx.data["quantity"])
        await append(ctx, OrderShipped(order=ctx.data["order"], parcel=parcel))
        return {"parcel": parcel}


async def append(ctx: SagaContext, event: DomainEvent) -> None:
    """Add an event to the order, in the transaction that stores the step."""
    await ctx.services.store.append(ctx.data["order"], [event])
