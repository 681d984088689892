"""python -m tests.safety.random_calls SEED CALLS THREADS: random calls of the core with random objects.

Results become arguments of later calls, and some objects call the core themselves whenever it asks them for anything.
Every exception is fine except a panic and a `SystemError`, which mean a defect; so does a log that does not add up.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import gc
import pickle
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from lexigram.events import DomainEvent, Event, EventCodec, InMemoryEventStore, _core, message_context
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.messages import shapes
from tests.safety.core_calls import CALLS
from tests.safety.message_calls import Do, Future, Listed, Plain, Rich, World
from tests.safety.test_references import callables, properties

NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    127,
    255,
    256,
    2**16,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    1.5,
)
TEXTS = (
    "",
    "a",
    "s",
    "Plain",
    "Rich",
    "event_id",
    "tags",
    "value",
    "\0",
    "\ud800",
    "é" * 100,
    "x" * 300,
    "$meta",
    "$type",
)
DATA = (
    b"",
    b"{}",
    b'{"value":1}',
    b"[1,[2]]",
    b"\xe1\x1c",
    b"\xe2\x12\x02\x03\x04",
    b'{"$type":"uuid","value":"x"}',
    b"\xff",
)
NODES = (
    ("any",),
    ("int",),
    ("list", ("int",)),
    ("dict", ("str",), ("any",)),
    ("optional", ("uuid",)),
    ("union", (("int",), ("str",))),
)
DEEPEST = 4
USUAL = {
    "EventLog.append": "text events number", "EventLog.read": "text number number number",
    "EventLog.page": "number number number query partition number", "EventLog.count": "number number query partition",
    "EventLog.compact": "text number", "EventLog.bounds": "text", "EventLog.learn": "class text",
    "EventLog.check": "batch", "EventLog.store": "batches", "EventLog.removals": "", "EventLog.stream_ids": "",
    "MemoryStoreBase._append_now": "text events number", "ChannelBase.put_nowait": "any", "ChannelBase._take": "any",
    "ChannelBase._take_many": "number", "ChannelBase._enlist_getter": "future", "ChannelBase._enlist_putter": "future",
    "ChannelBase._collect": "future number", "ChannelBase._leave_getter": "future",
    "ChannelBase._leave_putter": "future", "ChannelBase._enter": "any",
    "CodecCore.encode": "message", "CodecCore.decode": "name text data number number", "CodecCore.to_json": "data",
    "CodecCore.encode_value": "any plan", "CodecCore.decode_value": "data plan",
    "EventStream.__anext__": "", "EventStream.athrow": "error", "EventStream.aclose": "",
    "copy_message": "message dict", "message_state": "message", "rebuild": "class dict dict", "field_names": "class",
    "stamp_event": "message number number", "event_meta": "message text", "address_event": "message any any any any",
    "EventStream": "batches", "EventLog": "any number", "compile_node": "any", "EncodedEvent": "id text text number tuple data",
}  # fmt: skip
MOST_LIVE = 150


CODECS = (EventCodec(), EventCodec(format="binary"))
SAMPLES = [Plain(n=3), Rich(value={"a": [1, (2, b"x")]}, other=Decimal("1.5"), tags=("a",)), Event(z=UUID(int=1))]
WRITTEN = [codec.encode(event).payload for codec in CODECS for event in SAMPLES]
NAMES = [CODECS[0].encode(event).type_name for event in SAMPLES]


def mutated(data: bytes, random: random.Random) -> bytes:
    """Return the data with some bytes changed, removed or doubled."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(changed) + 1)
        changed[at : at + random.randrange(3)] = bytes(
            random.choices(b'\x00\x01\x18\x1b\x7f\x80\xff{}[]",:0', k=random.randrange(3))
        )
    return bytes(changed)


