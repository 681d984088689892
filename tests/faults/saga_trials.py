"""Sagas that are interrupted at every await: steps, sharing, sagas within sagas, parallel steps, timers, processes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from lexigram.events import (
    CommandBusImpl,
    ConcurrencyError,
    DomainEvent,
    ProjectionConfig,
    ProjectionManager,
    SagaBase,
    SagaConfig,
    SagaContext,
    SagaManager,
    SagaSharing,
    SagaStatus,
    SagaStepResult,
    saga_step,
)
from lexigram.events.messages.command import Command
from lexigram.events.sagas.orchestrator import OrchestratedStep, SagaOrchestrator
from tests.faults.trials import LEASE_SECONDS, Did, DurableTrial, Parts, together

CONFIG = SagaConfig(retry_delay_seconds=0.001, max_retries_per_step=2)


async def note(ctx: SagaContext, what: str) -> None:
    """Append to the one stream of the trial, in the transaction of the step."""
    await ctx.services.store.append("deeds", [Did(what=what)])


class Order(SagaBase):
    """Reserve, charge (fails once), notify two parties at a time, ship; one cannot be shipped, and its refund fails once."""

    name = "order"

    async def did(self, ctx: SagaContext, what: str) -> None:
        """Append in the transaction of the step."""
        await ctx.services.store.append(ctx.saga_id, [Did(what=what)])

    async def release(self, ctx: SagaContext) -> None:
        await self.did(ctx, "released")

    async def refund(self, ctx: SagaContext) -> None:
        await self.did(ctx, "refunded")
        if ctx.attempt == 1:
            raise ConnectionError("the bank does not answer")

    @saga_step(compensation=release)
    async def reserve(self, ctx: SagaContext) -> None:
        await asyncio.sleep(0.001)
        await self.did(ctx, "reserved")

    @saga_step(compensation=refund, retry_delay=0.002)
    async def charge(self, ctx: SagaContext) -> None:
        await self.did(ctx, "charged")
        if ctx.attempt == 1:
            raise ConnectionError("the bank does not answer")

    @saga_step(max_retries=0)
    async def ship(self, ctx: SagaContext) -> dict[str, Any]:
        if ctx.data["broken"]:
            raise KeyError("no truck")
        await self.did(ctx, "shipped")
        return {"parcel": 1}

    @saga_step(timeout=0.02, max_retries=0)
    async def confirm(self, ctx: SagaContext) -> None:
        assert ctx.step_results["ship"] == {"parcel": 1}


class Sagas(DurableTrial):
    """Two orders at the same time: one is shipped, one is undone."""

    kinds = {"good": False, "bad": True}

    async def work(self, parts: Parts) -> None:
        config = SagaConfig(retry_delay_seconds=0.001, max_retries_per_step=2)
        manager = SagaManager(parts.sagas, event_store=parts.store, services={"store": parts.store}, config=config)
        manager.register(Order)
        async with manager:
            await manager.resume()
            await together(*(manager.start("order", {"broken": broken}, name) for name, broken in self.kinds.items()))

    async def verify(self, parts: Parts) -> None:
        ends = {"good": SagaStatus.COMPLETED, "bad": SagaStatus.COMPENSATED}
        deeds = {"good": ["reserved", "charged", "shipped"], "bad": ["reserved", "charged", "refunded", "released"]}
        for name in self.kinds:
            record = await parts.sagas.load(name)
            assert record is not None, f"{name} was never started"
            done = [event.what for event in await parts.store.read(name)]
            assert (record.status, done) == (ends[name], deeds[name]), record


class ClockSet(Sagas):
    """The same where the wall clock may be set, so that sagas may run out of time: each still ends once, all done or undone."""

    async def verify(self, parts: Parts) -> None:
        undone = ["refunded", "released"]
        ends = {
            SagaStatus.COMPLETED: [["reserved", "charged", "shipped"]],
            SagaStatus.COMPENSATED: [
                ["reserved", "released"],
                ["reserved", "charged", *undone],
                ["reserved", "charged", "shipped", *undone],
            ],
            SagaStatus.TIMED_OUT: [[]],
        }
        for name in self.kinds:
            record = await parts.sagas.load(name)
            assert record is not None, f"{name} was never started"
            done = [event.what for event in await parts.store.read(name)]
            assert done in ends.get(record.status, []), (record.status, done)


class SharedSagas(Sagas):
    """The same orders run by two workers that share them by leases, and are started by a third that runs none."""

    async def work(self, parts: Parts) -> None:
        config = SagaConfig(retry_delay_seconds=0.001, max_retries_per_step=2)
        async with AsyncExitStack() as stack:
            managers = []
            for works in (True, True, False):
                manager = SagaManager(
                    parts.sagas, event_store=parts.store, services={"store": parts.store}, config=config
                )
                manager.register(Order)
                sharing = SagaSharing(
                    manager, parts.checkpoints, partitions=4, works=works, lease_seconds=LEASE_SECONDS, poll_seconds=0.1
                )
                await stack.enter_async_context(sharing)
                managers.append(manager)
            await together(
                *(managers[-1].start("order", {"broken": broken}, name) for name, broken in self.kinds.items())
            )


class Pack(SagaBase):
    """The inner saga."""

    name = "pack"

    async def unpack(self, ctx: SagaContext) -> None:
        await note(ctx, f"unpacked {ctx.data['order']}")

    @saga_step(compensation=unpack)
    async def box(self, ctx: SagaContext) -> None:
        await asyncio.sleep(0.001)
        await note(ctx, f"packed {ctx.data['order']}")


class Send(SagaBase):
    """Runs the inner saga in its first step; one order cannot be posted, and the inner saga is undone."""

    name = "send"

    @saga_step
    async def pack(self, ctx: SagaContext) -> None:
        await ctx.run_saga("pack", {"order": ctx.data["order"]})

    @saga_step(max_retries=0)
    async def post(self, ctx: SagaContext) -> None:
        if ctx.data["order"] == "bad":
            raise KeyError("no post")
        await note(ctx, f"posted {ctx.data['order']}")


class Children(DurableTrial):
    """Two outer sagas, each with an inner one."""

    async def work(self, parts: Parts) -> None:
        manager = SagaManager(parts.sagas, event_store=parts.store, services={"store": parts.store}, config=CONFIG)
        manager.register(Pack)
        manager.register(Send)
        async with manager:
            await manager.resume()
            await together(*(manager.start("send", {"order": order}, order) for order in ("good", "bad")))

    async def verify(self, parts: Parts) -> None:
        deeds = [event.what for event in await parts.store.read("deeds")]
        for order, last, status in (("good", "posted", "completed"), ("bad", "unpacked", "compensated")):
            assert [what for what in deeds if what.endswith(order)] == [f"packed {order}", f"{last} {order}"], deeds
            outer, inner = await parts.sagas.load(order), await parts.sagas.load(f"{order}/pack/pack")
            assert (outer.status, inner.status) == (status, status), (outer, inner)


class Book:
    """Books at a service that knows the idempotency key: one effect, however often it is called."""

    def __init__(self, what: str) -> None:
        self.what = what

    async def execute(self, ctx: SagaContext) -> SagaStepResult:
        """Take the booking down once."""
        event = Did(what=self.what, event_id=uuid5(NAMESPACE_OID, ctx.idempotency_key))
        await asyncio.sleep(0.001)
        try:
            await ctx.services.store.append(f"{ctx.saga_id}:{self.what}", [event], 0)
        except ConcurrencyError:
            await asyncio.sleep(0)
        return SagaStepResult.Ok()

    async def compensate(self, ctx: SagaContext) -> SagaStepResult:
        """Take it back, in the transaction of the saga."""
        await note(ctx, f"cancelled {self.what} {ctx.saga_id}")
        return SagaStepResult.Ok()


class Pay:
    """One trip cannot be paid."""

    async def execute(self, ctx: SagaContext) -> SagaStepResult:
        """Pay in the transaction of the saga."""
        if ctx.saga_id == "bad":
            return SagaStepResult.fail("no money")
        await note(ctx, f"paid {ctx.saga_id}")
        return SagaStepResult.Ok()


class Trips(DurableTrial):
    """Two bookings at the same time, then a payment."""

    async def work(self, parts: Parts) -> None:
        manager = SagaOrchestrator(parts.sagas, event_store=parts.store, services={"store": parts.store}, config=CONFIG)
        booking = OrchestratedStep("flight", Book("flight"), parallel=[OrchestratedStep("hotel", Book("hotel"))])
        manager.define("trip", [booking, OrchestratedStep("pay", Pay())])  # type: ignore[arg-type]
        async with manager:
            await manager.resume()
            await together(*(manager.start("trip", {}, saga_id) for saga_id in ("good", "bad")))

    async def verify(self, parts: Parts) -> None:
        for saga_id, status in (("good", "completed"), ("bad", "compensated")):
            record = await parts.sagas.load(saga_id)
            assert record.status == status, record
            for what in ("flight", "hotel"):
                assert len(await parts.store.read(f"{saga_id}:{what}")) == 1
        deeds = sorted(event.what for event in await parts.store.read("deeds"))
        assert deeds == ["cancelled flight bad", "cancelled hotel bad", "paid good"], deeds


class Signed(DomainEvent):
    """A customer has signed up."""

    customer: str


class Remind(Command[None]):
    """What the timer asks for."""

    customer: str


class GiveUp(Command[None]):
    """What the deadline asks for."""

    customer: str


class Welcome(SagaBase):
    """Reminds once after a minute and gives up after two, by timers that are stored."""

    name = "welcome"
    start_events = (Signed,)
    timeout = 120.0

    def correlation_key(self, event: Signed) -> str:
        return event.customer

    async def handle(self, event: Signed) -> list[Command[Any]]:
        self.set_timer("remind", 60.0)
        return []

    async def on_timer(self, name: str) -> list[Command[Any]]:
        await asyncio.sleep(0)
        return [Remind(customer=self.context.data["customer"])]

    async def on_timeout(self) -> list[Command[Any]]:
        return [GiveUp(customer=self.context.data["customer"])]


class Timers(DurableTrial):
    """Waits for two timers of each of two processes; the commands take effect once."""

    customers = ("x", "y")

    async def work(self, parts: Parts) -> None:
        bus = CommandBusImpl()

        async def remind(command: Remind) -> None:
            await asyncio.sleep(0)
            await parts.store.append(command.customer, [Did(what="reminded")])

        async def give_up(command: GiveUp) -> None:
            await parts.store.append(command.customer, [Did(what="given up")])

        bus.register(Remind, remind)
        bus.register(GiveUp, give_up)
        manager = SagaManager(
            parts.sagas, event_store=parts.store, command_bus=bus, services={"store": parts.store}, config=CONFIG
        )
        manager.register(Welcome)
        async with manager:
            await manager.resume(wait=False)
            for customer in self.customers:
                await manager.process(Signed(customer=customer, event_id=uuid5(NAMESPACE_OID, customer)))
            while {await self.status(parts, customer) for customer in self.customers} != {SagaStatus.TIMED_OUT}:
                await asyncio.sleep(5)

    async def status(self, parts: Parts, customer: str) -> SagaStatus | None:
        """Return the state of one process."""
        record = await parts.sagas.load(f"welcome:{customer}")
        return None if record is None else record.status

    async def verify(self, parts: Parts) -> None:
        for customer in self.customers:
            assert await self.status(parts, customer) is SagaStatus.TIMED_OUT
            done = [event.what for event in await parts.store.read(customer)]
            assert done == ["reminded", "given up"], (customer, done)


class Placed(DomainEvent):
    """Starts a process."""

    order: str


class Ship(Command[None]):
    """What the process asks for."""

    order: str


class Process(SagaBase):
    """Follows the log: one command per event, then a step of its own."""

    name = "process"
    start_events = (Placed,)

    def correlation_key(self, event: Placed) -> str:
        return event.order

    async def handle(self, event: Placed) -> list[Command[Any]]:
        return [Ship(order=event.order)]

    @saga_step
    async def close(self, ctx: SagaContext) -> None:
        await ctx.services.store.append(f"closed:{ctx.saga_id}", [Did(what="closed")])


class Follower(DurableTrial):
    """Sagas that events start, fed from the log; each event's command has one effect."""

    orders = ("x", "y", "z")

    async def begin(self, parts: Parts) -> None:
        for order in self.orders[:2]:
            await parts.store.append(f"order-{order}", [Placed(order=order)])

    async def work(self, parts: Parts) -> None:
        bus = CommandBusImpl()

        async def ship(command: Ship) -> None:
            await asyncio.sleep(0)
            await parts.store.append(f"shipped:{command.order}", [Did(what="shipped")])

        bus.register(Ship, ship)
        manager = SagaManager(
            parts.sagas,
            event_store=parts.store,
            command_bus=bus,
            services={"store": parts.store},
            config=SagaConfig(retry_delay_seconds=0.001),
        )
        manager.register(Process)
        await manager.resume(wait=False)
        projections = ProjectionManager(parts.store, parts.checkpoints, config=ProjectionConfig(batch_size=2))
        projections.register(manager.follower())
        async with manager, projections:
            last = self.orders[-1]
            await parts.store.append(f"order-{last}", [Placed(order=last, event_id=uuid5(NAMESPACE_OID, last))])
            await projections.wait_for("sagas", await parts.store.head())
            await manager.drain()

    async def verify(self, parts: Parts) -> None:
        for order in self.orders:
            record = await parts.sagas.load(f"process:{order}")
            assert record is not None, f"no saga for {order}"
            assert record.status is SagaStatus.COMPLETED, record
            for stream in (f"shipped:{order}", f"closed:process:{order}"):
                assert len(await parts.store.read(stream)) == 1, stream
