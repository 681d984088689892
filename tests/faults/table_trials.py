"""Read models in tables that are interrupted at every await: inline projections and switches of versions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from lexigram.events import BlueGreenRebuild, ProjectionConfig, ProjectionManager
from lexigram.events.projections.durable import DurableProjection
from tests.faults.projection_worker import Balances, Moved
from tests.faults.trials import DurableTrial, Parts, Projection


class InlineBalances(Balances):
    """Written in the append's transaction; an amount of 13 fails the append."""

    name = "inline"
    inline = True

    async def handle_event(self, event: Moved) -> None:
        await super().handle_event(event)
        if event.amount == 13:
            raise ValueError("unlucky")


class Inline(Projection):
    """Appends at the same time, one of which fails, with an inline projection; nobody catches up before the rows are looked at."""

    def projection(self) -> Any:
        return InlineBalances()

    async def work(self, parts: Parts) -> None:
        async with self.manager(parts):
            appends = [
                parts.store.append(f"a{n % 2}", [Moved(account=f"a{n % 2}", amount=13 if n == 2 else n)])
                for n in range(5)
            ]
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
            assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, False, True, False, False]


class Stock(DurableProjection):
    """A version of a read model; each row says which version has made it."""

    read_model = "stock"
    handles = (Moved,)
    tables = ("stock",)
    schema = ("CREATE TABLE IF NOT EXISTS {stock} (account TEXT PRIMARY KEY, amount BIGINT, made_by INTEGER)",)

    async def handle_event(self, event: Moved) -> None:
        await self.db.execute(
            f"INSERT INTO {{stock}} AS s VALUES ($1, $2, {self.version}) "
            "ON CONFLICT (account) DO UPDATE SET amount = s.amount + excluded.amount",
            event.account,
            event.amount,
        )


class NewStock(Stock):
    version = 2


class Switched(DurableTrial):
    """A version is built, verified, switched to, left and switched to again; readers see exactly one of the two."""

    async def begin(self, parts: Parts) -> None:
        async with parts.store.unit_of_work() as unit:
            await unit.execute("DROP VIEW IF EXISTS stock")
            for table in ("stock__v1", "stock__v2", "stock__v2_check"):
                await unit.execute(f"DROP TABLE IF EXISTS {table}")
        for number in range(5):
            await parts.store.append(f"s{number % 2}", [Moved(account=f"a{number % 3}", amount=number)])

    async def work(self, parts: Parts) -> None:
        manager = ProjectionManager(parts.store, parts.checkpoints, config=ProjectionConfig(rebuild_batch_size=2))
        manager.register(Stock())
        async with manager:
            rebuild = BlueGreenRebuild(manager, NewStock())
            await parts.store.append("live", [Moved(account="a0", amount=100)])
            await rebuild.build()
            report = await rebuild.verify()
            await rebuild.switch(report)
            await rebuild.roll_back()
            await rebuild.switch(report)
            for version in (1, 2):
                await manager.wait_for(f"stock@{version}", await parts.store.head())

    async def verify(self, parts: Parts) -> None:
        expected = Counter[str]()
        for event in await parts.store.read_all():
            expected[event.account] += event.amount
        for table, made_by in (("stock", 2), ("stock__v1", 1), ("stock__v2", 2)):
            rows = await parts.store.engine.fetch_all(f"SELECT account, amount, made_by FROM {table}")
            assert {row[0]: int(row[1]) for row in rows} == dict(expected), table
            assert {row[2] for row in rows} == {made_by}, table
