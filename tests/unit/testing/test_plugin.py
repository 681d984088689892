"""The fixtures work in another project's tests."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = "pytester"

PLUGIN = "lexigram.events.testing.plugin"


def run(pytester: pytest.Pytester, code: str, *arguments: str) -> pytest.RunResult:
    """Run a test file in a fresh process, with the plugin as an installed package has it."""
    pytester.makepyfile(code)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n")
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    return pytester.runpytest_subprocess(*([] if installed else ["-p", PLUGIN]), *arguments)


CODE = """
import pytest
from datetime import UTC, datetime, timedelta
from lexigram.events import AggregateRoot, DomainEvent, EventSourcingRepository

class Opened(DomainEvent):
    owner: str

class Account(AggregateRoot):
    owner: str = ""
    def open(self, owner):
        self._apply(Opened(owner=owner))
    def _handle_opened(self, event):
        self.owner = event.owner

async def save(event_store, snapshot_store):
    repository = EventSourcingRepository(Account, event_store, snapshot_store, snapshot_every=1)
    account = Account(id="a")
    account.open("Ada")
    await repository.save(account)
    return await repository.get("a")

@pytest.mark.asyncio
@pytest.mark.parametrize("again", [1, 2])
async def test_stores_are_empty_each_time(event_store, snapshot_store, again):
    assert not await event_store.stream_exists("a")
    assert (await save(event_store, snapshot_store)).owner == "Ada"
    assert await snapshot_store.get_latest("a") is not None

@pytest.mark.asyncio
async def test_the_bus_delivers(event_bus):
    seen = []
    async def note(event):
        seen.append(event.owner)
    event_bus.subscribe(Opened, note)
    await event_bus.publish(Opened(owner="Ada"))
    await event_bus.flush()
    assert seen == ["Ada"]

def test_time_stands_still(frozen_clock):
    first = Opened(owner="x").occurred_at
    assert first == frozen_clock.now == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert frozen_clock.advance(90) == first + timedelta(seconds=90)
    assert Opened(owner="x").occurred_at == frozen_clock.now
    frozen_clock.move_to(datetime(2000, 1, 1))
    assert Opened(owner="x").occurred_at.year == 2000

def test_ids_count_up(recorded_ids):
    assert len(recorded_ids) == 0
    following = recorded_ids.next
    event, account = Opened(owner="x"), Account()
    assert (event.event_id, account.id) == (recorded_ids[0], recorded_ids[-1])
    assert list(recorded_ids) == [following, account.id]

def test_nothing_is_left_behind():
    assert abs(Opened(owner="x").occurred_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert not str(Opened(owner="x").event_id).startswith("00000000-0000-7000")

def test_scenario(scenario):
    scenario(Account).when(lambda account: account.open("Ada")).then(Opened(owner="Ada"))
"""


def test_every_fixture_works_in_another_project(pytester: pytest.Pytester) -> None:
    """Stores, bus, clock, ids and scenario, with warnings as errors."""
    run(pytester, CODE).assert_outcomes(passed=7)


SUITES = """
from lexigram.events import InMemoryCheckpointStore, InMemoryDeadLetterStore, InMemoryEventStore, InMemorySnapshotStore
from lexigram.events.sagas.store import InMemorySagaStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.dead_letters import DeadLetterStoreContract
from lexigram.events.testing.event_store import EventStoreContract
from lexigram.events.testing.inbox import InboxContract
from lexigram.events.testing.outbox import OutboxContract
from lexigram.events.testing.projections import ProjectionContract
from lexigram.events.testing.saga_store import SagaStoreContract
from lexigram.events.testing.snapshot_store import SnapshotStoreContract


def made_by(store):
    async def make_store(self, **options):
        return store(**options)

    return {"make_store": make_store}


async def make_stores(self):
    return InMemoryEventStore(), InMemoryIdempotencyStore()


TestEvents = type("TestEvents", (EventStoreContract,), made_by(InMemoryEventStore))
TestOutbox = type("TestOutbox", (OutboxContract,), made_by(InMemoryEventStore))
TestProjections = type("TestProjections", (ProjectionContract,), made_by(InMemoryEventStore))
TestSnapshots = type("TestSnapshots", (SnapshotStoreContract,), made_by(InMemorySnapshotStore))
TestCheckpoints = type("TestCheckpoints", (CheckpointStoreContract,), made_by(InMemoryCheckpointStore))
TestMarks = type("TestMarks", (IdempotencyStoreContract,), made_by(InMemoryIdempotencyStore))
TestSagas = type("TestSagas", (SagaStoreContract,), made_by(InMemorySagaStore))
TestLetters = type("TestLetters", (DeadLetterStoreContract,), made_by(InMemoryDeadLetterStore))
TestInbox = type("TestInbox", (InboxContract,), {"make_stores": make_stores})
"""


def test_every_contract_suite_runs_in_another_project(pytester: pytest.Pytester) -> None:
    """With the default settings of pytest-asyncio, which runs no test and no fixture that is not marked as its own."""
    small = "TestSagas or TestMarks or TestCheckpoints or TestSnapshots or TestInbox or refused or order"
    found = run(pytester, SUITES, "-k", small).parseoutcomes()
    assert found.pop("passed") > 40
    assert set(found) == {"deselected"}


def test_the_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows them with what they are."""
    result = run(pytester, "def test_nothing(): pass", "--fixtures")
    for name in ("event_store", "snapshot_store", "event_bus", "frozen_clock", "recorded_ids", "scenario"):
        result.stdout.fnmatch_lines([f"{name} *lexigram*"])


def test_a_project_that_does_not_use_them_pays_nothing(pytester: pytest.Pytester) -> None:
    """Loading the plugin imports neither the core nor pydantic."""
    code = """
    import sys

    def test_not_imported():
        assert "lexigram.events.messages" not in sys.modules
        assert "lexigram.events._core" not in sys.modules
        assert "pydantic" not in sys.modules
    """
    run(pytester, code).assert_outcomes(passed=1)


def test_a_fixture_of_ones_own_takes_precedence(pytester: pytest.Pytester) -> None:
    """A project keeps its own `event_store`."""
    code = """
    import pytest

    @pytest.fixture
    def event_store():
        return "mine"

    def test_mine(event_store):
        assert event_store == "mine"
    """
    run(pytester, code).assert_outcomes(passed=1)


def test_recorded_ids_stay_readable_after_release() -> None:
    """The list is complete when ids are random again."""
    from lexigram.events import Event
    from lexigram.events.testing.clock import RecordedIds

    ids = RecordedIds()
    event = Event()
    ids.release()
    Event()
    assert list(ids) == [event.event_id]
