"""Read models in the program's own tables, through SQLAlchemy or the driver's connection, in the projection's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import JSON, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from lexigram.events import DomainEvent, ProjectionManager
from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from tests.backends import MakeStore, make_store
from tests.contract.minimal_provider import MinimalProvider

__all__ = ["make_store"]


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "orm_customers"
    name: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)
    notes: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Ordered(DomainEvent):
    customer: str
    note: str = ""


class Customers(DurableProjection):
    name = "customers"
    handles = (Ordered,)
    schema = (str(CreateTable(Customer.__table__, if_not_exists=True)),)  # type: ignore[arg-type]
    tables = ("orm_customers",)
    failing: str = "nothing"

    async def handle_event(self, event: Ordered) -> None:
        def change(session: Session) -> int:
            customer = session.get(Customer, event.customer)
            if customer is None:
                customer = Customer(name=event.customer, orders=0, notes={})
                session.add(customer)
            customer.orders += 1
            customer.notes = {**customer.notes, str(customer.orders): event.note}
            if event.note == self.failing:
                session.flush()
                raise ValueError("behind its write")
            return customer.orders

        assert await self.db.in_session(change) >= 1


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, make_store: MakeStore) -> AsyncIterator[Any]:
    """An empty store with a database of its own."""
    async with make_store(request.param) as opened:
        await opened.engine.execute("DROP TABLE IF EXISTS orm_customers")  # type: ignore[attr-defined]
        yield opened


async def rows(store: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in await store.engine.fetch_all("SELECT name, orders FROM orm_customers")}


async def test_what_a_session_writes_commits_with_the_checkpoint(store: Any) -> None:
    """One transaction for a batch of events; the session sees what earlier events of it have written."""
    await store.append("s", [Ordered(customer=name, note="n") for name in ("ann", "bob", "ann", "ann")])
    async with ProjectionManager(store) as manager:
        manager.register(Customers())
        await manager.wait_for("customers", 4, timeout=30)
        await store.append("s", [Ordered(customer="bob")])
        await manager.wait_for("customers", 5, timeout=30)
    assert await rows(store) == {"ann": 3, "bob": 2}


async def test_a_failure_behind_a_flush_leaves_nothing(store: Any) -> None:
    """Rows and checkpoint are those of the event before it; after the repair each event has counted once."""
    projection = Customers()
    projection.failing = "bad"
    await store.append("s", [Ordered(customer="ann"), Ordered(customer="ann", note="bad"), Ordered(customer="ann")])
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        with pytest.raises(ProjectionBuildError, match="behind its write"):
            await manager.wait_for("customers", 3, timeout=30)
        assert await rows(store) == {"ann": 1}
        projection.failing = "-"
        manager.resume("customers")
        await manager.wait_for("customers", 3, timeout=30)
    assert await rows(store) == {"ann": 3}


async def test_a_session_leaves_the_stores_connections_as_they_were(store: Any) -> None:
    """Events are read and written as before it, by the same connections; queries of the session's own work."""
    async with store.unit_of_work():
        for statement in Customers.schema:
            await Customers().db.execute(statement)
        assert await Customers().db.in_session(lambda session: session.scalars(select(Customer.name)).all()) == []
    event = Ordered(customer="ann", note="ä")
    await store.append("s", [event])
    async with store.unit_of_work():
        found = await Customers().db.in_session(lambda session: session.scalars(select(Customer.orders)).all())
        assert list(found) == []
        await store.append("s", [Ordered(customer="bob")])
    assert (await store.read("s"))[0].event_id == event.event_id
    assert await store.head() == 2


async def test_the_drivers_connection_is_handed_in(store: Any) -> None:
    """asyncpg's on PostgreSQL, sqlite3's on its thread; what it writes is rolled back with the rest."""
    is_postgres = type(store).__name__.startswith("Postgres")

    class Raw(Customers):
        name = "raw"

        async def handle_event(self, event: Ordered) -> None:
            sql = "INSERT INTO orm_customers (name, orders, notes) VALUES ({}, 1, '{{}}')"
            if is_postgres:
                await self.db.run(lambda connection: connection.execute(sql.format("$1"), event.customer))
            else:
                await self.db.run(lambda connection: connection.execute(sql.format("?"), (event.customer,)))
            if event.note:
                raise ValueError("behind its write")

    await store.append("s", [Ordered(customer="ann"), Ordered(customer="bob", note="bad")])
    async with ProjectionManager(store) as manager:
        manager.register(Raw())
        with pytest.raises(ProjectionBuildError, match="behind its write"):
            await manager.wait_for("raw", 2, timeout=30)
    assert await rows(store) == {"ann": 1}


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_a_handler_that_ends_the_transaction_is_told_so(store: Any, statement: str) -> None:
    """Its rows and the checkpoint would no longer be stored together."""

    class Ending(Customers):
        name = "ending"

        async def handle_event(self, event: Ordered) -> None:
            await self.db.execute(statement)

    await store.append("s", [Ordered(customer="ann")])
    async with ProjectionManager(store) as manager:
        manager.register(Ending())
        with pytest.raises(ProjectionBuildError, match="commit or roll back"):
            await manager.wait_for("ending", 1, timeout=30)
        status = manager.get_status("ending")
        assert status is not None
        assert (status["state"], status["position"]) == ("faulted", 0)
    assert await store.append("s", [Ordered(customer="bob")]) == 2


async def test_over_a_framework_provider_the_error_says_what_to_change(tmp_path: Path) -> None:
    """Nothing is written."""
    provider = MinimalProvider(str(tmp_path / "events.db"))
    async with SqliteEventStore(None, provider) as store:
        async with store.unit_of_work():
            with pytest.raises(ProjectionBuildError, match="give the event store a path or DSN"):
                await Customers().db.in_session(lambda session: None)
    await provider.disconnect()
