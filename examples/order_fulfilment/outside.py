"""Warehouse, bank and carrier: other people's systems, with a database of their own that no transaction of ours reaches."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from examples.order_fulfilment.kill import KillSwitch

STOCK = {"tea": 10_000, "saffron": 0}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, free INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, action TEXT NOT NULL, order_id TEXT NOT NULL, amount INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS call (number INTEGER PRIMARY KEY, key TEXT NOT NULL, repeated INTEGER NOT NULL);
"""

Effect = Callable[[sqlite3.Connection], object]


class Refused(Exception):
    """The answer is no, and stays no."""


class Outside:
    """Does what it is asked once for each idempotency key, and says so when it is asked again.

    Two effects for one order show as two rows in `effect`, and two calls with one key as a repeated one in `call`.

    Args:
        path: The database of these systems.
        pace: Seconds that each call takes, from 0.
        switch: Where this process is to be killed.
    """

    def __init__(self, path: Path, pace: float, switch: KillSwitch) -> None:
        self._path, self._pace, self._switch = path, pace, switch
        self._started = time.monotonic()
        with closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)
            connection.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?)", STOCK.items())
            connection.commit()

    async def reserve(self, key: str, order: str, product: str, quantity: int) -> str:
        """Set goods aside; return the reservation."""

        def effect(connection: sqlite3.Connection) -> None:
            taken = connection.execute(
                "UPDATE stock SET free = free - ? WHERE product = ? AND free >= ?", (quantity, product, quantity)
            )
            if not taken.rowcount:
                raise Refused(f"{product} is sold out")

        await self._call("reserve", key, order, quantity, effect)
        return f"reservation of {order}"

    async def release(self, key: str, order: str, product: str, quantity: int) -> None:
        """Put goods back."""
        await self._call(
            "release",
            key,
            order,
            quantity,
            lambda connection: connection.execute(
                "UPDATE stock SET free = free + ? WHERE product = ?", (quantity, product)
            ),
        )

    async def charge(self, key: str, order: str, card: str, cents: int) -> str:
        """Take money; return the receipt."""

        def effect(_: sqlite3.Connection) -> None:
            if card == "empty":
                raise Refused("the card is declined")

        await self._call("charge", key, order, cents, effect)
        return f"receipt of {order}"

    async def refund(self, key: str, order: str, cents: int) -> None:
        """Give money back."""
        await self._call("refund", key, order, cents)

    async def ship(self, key: str, order: str, address: str, quantity: int) -> str:
        """Send goods; return the parcel."""

        def effect(_: sqlite3.Connection) -> None:
            if address == "nowhere":
                raise Refused("there is no such address")

        await self._call("ship", key, order, quantity, effect)
        return f"parcel of {order}"

    async def _call(self, action: str, key: str, order: str, amount: int, effect: Effect = lambda _: None) -> None:
        self._switch.at(f"{action}:before")
        await asyncio.sleep(self._pace)
        try:
            repeated = await asyncio.to_thread(self._once, action, key, order, amount, effect)
        except Refused as no:
            self._say(order, action, f"refused: {no}")
            raise
        self._say(order, action, "was done already, the same key" if repeated else "done")
        self._switch.at(f"{action}:after")

    def _once(self, action: str, key: str, order: str, amount: int, effect: Effect) -> bool:
        """Have the effect unless the key is known; return whether it is."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            repeated = connection.execute("SELECT 1 FROM effect WHERE key = ?", (key,)).fetchone() is not None
            if not repeated:
                effect(connection)
                connection.execute("INSERT INTO effect VALUES (?, ?, ?, ?)", (key, action, order, amount))
            connection.execute("INSERT INTO call (key, repeated) VALUES (?, ?)", (key, repeated))
            connection.commit()
            return repeated

    def effects(self) -> list[tuple[str, str, int]]:
        """Return order, action and amount of everything that was done, in the order in which it was done."""
        with closing(self._connect()) as connection:
            return connection.execute("SELECT order_id, action, amount FROM effect ORDER BY rowid").fetchall()

    def missing_stock(self, product: str) -> int:
        """Return how much of a product is reserved or sent."""
        with closing(self._connect()) as connection:
            (free,) = connection.execute("SELECT free FROM stock WHERE product = ?", (product,)).fetchone()
        return STOCK[product] - int(free)

    def _say(self, order: str, action: str, what: str) -> None:
        print(f"{time.monotonic() - self._started:6.2f} s  {order:<10}{action:<9}{what}", flush=True)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
