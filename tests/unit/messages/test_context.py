"""What messages take over from the message being handled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.contracts.events.messages import Command as ContractCommand
from lexigram.contracts.events.messages import MessageMetadata
from lexigram.events import Command, DomainEvent, MessageContext, current_context, message_context
from lexigram.events.messages.stamping import rebuild


class Happened(DomainEvent):
    n: int = 0


class Do(Command[None]):
    n: int = 0


def test_without_context_nothing_is_inherited() -> None:
    """Correlation and causation are empty."""
    assert current_context() is None
    assert (Happened().correlation_id, Happened().causation_id, Happened().metadata) == (None, None, {})


def test_events_emitted_by_a_command_carry_its_id() -> None:
    """Causation is the command; correlation is the command too if it has none itself."""
    command = Do()
    with message_context(command):
        event = Happened()
        following = Do()
    assert (event.causation_id, event.correlation_id) == (command.id, command.id)
    assert (following.causation_id, following.correlation_id) == (command.id, command.id)
    assert Happened().causation_id is None


def test_correlation_user_tenant_and_trace_are_passed_on() -> None:
    """From a command to events and commands, and from there on."""
    correlation = uuid4()
    custom = {"traceparent": "00-a-b-01", "private": 1}
    command = Do(metadata=MessageMetadata(correlation, None, "user", "tenant", "trace", "span", custom))
    with message_context(command):
        event = Happened()
        following = Do()
    assert (event.correlation_id, event.causation_id, event.actor_id) == (correlation, command.id, "user")
    assert event.metadata == {"tenant_id": "tenant", "user_id": "user", "traceparent": "00-a-b-01"}
    metadata = following.metadata
    assert (metadata.correlation_id, metadata.causation_id) == (correlation, command.id)
    assert (metadata.user_id, metadata.tenant_id, metadata.trace_id) == ("user", "tenant", "trace")
    assert metadata.custom == {"traceparent": "00-a-b-01"}
    with message_context(event):
        third = Happened()
        fourth = Do()
    assert (third.correlation_id, third.causation_id, third.actor_id) == (correlation, event.event_id, "user")
    assert third.metadata == event.metadata
    assert (fourth.correlation_id, fourth.causation_id) == (correlation, event.event_id)
    assert (fourth.metadata.user_id, fourth.metadata.tenant_id) == ("user", "tenant")


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("kind", [Do, ContractCommand])
def test_the_trace_of_a_command_becomes_that_of_its_events(kind: Any) -> None:
    """Without a span id the command is the parent; a traceparent of its own comes first."""
    own = f"00-{SPAN * 2}-{SPAN}-00"
    cases: list[tuple[MessageMetadata, str | None]] = [
        (MessageMetadata(trace_id=TRACE, span_id=SPAN), f"00-{TRACE}-{SPAN}-01"),
        (MessageMetadata(trace_id=TRACE), None),
        (MessageMetadata(trace_id=TRACE, span_id=SPAN, custom={"traceparent": own}), own),
    ]
    for metadata, expected in cases:
        command = kind(metadata=metadata)
        with message_context(command):
            event, following = Happened(), Do()
        wanted = expected or f"00-{TRACE}-{command.id.hex[16:]}-01"
        assert event.metadata["traceparent"] == following.metadata.custom["traceparent"] == wanted
        with message_context(event):
            assert Happened().metadata["traceparent"] == wanted


@pytest.mark.parametrize("trace_id", ["", "trace", TRACE.upper(), "0" * 32, TRACE + "0", f"{TRACE}\n"])
def test_a_trace_id_of_another_form_is_no_trace(trace_id: str) -> None:
    """It stays on the commands; events get none that tracing systems would refuse."""
    with message_context(Do(metadata=MessageMetadata(trace_id=trace_id, span_id=SPAN))):
        assert Happened().metadata == {}
        assert Do().metadata.trace_id == trace_id


def test_explicit_values_win() -> None:
    """Also an explicit None; custom metadata is merged key by key."""
    command = Do(metadata=MessageMetadata(uuid4(), None, "user", "tenant"))
    other = uuid4()
    with message_context(command):
        event = Happened(correlation_id=other, causation_id=None, actor_id="me", metadata={"tenant_id": "x", "k": 1})
        own = Do(metadata=MessageMetadata(user_id="other"))
    assert (event.correlation_id, event.causation_id, event.actor_id) == (other, None, "me")
    assert event.metadata == {"tenant_id": "x", "user_id": "user", "k": 1}
    assert own.metadata == MessageMetadata(user_id="other")


def test_contexts_nest_and_end() -> None:
    """Leaving a block restores what was before, also after an exception."""
    outer, inner = Do(), Do()
    with message_context(outer):
        with contextlib.suppress(RuntimeError), message_context(inner):
            assert Happened().causation_id == inner.id
            raise RuntimeError
        assert Happened().causation_id == outer.id
        with message_context(None):
            assert Happened().causation_id is None
    assert current_context() is None


@pytest.mark.parametrize("message", [ContractEvent(), ContractCommand(), MessageContext(message_id=uuid4())])
def test_messages_of_the_contract_and_plain_contexts_work_too(message: Any) -> None:
    """Whatever a bus may handle establishes a context."""
    expected = getattr(message, "event_id", None) or getattr(message, "id", None) or message.message_id
    with message_context(message):
        event, command = Happened(), Do()
    assert (event.causation_id, event.correlation_id) == (expected, expected)
    assert (command.causation_id, command.correlation_id) == (expected, expected)


def test_the_current_context_can_be_read() -> None:
    """It shows the ids of the message being handled."""
    command = Do()
    with message_context(command):
        context = current_context()
    assert context is not None
    assert (context.message_id, context.correlation_id) == (command.id, command.id)


async def test_tasks_have_their_own_context() -> None:
    """Two handlers at the same time never see each other's message."""

    async def handle(command: Do) -> bool:
        with message_context(command):
            await asyncio.sleep(0)
            return Happened().causation_id == command.id

    assert all(await asyncio.gather(*(handle(Do()) for _ in range(20))))


def test_rebuilding_inherits_nothing() -> None:
    """An event read from a store is what was stored."""
    event = Happened(n=1)
    with message_context(Do()):
        again = rebuild(Happened, {"n": 1, "event_id": event.event_id, "occurred_at": event.occurred_at}, None)
        copied = event.with_version(0)
    assert again == event
    assert copied == event


def test_metadata_of_a_command_made_in_a_context_is_stable() -> None:
    """Reading it later, in another context, changes nothing; pickles and copies carry it."""
    import copy
    import pickle

    outer = Do(metadata=MessageMetadata(user_id="user"))
    with message_context(outer):
        inner = Do()
    with message_context(Do()):
        assert inner.metadata.user_id == "user"
        assert inner.causation_id == outer.id
    with message_context(outer):
        inner = Do()
    assert pickle.loads(pickle.dumps(inner)) == copy.deepcopy(inner) == inner
