"""Which failures of the driver are tried again, which are final, and what they become."""

from __future__ import annotations

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidDocument,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from lexigram.events.exceptions import EventLoadError, EventPersistenceError, EventStoreConnectionError
from lexigram.events.stores.mongodb import MongoDBEventStore
from lexigram.events.stores.mongodb.errors import attempt, clear_error, is_refused, is_transient

AWAY = [AutoReconnect("x"), NotPrimaryError("x"), ServerSelectionTimeoutError("x"), WriteConcernError("x", 64)]


@pytest.mark.parametrize("error", [*AWAY, OperationFailure("terminating connection", 1), OperationFailure("x", 11600)])
def test_what_passes_is_tried_again(error: Exception) -> None:
    """The server was away or changed its role: a write may have happened."""
    assert is_transient(error)
    assert not is_refused(error)


@pytest.mark.parametrize("error", [OperationFailure("no permission", 13), InvalidDocument("x"), InvalidOperation("x")])
def test_what_is_refused_is_final(error: Exception) -> None:
    """It has not happened and never will."""
    assert not is_transient(error)
    assert is_refused(error)


def test_an_unknown_refusal_of_a_write_is_not_taken_as_final() -> None:
    """Its outcome is found out; a read that fails so is not repeated."""
    error = OperationFailure("something else", 424242)
    assert not is_transient(error)
    assert not is_refused(error)


def test_errors_say_what_was_tried() -> None:
    """The driver's appendix, with addresses and the whole reply, is left out."""
    error = clear_error(OperationFailure("no, full error: {'secret': 1}", 13), "reading events", EventLoadError)
    assert type(error) is EventLoadError
    assert "reading events failed: OperationFailure: no" in str(error)
    assert "secret" not in str(error)
    for away in (*AWAY[:3], InvalidOperation("closed"), ConfigurationError("bad")):
        assert type(clear_error(away, "x", EventPersistenceError)) is EventStoreConnectionError


async def test_attempts_end_with_success_or_in_time() -> None:
    """Repeated while the server is away, and not for longer than allowed."""
    failures: list[Exception] = [AutoReconnect("1"), AutoReconnect("2")]

    async def call() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert await attempt(call, "x", EventLoadError, 5.0) == "done"
    failures = [AutoReconnect(str(number)) for number in range(99)]
    with pytest.raises(EventStoreConnectionError):
        await attempt(call, "x", EventLoadError, 0.2)
    assert len(failures) > 90
    failures = [OperationFailure("no", 13)]
    with pytest.raises(EventLoadError):
        await attempt(call, "x", EventLoadError, 5.0)


async def test_an_address_that_the_driver_refuses_is_an_error_of_connecting() -> None:
    """Without the password."""
    with pytest.raises(EventStoreConnectionError) as caught:
        await MongoDBEventStore(None, "mongodb://u:secret@h:99999/").connect()
    assert "secret" not in str(caught.value)
