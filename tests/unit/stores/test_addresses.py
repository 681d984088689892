"""Addresses that cannot be used are one clear error each; what an address asks for is done."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo import AsyncMongoClient

from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.stores.mongodb.database import MongoDatabase
from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.stores.redis.event_store import RedisEventStore


@pytest.mark.parametrize(
    "address", ["postgresql://u:secret@h:port/x", "postgresql://u:secret@[::1/x", "postgresql://u:secret@h:99999/x"]
)
def test_a_malformed_postgres_address_names_the_field(address: str) -> None:
    """Host and port are looked at before anything is opened; the message shows no password."""
    with pytest.raises(EventValidationError) as caught:
        PostgresEventStore(address)
    assert caught.value.field == "dsn"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["postgresql://u@h1:5432,h2:5433/x", "postgresql:///x?host=/run/pg", "postgres://h"]
)
def test_other_postgres_addresses_are_taken(address: str) -> None:
    """Several hosts, a socket's folder, no port."""
    PostgresEventStore(address)


async def test_a_redis_database_that_is_not_there_cannot_be_connected(redis_url: str) -> None:
    """Opening a store fails with the error of opening, whatever the server says."""
    with pytest.raises(EventStoreConnectionError, match="out of range"):
        await RedisEventStore(redis_url.rpartition("/")[0] + "/9999").connect()


async def test_options_in_a_mongodb_address_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stronger than the defaults of the configuration."""
    made: dict[str, Any] = {}

    class Client(AsyncMongoClient[Any]):
        def __init__(self, url: str, **options: Any) -> None:
            made.update(options)
            raise EventStoreConnectionError("seen")

        def __del__(self) -> None:
            """Nothing was opened."""

    monkeypatch.setattr("lexigram.events.stores.mongodb.database.AsyncMongoClient", Client)
    address = "mongodb://h/?serverSelectionTimeoutMS=500&maxpoolsize=3&appName=shop"
    with pytest.raises(EventStoreConnectionError, match="seen"):
        await MongoDatabase(address).open()
    assert list(made) == ["socketTimeoutMS"]
