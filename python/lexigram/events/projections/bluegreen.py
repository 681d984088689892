"""Replaces a read model by a new version of it without a moment in which readers see neither, or both.

The new version is a projection like any other: it catches up from position 0 into tables of its own, in the partitions
and processes that the manager's configuration gives, goes on after a kill where it was, and follows the log from then on.
What is added here is verification, the switch, the way back and the end of a version. Source: design, projections.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from lexigram.events.exceptions import (
    ConcurrencyError,
    EventValidationError,
    ProjectionBuildError,
    ProjectionRebuildError,
)
from lexigram.events.projections.applier import EFFECTS
from lexigram.events.projections.base import ProjectionStatus
from lexigram.events.projections.comparison import Reader, Verification, compare_with_log, compare_with_version
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.projections.parts import ProjectionParts
from lexigram.events.projections.read_model import ReadModel, ReadModelState, versioned
from lexigram.events.projections.rebuild import Progress
from lexigram.events.stores.unit_of_work import UnitOfWork

_PROGRESS_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 0.003
_BATCH: Final = 1000

Change = Callable[[UnitOfWork, ReadModelState], Awaitable[bool]]
"""Changes a locked read model; False = not possible yet, nothing was changed."""


@dataclass(frozen=True)
class DropPlan:
    """What `drop` would remove for ever.

    Args:
        version: The version.
        rows: Number of rows by table.
        token: Confirms it.
    """

    version: int
    rows: Mapping[str, int]
    token: str


class BlueGreenRebuild:
    """One new version of a read model: built beside the version that readers see, verified, switched to, or back from.

    Args:
        manager: Runs the versions; it is started, and the version that readers see is registered, so that it goes on
            following the log. Several processes with the same versions build together where it is shared.
        new: The new version; registered with the manager unless it is already.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; the projection has no `read_model`, or its store has no tables.
    """

    def __init__(self, manager: ProjectionManager, new: DurableProjection) -> None:
        if not isinstance(new, DurableProjection) or not new._has_versions:
            name = new.__name__ if isinstance(new, type) else type(new).__name__
            raise EventValidationError(
                f"{name} has no versions: give it read_model = … and version = …, and pass an object of it",
                field="new",
            )
        if manager.get(new.name) is None:
            manager.register(new)
        self.version = new.version
        self._manager, self._store = manager, manager.event_store
        self._model = ReadModel(self._store, new.read_model)
        self._sql = self._model.sql
        self._parts: ProjectionParts = manager.parts(new.name)

    # Building

    async def build(self, *, on_progress: Progress | None = None, timeout: float | None = None) -> int:
        """Return once the version has processed all that is in the log now; it goes on following the log.

        An event that fails is never skipped or parked. Events keep being appended meanwhile, and readers see nothing of it.

        Args:
            on_progress: Called five times a second with (positions done, positions in total).
            timeout: Seconds; None waits for ever. The building goes on after it.

        Returns:
            The position up to which it is built at least.

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; an event failed, `manager.resume` goes on before it.
            TimeoutError: It did not get there in time.
        """
        self._check_running()
        target = await self._store.head()
        waiting = asyncio.ensure_future(self._parts.wait_for(target))
        try:
            async with asyncio.timeout(timeout):
                while not waiting.done():
                    await asyncio.wait((waiting,), timeout=_PROGRESS_SECONDS)
                    if on_progress is not None:
                        on_progress(target if waiting.done() else min(target, await self._done()), target)
            waiting.result()
        except ProjectionBuildError as error:
            raise ProjectionRebuildError(
                f"Version {self.version} of {self._model.name!r} cannot be built: {error}",
                cause=error,
                details=dict(error.details or {}),
            ) from error
        finally:
            waiting.cancel()
        return int(target)

    async def status(self) -> dict[str, Any]:
        """Return the version that readers see, and position and lag of every version, whichever process runs it."""
        state, head = await self._state(), await self._store.head()
        places = {version: await self._positions(self._store.engine, version) for version in state.tables}
        lowest = {version: min(found.values()) for version, found in places.items()}
        return {
            "read_model": self._model.name,
            "active": state.active,
            "versions": {
                version: {
                    "position": lowest[version],
                    "lag": max(0, head - lowest[version]),
                    "seen": version in state.seen,
                }
                for version in sorted(state.tables)
            },
        }

    # Verifying

    async def verify(
        self, against: Literal["log", "old"] = "log", *, sample: int = 100, timeout: float = 60.0
    ) -> Verification:
        """Compare the version, as of one position and while events keep coming: count, checksum and sampled rows.

        Args:
            against: "log" computes the read model once more, in one go, into tables that go away again: the version must
                be exactly that. It takes as long as a rebuild, and nobody waits for it. "old" compares the columns
                shared with the version that readers see now, in a snapshot in which both are at one position; nobody waits
                for it. Only where they do not meet for five seconds, batches of all versions are held up while it reads
                (on SQLite all writers).
            sample: Rows of each table that are compared one by one, from 0, so that a difference can be shown.
            timeout: Seconds that "old" may take.

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; the sides have no table in common.
            ProjectionNotFoundError: LEX_ERR_EVT_017; the old version is not registered here.
        """
        self._check_running()
        if against not in ("log", "old"):
            raise EventValidationError(f"against must be 'log' or 'old', not {against!r}", field="against")
        if against == "log":
            return await compare_with_log(
                self._sql, self._projection, self._readers(self._parts), sample=sample, batch_size=_BATCH
            )
        old = self._manager.parts(f"{self._model.name}@{(await self._state()).active}")
        other: Any = old.projection
        sides = self._readers(self._parts), self._readers(old)
        return await compare_with_version(self._sql, self._projection, other, sides, sample=sample, timeout=timeout)

    # Switching

    async def switch(
        self, verified: Verification, *, accept_differences: bool = False, timeout: float = 30.0
    ) -> ReadModelState:
        """Let readers see the version, from one moment on, once it is not behind the version that they see now.

        Each transaction of a reader sees the old version or the new one. Effects outside of the read model
        (`may_have_effects`) go over to the version at the same moment. The old version goes on following the log.

        Args:
            verified: What `verify` has found.
            accept_differences: Switch although it has found some: the new version is meant to be different.
            timeout: Seconds to wait until the version is not behind, and for readers' transactions that hold up the switch
                (on PostgreSQL; others wait behind it for at most a tenth of a second at a time).

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; it was not verified, differs, is behind, or readers did not end their
                transactions. Nothing was changed.
        """
        if not isinstance(verified, Verification) or verified.version != self.version:
            raise EventValidationError(f"{verified} is not about version {self.version}", field="verified")
        if not verified.ok and not accept_differences:
            different = [table.table for table in verified.tables if not table.ok]
            raise ProjectionRebuildError(
                f"Version {self.version} of {self._model.name!r} differs in {', '.join(different)}; pass "
                "accept_differences=True if it is meant to"
            )

        async def change(unit: UnitOfWork, state: ReadModelState) -> bool:
            if state.active == self.version:
                return True
            new, old = [await self._positions(unit, version) for version in (self.version, state.active)]
            if any(mine < its for mine, its in zip(new.values(), old.values(), strict=True)):
                return False
            await self._point(unit, state, self.version)
            return True

        return await self._change(change, timeout)

    async def roll_back(self, *, timeout: float = 30.0) -> ReadModelState:
        """Let readers see the version again that they saw before this one, at once, wherever it is.

        Where they do not see this one any more it has been rolled back already, and nothing happens.

        Args:
            timeout: Seconds to wait for readers' transactions that hold up the switch.

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; they have not seen this one yet, there is none to go back to any more,
                or readers did not end their transactions.
        """

        async def change(unit: UnitOfWork, state: ReadModelState) -> bool:
            if state.active != self.version and self.version in state.seen:
                return True
            before = state.before(self.version)
            if before is None:
                raise ProjectionRebuildError(f"{self._model.name!r} has no version to go back to")
            await self._point(unit, state, before)
            return True

        return await self._change(change, timeout)

    # The end of a version

    async def plan_drop(self, version: int) -> DropPlan:
        """Count what dropping a version would remove and return the token that confirms it. Removes nothing."""
        state = await self._state()
        self._check_unseen(state, version)
        rows = {}
        for table in state.tables[version]:
            (count,) = await self._store.engine.fetch_one(f'SELECT count(*) FROM "{versioned(table, version)}"')
            rows[table] = int(count)
        return DropPlan(version, rows, self._token(state, version))

    async def drop(self, version: int, token: str, *, timeout: float = 30.0) -> None:
        """Remove the tables and positions of a version; the number is not used again, and whoever runs it faults.

        Args:
            version: Not the one that readers see.
            token: From `plan_drop`.
            timeout: Seconds to wait for transactions that still read its tables.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; readers see the version, or versions have been switched or dropped since
                the plan. Nothing is removed.
        """

        async def change(unit: UnitOfWork, state: ReadModelState) -> bool:
            self._check_unseen(state, version)
            if token != self._token(state, version):
                raise EventValidationError("the token does not confirm this; plan it again", field="token")
            await self._sql.hurry(unit)
            for table in state.tables[version]:
                await unit.execute(f'DROP TABLE "{versioned(table, version)}"')
            for name in self._checkpoints(version):
                for one in (name, name + EFFECTS):
                    await unit.execute(f"UPDATE {self._sql.checkpoints} SET position = NULL WHERE name = ?", (one,))
            await self._model.save(unit, state.without(version))
            return True

        await self._change(change, timeout)
        self._manager.unregister(f"{self._model.name}@{version}")

    # Internals

    @property
    def _projection(self) -> DurableProjection:
        projection: Any = self._parts.projection
        return projection  # type: ignore[no-any-return]

    def _readers(self, parts: ProjectionParts) -> dict[str, Reader]:
        readers = {runner.applier.checkpoint_name: runner.reader for runner in parts.runners}
        return {name: reader for name, reader in readers.items() if reader is not None}

    def _check_running(self) -> None:
        if not any(runner.following for runner in self._parts.runners):
            raise EventValidationError("start the ProjectionManager first: it builds the version", field="manager")

    def _check_unseen(self, state: ReadModelState, version: int) -> None:
        if version == state.active or version not in state.tables:
            what = "is what readers see" if version == state.active else "does not exist"
            raise EventValidationError(f"version {version} of {self._model.name!r} {what}", field="version")

    def _token(self, state: ReadModelState, version: int) -> str:
        digest = hashlib.sha256(f"{self._model.name}:{version}:{state.details}".encode()).hexdigest()[:12]
        return f"drop-{self._model.name}-{version}-{digest}"

    def _checkpoints(self, version: int) -> list[str]:
        """Return the names of a version's checkpoints, those of the partitions in their order."""
        present = f"{self._model.name}@{self.version}"
        names = [runner.applier.checkpoint_name for runner in self._parts.runners]
        return [f"{self._model.name}@{version}{name.removeprefix(present)}" for name in names]

    async def _positions(self, reader: Any, version: int) -> dict[str, int]:
        names = self._checkpoints(version)
        return dict.fromkeys(names, 0) | await self._sql.positions(reader, names)

    async def _done(self) -> int:
        """Return how far the partitions are on average, whoever works on them."""
        stored = (await self._positions(self._store.engine, self.version)).values()
        known = [runner.projection.position for runner in self._parts.runners]
        return sum(map(max, stored, known)) // len(known)

    async def _state(self) -> ReadModelState:
        state = await self._model.state(self._store.engine)
        if state is None or self.version not in state.tables:
            raise ProjectionRebuildError(f"Version {self.version} of {self._model.name!r} has not been started")
        return state

    async def _settle(self) -> None:
        """Store the positions of the parts that this process runs: it does not do so for every event that is not wanted."""
        prefix = f"{self._model.name}@"
        for projection in self._manager.get_all():
            if projection.name.startswith(prefix) and projection.status is ProjectionStatus.RUNNING:
                for runner in self._manager.parts(projection.name).runners:
                    if runner.is_owner and runner.following:
                        async with runner.exclusively():
                            with suppress(ConcurrencyError):  # another worker has just taken it over
                                await runner.applier.flush()

    async def _point(self, unit: UnitOfWork, state: ReadModelState, version: int) -> None:
        """Show another version. Effects go over at a position that neither has passed: no batch is under way now."""
        places = [await self._positions(unit, one) for one in (state.active, version)]
        handover = max(position for found in places for position in found.values())
        await self._sql.hurry(unit)
        await self._model.point(unit, state, state.switched(version, handover))

    async def _change(self, change: Change, timeout: float) -> ReadModelState:
        """Change the read model in one transaction, tried until it can be done; return the new state."""
        deadline = time.monotonic() + timeout
        while True:
            await self._settle()
            reason = f"version {self.version} is behind the version that readers see"
            try:
                async with self._store.unit_of_work() as unit:
                    await self._sql.lock(unit)
                    state = await self._model.state(unit)
                    if state is None:
                        raise ProjectionRebuildError(f"{self._model.name!r} has not been started")
                    done = await change(unit, state)
                if done:
                    return await self._state()
            except Exception as error:
                if not hasattr(error, "sqlstate"):
                    raise
                if not self._sql.is_busy(error):  # the database refuses: something depends on the view, say
                    raise ProjectionRebuildError(f"{self._model.name!r} was not changed: {error}") from error
                reason = "transactions of readers are in the way"
            if time.monotonic() > deadline:
                raise ProjectionRebuildError(f"{self._model.name!r} was not changed: {reason}")
            await asyncio.sleep(_RETRY_SECONDS)