class Hostile:
    """Whatever it is asked, it first does something else."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "machine":
            raise AttributeError(name)
        return self.machine.aside()

    def __index__(self) -> int:
        self.machine.aside()
        return 1

    def __iter__(self) -> Any:
        self.machine.aside()
        return iter([self.machine.any() for _ in range(3)])

    def __len__(self) -> int:
        self.machine.aside()
        return 2

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int) or index > 2:
            raise IndexError(index)
        return self.machine.aside()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.machine.aside()

    def __eq__(self, other: object) -> bool:
        return bool(self.machine.aside())

    def __hash__(self) -> int:
        self.machine.aside()
        return 1

    def __bool__(self) -> bool:
        return self.machine.random.random() < 0.5

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.machine.aside()


class Machine:
    """Objects, and calls of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.depth = threading.local()
        self.calls: list[Callable[..., Any]] = list(callables().values())
        self.attributes = list(properties().values())
        self.cases = [case for cases in CALLS.values() for case in cases.values()]
        self.live: list[Any] = [Plain, Rich, Listed, Do, Event, EventCodec()._core, EventCodec(format="binary")._core]
        self.names = [(name, USUAL[name].split()) for name in USUAL]
        self.futures = [Future() for _ in range(4)]
        self.failures: list[BaseException] = []
        self.lasting = {
            "EventLog": [_core.EventLog(print_nothing, keep) for keep in (0, 0, 3)],
            "ChannelBase": [BoundedChannel(n) for n in (1, 3)],
            "MemoryStoreBase": [InMemoryEventStore(), InMemoryEventStore(max_events_per_stream=2)],
            "CodecCore": [codec._core for codec in CODECS],
        }
        for log in self.lasting["EventLog"]:
            log.learn(Plain, "Plain"), log.learn(Event, "Event")
        self.makers: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self.random.choice(NUMBERS),
            lambda: self.random.choice(TEXTS),
            lambda: self.random.choice(DATA),
            lambda: bytearray(self.random.choice(DATA)),
            lambda: [self.any() for _ in range(self.random.randrange(4))],
            lambda: tuple(self.any() for _ in range(self.random.randrange(4))),
            lambda: {self.random.choice(TEXTS): self.any() for _ in range(self.random.randrange(3))},
            lambda: UUID(int=self.random.randrange(2**128)),
            lambda: Decimal(self.random.randrange(10**9)).scaleb(-3),
            lambda: datetime(2026, 1, 1, tzinfo=UTC),
            lambda: Plain(n=self.random.randrange(9)),
            lambda: Rich(value=self.any(), tags=("a", "b")),
            lambda: Event(extra=self.any()),
            lambda: Do(value=self.any()),
            lambda: _core.EventLog(Hostile(self) if self.random.random() < 0.3 else print_nothing, self.random.randrange(4)),
            lambda: BoundedChannel(self.random.randrange(1, 4)),
            lambda: self.random.choice(self.lasting["EventLog"]).stream(0, 2, None, None, None),
            lambda: _core.compile_node(self.random.choice(NODES)),
            lambda: shapes.record_for(Rich),
            lambda: LookupError(self.any()),
            lambda: type("Made", (self.random.choice((DomainEvent, Rich, Do, object)),), {"__annotations__": {"z": int}}),
            Future,
            lambda: Hostile(self),
            lambda: World().rows[0],
        ]  # fmt: skip

    def any(self) -> Any:
        """Return an object: one of those that there are, mostly."""
        if self.live and self.random.random() < 0.6:
            return self.random.choice(self.live)
        if self.random.random() < 0.2:
            return self.random.choice(NUMBERS)
        made = self.random.choice(self.makers)()
        self.keep(made)
        return made

    def usual(self, kind: str) -> Any:
        """Return an argument of the kind that a call takes, with any number; sometimes any object."""
        pick, some = self.random.choice, self.random.randrange
        if some(20) == 0:
            return self.any()
        kinds: dict[str, Callable[[], Any]] = {
            "number": lambda: pick(NUMBERS[:-1]) if some(4) else pick((None, some(9))),
            "text": lambda: pick("abc") if some(4) else pick(TEXTS),
            "name": lambda: pick(NAMES),
            "events": lambda: [pick((Plain, Event))() if some(3) else self.any() for _ in range(some(4))],
            "query": lambda: pick((None, [], [(None, ["a"])], [(["T", "Plain"], [])], [(["T"], ["a", "b"]), (None, [])])),
            "partition": lambda: pick((None, (pick(NUMBERS[1:9]), pick(NUMBERS[1:9])))),
            "batch": lambda: (pick("abc"), self.usual("events"), ["T"] * some(4), pick((None, some(9))), pick((None, ([(None, ["a"])], some(9))))),
            "batches": lambda: [self.usual("batch") for _ in range(some(3))],
            "class": lambda: pick((Plain, Rich, Listed, Do, Event)),
            "future": lambda: pick(self.futures),
            "message": lambda: pick((Plain(), Rich(value=self.any()), Do(value=self.any()), Event(z=self.any()))),
            "data": lambda: pick(DATA) if some(2) else mutated(pick(WRITTEN), self.random),
            "plan": lambda: _core.compile_node(pick(NODES)),
            "dict": lambda: {pick(TEXTS): self.any() for _ in range(some(4))},
            "tuple": lambda: tuple(pick(TEXTS) for _ in range(some(3))),
            "id": lambda: bytes(pick((0, 15, 16, 17))),
            "error": lambda: pick((LookupError, LookupError(self.any()))),
            "any": self.any,
        }  # fmt: skip
        return kinds[kind]()

    def usually(self) -> Any:
        """Make a call as it is meant, on an object that there is or a new one."""
        name, kinds = self.random.choice(self.names)
        cls, _, method = name.rpartition(".")
        arguments = [self.usual(kind) for kind in kinds]
        if not cls:
            return getattr(_core, method)(*arguments)
        lasting = self.lasting.get(cls) or [self.random.choice(self.lasting["EventLog"]).stream(0, 2, None, None, None)]
        return getattr(self.random.choice(lasting), method)(*arguments)

    def keep(self, value: Any) -> None:
        self.live.append(value)
        if len(self.live) > MOST_LIVE:
            del self.live[self.random.randrange(len(self.live))]

    def aside(self) -> Any:
        """Do one thing in the middle of another, and return an object."""
        depth = getattr(self.depth, "value", 0)
        if depth >= DEEPEST:
            return None
        self.depth.value = depth + 1
        try:
            self.step()
            return self.random.choice(self.live or [None])
        finally:
            self.depth.value = depth

    def step(self) -> None:
        """Make one call and keep what it returns."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = self.call()
        except pytest.fail.Exception:  # a case may go otherwise while ids are numbered
            return
        except BaseException as error:
            if isinstance(error, SystemError) or not isinstance(error, Exception):
                self.failures.append(error)
            return
        self.keep(result)

    def call(self) -> Any:
        if self.random.random() < 0.5:
            return self.usually()
        choice = self.random.random()
        subject = self.any()
        arguments = [self.any() for _ in range(self.random.choice((0, 1, 1, 2, 2, 3, 4, 5, 6)))]
        if choice < 0.25:
            return self.random.choice(self.calls)(*arguments)
        if choice < 0.6 and type(subject).__module__ != "builtins":
            names = [
                name for name in dir(type(subject)) if not name.startswith("__") or name in ("__anext__", "__len__")
            ]
            return getattr(subject, self.random.choice(names or ["__class__"]))(*arguments)
        if choice < 0.68:
            attribute = self.random.choice(self.attributes)
            return attribute.__set__(subject, arguments[0]) if arguments else attribute.__get__(subject)
        if choice < 0.72:
            return self.random.choice(self.cases)(World())
        if choice < 0.77:
            log: Any = self.random.choice([one for one in self.live if isinstance(one, _core.EventLog)])
            events: Any = [self.any() for _ in range(self.random.randrange(4))]
            return log.store([(self.random.choice("abc"), events, ["T"] * len(events), None, None)])
        return self.operate(subject, arguments)

    def operate(self, subject: Any, arguments: list[Any]) -> Any:
        operations: list[Callable[[], Any]] = [
            lambda: repr(subject),
            lambda: hash(subject),
            lambda: subject == self.any(),
            lambda: copy.copy(subject),
            lambda: copy.deepcopy(subject),
            lambda: pickle.loads(pickle.dumps(subject)),
            lambda: next(iter(subject)),
            lambda: list(zip(range(9), subject, strict=False)),
            lambda: subject.__await__().send(None),
            lambda: next(subject.__await__()),
            lambda: object.__setattr__(subject, self.random.choice(TEXTS), self.any()),
            lambda: object.__delattr__(subject, "value"),
            lambda: subject.__dict__,
            lambda: weakref.ref(subject, lambda _: self.aside()),
            lambda: subject(**{self.random.choice(TEXTS): one for one in arguments}),
            lambda: subject(value=self.any()),
            lambda: sys.getsizeof(subject),
            lambda: gc.collect(self.random.randrange(3)),
            lambda: self.live.clear() if self.random.random() < 0.02 else None,
            lambda: in_context(subject),
        ]
        return self.random.choice(operations)()


def print_nothing(*_: Any) -> None:
    """Stamp an event that is not ours."""


def in_context(message: Any) -> Any:
    with message_context(message):
        return Rich(value=1), Do().metadata


def check_logs(machine: Machine) -> int:
    """Assert that every log adds up; return how many there were."""
    logs = [one for one in gc.get_objects() if isinstance(one, _core.EventLog)]
    for log in logs:
        events, _, streams = log.page(0, None, None, None, None, True)
        assert len(events) == len(streams) == len(log)
        for stream in set(streams):
            first, last = log.bounds(stream)
            assert len(log.read(stream, 0, None, None) or events) >= (streams.count(stream) == last - first + 1)
            assert streams.count(stream) == last - first + 1
    return len(logs)


def main(seed: int, calls: int, threads: int) -> None:
    faulthandler.enable()
    sys.setrecursionlimit(600)
    sys.unraisablehook = lambda unraisable: None
    machine = Machine(seed)

    def work() -> None:
        for _ in range(calls // threads):
            machine.step()

    workers = [threading.Thread(target=work) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    work()
    for worker in workers:
        worker.join()
    _core.freeze_clock(None), _core.number_ids(None)
    logs = check_logs(machine)
    if machine.failures:
        raise machine.failures[0]
    print(f"done: seed {seed}, {calls} calls, {logs} logs")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
