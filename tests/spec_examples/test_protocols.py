"""spec/api-reference.md, "Protocols": what one writes oneself satisfies the contracts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lexigram.contracts.core.result import Ok, Result
from lexigram.events import (
    Command,
    CommandBusProtocol,
    DomainEvent,
    EventBusProtocol,
    EventError,
    EventStoreProtocol,
    Query,
    QueryBusProtocol,
    ReadOnlyRepositoryProtocol,
    RepositoryProtocol,
)
from tests.spec_examples.shop import CreateUserCommand, GetUserQuery, OrderCreated, Recorder


async def test_command_bus_protocol() -> None:
    """Section "CommandBusProtocol", example: one handler per type, by hand."""
    contract = CommandBusProtocol

    class CommandBusProtocol_:
        def __init__(self, handlers: dict[type, Any]) -> None:
            self._handlers = handlers

        async def dispatch(self, command: Command[Any]) -> Any:
            handler = self._handlers[type(command)]
            return await handler.handle(command)

    bus = CommandBusProtocol_({CreateUserCommand: Recorder("u1")})
    assert await bus.dispatch(CreateUserCommand(username="ada", email="a@b")) == "u1"
    assert isinstance(bus, contract)


async def test_query_bus_protocol() -> None:
    """Section "QueryBusProtocol", example."""
    contract = QueryBusProtocol

    class QueryBusProtocol_:
        def __init__(self, handlers: dict[type, Any]) -> None:
            self._handlers = handlers

        async def execute(self, query: Query[Any]) -> Any:
            handler = self._handlers[type(query)]
            return await handler.handle(query)

    bus = QueryBusProtocol_({GetUserQuery: Recorder({"id": "u1"})})
    assert await bus.execute(GetUserQuery(user_id="u1")) == {"id": "u1"}
    assert isinstance(bus, contract)


async def test_event_bus_protocol() -> None:
    """Section "EventBusProtocol", example: an event bus in six lines."""

    class InMemoryEventBus:
        def __init__(self) -> None:
            self._handlers: dict[type, list[Any]] = {}

        async def publish(self, event: DomainEvent) -> Result[None, EventError]:
            for handler in self._handlers.get(type(event), []):
                await handler.handle(event)
            return Ok(None)

        def subscribe(self, event_type: type, handler: Any) -> None:
            self._handlers.setdefault(event_type, []).append(handler)

        def unsubscribe(self, event_type: type, handler: Any) -> None:
            self._handlers[event_type].remove(handler)

    bus, handler = InMemoryEventBus(), Recorder()
    bus.subscribe(OrderCreated, handler)
    assert (await bus.publish(OrderCreated(order_id="o"))).is_ok()
    assert len(handler.calls) == 1
    assert isinstance(bus, EventBusProtocol)


async def test_event_store_protocol() -> None:
    """Section "EventStoreProtocol", example: `event.to_dict()` is what goes into a table."""

    class Database(Recorder):
        def transaction(self) -> Any:
            class Block:
                async def __aenter__(self) -> None: ...
                async def __aexit__(self, *_: object) -> None: ...

            return Block()

    class PostgresEventStore:
        def __init__(self) -> None:
            self.db = Database()

        async def append(self, stream_id: str, events: list[Any], expected_version: int | None = None) -> int:
            async with self.db.transaction():
                for event in events:
                    await self.db.insert("events", event.to_dict())
            return len(events)

        async def read(self, stream_id: str, start: int = 0, count: int | None = None) -> list[Any]:
            return []

        async def read_all(self, position: int = 0, count: int | None = None) -> list[Any]:
            return []

    store = PostgresEventStore()
    assert await store.append("order-123", [OrderCreated(order_id="o")]) == 1
    ((_, (table, row), _),) = store.db.calls
    assert (table, row["order_id"], row["event_type"]) == ("events", "o", "OrderCreated")
    assert isinstance(store, EventStoreProtocol)


class Table(Recorder):
    """A query builder that ends in a row."""

    def query(self, name: str) -> Any:
        rows = SimpleNamespace(first=self.first, all=self.all)
        rows.offset = lambda n: rows
        rows.limit = lambda n: rows
        return SimpleNamespace(where=lambda **by: rows, offset=rows.offset)

    async def first(self) -> Any:
        return self.answer

    async def all(self) -> list[Any]:
        return [self.answer]

    def update(self, name: str, row: dict[str, Any]) -> Any:
        async def where(**by: Any) -> None:
            self.calls.append((name, (row,), by))

        return SimpleNamespace(where=where)

    async def insert(self, name: str, row: dict[str, Any]) -> str:
        self.calls.append((name, (row,), {}))
        return "new-id"

    def delete(self, name: str) -> Any:
        async def where(**by: Any) -> Any:
            return SimpleNamespace(affected_rows=1)

        return SimpleNamespace(where=where)


async def test_read_only_repository_protocol() -> None:
    """Section "ReadOnlyRepositoryProtocol", example: the query side."""
    User = SimpleNamespace

    class UserQueryRepository:
        db = Table(User(id="u1"))

        async def get(self, id: str) -> User | None:
            return await self.db.query("users").where(id=id).first()

        async def list(self, skip: int = 0, limit: int = 100) -> Any:
            return await self.db.query("users").offset(skip).limit(limit).all()

        async def find_by_spec(self, spec: Any) -> Any:
            return []

        async def count(self, **filters: Any) -> int:
            return 1

    repository = UserQueryRepository()
    assert (await repository.get("u1")).id == "u1"
    assert len(await repository.list()) == 1
    assert isinstance(repository, ReadOnlyRepositoryProtocol)


async def test_repository_protocol() -> None:
    """Section "RepositoryProtocol", example: insert or update by id."""

    class User:
        def __init__(self, id: str | None) -> None:
            self.id = id

        def dict(self) -> Any:
            return vars(self)

    class UserRepository:
        db = Table()

        async def save(self, entity: User) -> User:
            if entity.id:
                await self.db.update("users", entity.dict()).where(id=entity.id)
            else:
                entity.id = await self.db.insert("users", entity.dict())
            return entity

        async def delete(self, id: str) -> bool:
            result = await self.db.delete("users").where(id=id)
            return bool(result.affected_rows > 0)

        get = list = find_by_spec = count = save_many = delete_many = None

    repository = UserRepository()
    assert (await repository.save(User(None))).id == "new-id"
    assert (await repository.save(User("u1"))).id == "u1"
    assert await repository.delete("u1")
    for name in ("get", "list", "find_by_spec", "count", "save_many", "delete_many"):
        setattr(UserRepository, name, UserRepository.save)
    assert isinstance(repository, RepositoryProtocol)
