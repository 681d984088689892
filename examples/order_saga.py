"""Reserve, charge, ship: a saga that undoes what it did when a step fails. Run it: python order_saga.py"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from lexigram.events import SagaBase, SagaContext, SagaManager, SagaStepResult, SqliteEventStore, saga_step
from lexigram.events.sagas.sql import SqlSagaStore

STOCK = {"tea": 3}


class FulfilOrder(SagaBase):
    """One order from stock to the customer's door."""

    name = "fulfil-order"

    async def put_back(self, ctx: SagaContext) -> None:
        STOCK[ctx.data["product"]] += 1

    @saga_step(compensation=put_back)
    async def reserve(self, ctx: SagaContext) -> SagaStepResult:
        if STOCK[ctx.data["product"]] == 0:
            return SagaStepResult.fail("out of stock")
        STOCK[ctx.data["product"]] -= 1
        return SagaStepResult.success(data={"left": STOCK[ctx.data["product"]]})

    async def refund(self, ctx: SagaContext) -> None:
        print(f"  {ctx.saga_id}: money back")

    @saga_step(compensation=refund, max_retries=0)
    async def charge(self, ctx: SagaContext) -> SagaStepResult:
        return SagaStepResult.fail("card declined") if ctx.data["card"] == "bad" else SagaStepResult.success()

    @saga_step(max_retries=0)
    async def ship(self, ctx: SagaContext) -> SagaStepResult:
        if ctx.data["address"] == "nowhere":
            return SagaStepResult.fail("no such address")
        return SagaStepResult.success(data={"parcel": f"parcel-of-{ctx.saga_id}"})


async def main(folder: Path) -> None:
    async with SqliteEventStore(str(folder / "orders.db")) as store:
        sagas = SagaManager(SqlSagaStore(store))
        sagas.register(FulfilOrder)
        orders = {
            "good": {"product": "tea", "card": "ok", "address": "12 Hill Road"},
            "declined": {"product": "tea", "card": "bad", "address": "12 Hill Road"},
            "undeliverable": {"product": "tea", "card": "ok", "address": "nowhere"},
        }
        for saga_id, data in orders.items():
            await sagas.start("fulfil-order", data, saga_id=saga_id)
            record = await sagas.wait_for(saga_id, timeout=10)
            print(f"{saga_id}: {record.status.value}" + (f" ({record.error})" if record.error else ""))
        print("tea left:", STOCK["tea"])


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
