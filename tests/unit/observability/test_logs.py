"""What stores write to their logs, errors and `repr`: neither payloads nor secrets, at the most talkative level."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest

from lexigram.events import (
    ConcurrencyError,
    DomainEvent,
    EventStoreConnectionError,
    MongoDBEventStore,
    OutboxRelay,
    PostgresEventStore,
    RedisEventStore,
    SerializationError,
)
from lexigram.events.testing.unreliable_broker import UnreliableBroker
from tests.backends import BACKENDS, MakeStore, make_store

__all__ = ["make_store"]

PAYLOAD, TAG, SECRET = "4711-0815", "card:4711-0815", "s3cr3t"


class Charged(DomainEvent):
    card: str
    extra: Any = None


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that the library has logged: drivers log on their own account."""
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(formatter.format(each) for each in caplog.records if each.name.startswith("lexigram"))


@pytest.mark.parametrize("backend", BACKENDS)
async def test_payloads_are_not_logged(make_store: MakeStore, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is done to a store, and whatever fails in it; nor are they in what its errors say."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with make_store(backend) as store, store.outbox() as outbox:
        await store.append("a", [Charged(card=PAYLOAD).with_tags(TAG)])
        following = asyncio.create_task(anext(aiter(store.subscribe(1))))
        for failing in (
            store.append("a", [Charged(card=PAYLOAD).with_tags(TAG)], expected_version=0),
            store.append("a", [Charged(card=PAYLOAD, extra=object()).with_tags(TAG)]),
        ):
            with pytest.raises((ConcurrencyError, SerializationError)) as caught:
                await failing
            said.append("".join(traceback.format_exception_only(caught.value)))
        with pytest.raises(KeyError):
            async with store.unit_of_work():
                await store.append("a", [Charged(card=PAYLOAD)])
                raise KeyError
        await store.append("a", [Charged(card=PAYLOAD)])
        await following
        relay = OutboxRelay(outbox, UnreliableBroker(1.0, seed=1), backoff_seconds=0.01, poll_interval=0.05)
        await relay.start()
        await asyncio.sleep(0.2)
        await relay.stop()
        assert relay.failures
        await store.compact("a", 1)
        said += [repr(store), str(await store.health_check())]
    assert PAYLOAD not in logged(caplog) + "".join(said)


@pytest.mark.parametrize(
    "store",
    [
        PostgresEventStore(f"postgresql://ada:{SECRET}@127.0.0.1:1/x"),
        MongoDBEventStore(None, f"mongodb://ada:{SECRET}@127.0.0.1:1/x?serverSelectionTimeoutMS=200"),
        RedisEventStore(f"redis://ada:{SECRET}@127.0.0.1:1/0", retry_seconds=0.1),
    ],
    ids=lambda store: type(store).__name__,
)
async def test_secrets_of_an_address_are_not_shown(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the error of a server that is not there, with its causes, nor in logs and `repr`."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EventStoreConnectionError) as caught:
        async with asyncio.timeout(60):
            await store.connect()
    await store.close()
    shown = "".join(traceback.format_exception(caught.value)) + logged(caplog) + repr(store)
    assert SECRET not in shown
