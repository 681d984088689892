"""Methods with a shortcut are coroutine functions in all that is asked of them."""

from __future__ import annotations

import asyncio
import copy
import inspect
import io
import pickle
import pydoc
import sys
import types
import typing
from typing import Any
from unittest import mock

import pytest

from lexigram.events import InMemoryEventStore
from lexigram.events._core import append_shortcut, put_shortcut
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.exceptions import ConcurrencyError
from tests.unit.shortcuts.ways import Happened, function_of


def test_the_version_decides() -> None:
    """Before Python 3.12 the classes have shortcuts, later not."""
    for method in (InMemoryEventStore.append, InMemoryEventStore.read, BoundedChannel.put, BoundedChannel.get):
        assert (type(method) is types.FunctionType) == (sys.version_info >= (3, 12))


def test_a_method_looks_like_its_function(store: Any) -> None:
    """Signature, names, documentation and flags are those of the `async def`."""
    method, cls = store.append, type(store)
    assert isinstance(method, types.MethodType)
    assert method.__self__ is store
    assert method.__func__ is cls.append
    assert isinstance(cls.append, types.FunctionType)
    for one in (method, cls.append):
        assert inspect.iscoroutinefunction(one)
        assert asyncio.iscoroutinefunction(one)
        assert one.__name__ == "append"
        assert one.__qualname__ == "InMemoryEventStore.append"
        assert one.__doc__.startswith("Append events to a stream")
        assert one.__module__ == "lexigram.events.stores.memory"
        assert typing.get_type_hints(one, {**vars(typing), **vars(sys.modules[one.__module__]), "AppendCondition": int})
    assert str(inspect.signature(method)) == (
        "(stream_id: 'str', events: 'Sequence[Any]', expected_version: 'int | None' = None, *,"
        " condition: 'AppendCondition | None' = None) -> 'int'"
    )
    assert next(iter(inspect.signature(cls.append).parameters)) == "self"
    assert "<function InMemoryEventStore.append at" in repr(cls.append)
    assert inspect.isroutine(cls.append)
    assert "async def append" in inspect.getsource(cls.append)
    out = io.StringIO()
    pydoc.Helper(output=out).help(cls.append)
    assert "asyncappend(self,stream_id" in "".join(out.getvalue().split())
    assert "asyncappend(self,stream_id" in "".join(
        pydoc.render_doc(cls, renderer=pydoc.plaintext).replace("|", "").split()
    )


def test_a_method_takes_attributes() -> None:
    """As a decorator that marks a function expects."""
    method = append_shortcut(function_of(InMemoryEventStore.append), always=True)
    method.mark = 1  # type: ignore[attr-defined]
    assert method.mark == 1  # type: ignore[attr-defined]
    del method.mark  # type: ignore[attr-defined]
    assert not hasattr(method, "mark")


def test_a_method_is_pickled_and_copied_by_name() -> None:
    """So is a function; a bound method goes with its object."""
    for method in (InMemoryEventStore.append, BoundedChannel.get):
        assert pickle.loads(pickle.dumps(method)) is method
        assert copy.copy(method) is method
        assert copy.deepcopy(method) is method


def test_what_cannot_have_a_shortcut_is_refused() -> None:
    """Too many parameters, positional ones, no function."""

    async def many(self: Any, a: int, b: int, c: int, d: int, e: int) -> None: ...
    async def positional(self: Any, a: int, /) -> None: ...
    async def none() -> None: ...

    for function in (many, positional, none):
        with pytest.raises(TypeError):
            put_shortcut(function, always=True)
    with pytest.raises(AttributeError):
        put_shortcut(len, always=True)  # type: ignore[type-var]


async def test_arguments_by_name_and_wrong_ones(store: Any) -> None:
    """They count as for any function, and what is wrong is said at the call."""
    assert await store.append(stream_id="a", events=[Happened()]) == 1
    assert await store.append("a", events=[Happened()], expected_version=1) == 2
    assert await store.append("a", expected_version=2, events=[Happened()], condition=None) == 3
    assert [event.version for event in await store.read("a", limit=1, from_version=2)] == [2]
    assert [event.version for event in await store.read("a", start=1, count=1)] == [2]
    assert await type(store).append(store, "a", [Happened()]) == 4
    for wrong in (
        lambda: store.append(),
        lambda: store.append("a"),
        lambda: store.append("a", [], 1, 2),
        lambda: store.append("a", [], events=[]),
        lambda: store.append("a", [], nonsense=1),
        lambda: store.append("a", expected_version=1),
        lambda: type(store).append(),
    ):
        with pytest.raises(TypeError, match=r"append\(\)"):
            wrong()
    with pytest.raises(AttributeError):
        await type(store).append(object(), "a", [])


async def test_a_subclass_may_override_it(store: Any) -> None:
    """And call what it overrides."""

    class Counting(type(store)):  # type: ignore[misc]
        count = 0

        async def append(self, stream_id: str, events: Any, expected_version: int | None = None, **others: Any) -> int:
            self.count += 1
            return int(await super().append(stream_id, events, expected_version, **others))

    counting = Counting()
    assert await counting.append("a", [Happened()]) == 1
    with pytest.raises(ConcurrencyError):
        await counting.append("a", [Happened()], 5)
    assert counting.count == 2


async def test_a_mock_takes_its_place(store: Any) -> None:
    """`create_autospec` sees a coroutine function with its signature."""
    fake = mock.create_autospec(type(store), instance=True)
    fake.append.return_value = 7
    assert await fake.append("a", [1], expected_version=3) == 7
    fake.append.assert_awaited_once_with("a", [1], expected_version=3)
    with pytest.raises(TypeError):
        fake.append()
    with mock.patch.object(store, "append", autospec=True) as patched:
        patched.return_value = 3
        assert await store.append("a", []) == 3
    assert await store.append("a", [Happened()]) == 1
