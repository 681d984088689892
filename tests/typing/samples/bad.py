"""Every line marked with `# E:` is wrong and both type checkers must say so; no other line may be reported."""

from __future__ import annotations

from dataclasses import dataclass

from lexigram.events import Command, DomainEvent, IdempotentCommand, PaginatedQuery


class UserRegistered(DomainEvent):
    user_id: str
    email: str = ""


class Renamed(UserRegistered):
    name: str


@dataclass(frozen=True)
class Decorated(DomainEvent):
    user_id: str
    email: str = ""


class RegisterUser(Command[None]):
    user_id: str


class Charge(IdempotentCommand[None]):
    amount: int


class ListUsers(PaginatedQuery[str]):
    text: str


UserRegistered()  # E: missing
UserRegistered(user_id=1)  # E: mistyped
UserRegistered(user_id="a", bogus=1)  # E: unknown
UserRegistered("a")  # E: positional
UserRegistered(user_id="a", version="1")  # E: mistyped metadata
UserRegistered(user_id="a", tags="t")  # E: a string is no tuple of tags
Renamed(name="n")  # E: missing field of the parent
Renamed(user_id="a")  # E: missing own field
Decorated(email="a")  # E: missing in a dataclass
Decorated("a", "b", "c")  # E: too many positional
RegisterUser()  # E: missing
RegisterUser("a")  # E: positional
RegisterUser(user_id="a", id="x")  # E: mistyped metadata
Charge(amount="5")  # E: mistyped
ListUsers(page=1)  # E: missing
ListUsers(text="a", page="1")  # E: mistyped

event = UserRegistered(user_id="u1")
event.email = "x"  # E: frozen
event.version = 2  # E: frozen metadata
print(event.nothing)  # E: no such attribute
event.with_version("1")  # E: mistyped
RegisterUser(user_id="a").user_id = "b"  # E: frozen
