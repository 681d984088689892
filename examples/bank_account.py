"""Accounts with a money transfer: the smallest useful event-sourced program. Run it: python bank_account.py"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from lexigram.events import AggregateRoot, ConcurrencyError, DomainEvent, EventSourcingRepository, SqliteEventStore


class Deposited(DomainEvent):
    cents: int


class Withdrawn(DomainEvent):
    cents: int


class Account(AggregateRoot):
    """An account that cannot be overdrawn."""

    cents: int = 0

    def deposit(self, cents: int) -> None:
        """Put money in."""
        if cents <= 0:
            raise ValueError("a deposit must be positive")
        self._apply(Deposited(cents=cents))

    def withdraw(self, cents: int) -> None:
        """Take money out, if it is there."""
        if cents > self.cents:
            raise ValueError(f"only {self.cents} cents are left")
        self._apply(Withdrawn(cents=cents))

    def _handle_deposited(self, event: Deposited) -> None:
        self.cents += event.cents

    def _handle_withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents


async def transfer(store: SqliteEventStore, accounts: EventSourcingRepository[Account], cents: int) -> None:
    """Move money between two accounts: both are saved or none."""
    async with store.unit_of_work():
        ada, bob = await accounts.get_or_raise("ada"), await accounts.get_or_raise("bob")
        ada.withdraw(cents)
        bob.deposit(cents)
        await accounts.save(ada)
        await accounts.save(bob)


async def main(folder: Path) -> None:
    async with SqliteEventStore(str(folder / "bank.db")) as store:
        accounts = EventSourcingRepository(Account, store)
        for name, cents in (("ada", 10_000), ("bob", 500)):
            account = Account(id=name)
            account.deposit(cents)
            await accounts.save(account)

        await transfer(store, accounts, 2_500)
        try:
            await transfer(store, accounts, 1_000_000)
        except ValueError as error:
            print("refused:", error)

        first, second = await accounts.get_or_raise("ada"), await accounts.get_or_raise("ada")
        first.deposit(1)
        second.deposit(2)
        await accounts.save(first)
        try:
            await accounts.save(second)
        except ConcurrencyError:
            print("somebody else was faster: load again and repeat")

        for name in ("ada", "bob"):
            print(name, "has", (await accounts.get_or_raise(name)).cents, "cents")
        async for event in store.stream_all():
            print(
                f"{event.sequence_number:>3}  {event.aggregate_id} v{event.version}  {event.event_type} {event.cents}"
            )


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
