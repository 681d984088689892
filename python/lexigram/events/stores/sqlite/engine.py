"""One engine per database file: its writer thread, its readers, its units of work, shared by all stores of the file.

May be used from several event loops and threads at once. Not across `fork`: a child process opens its own stores.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.stores.sqlite.direct import DirectReader
from lexigram.events.stores.sqlite.engine_base import UNIT_OF_WORK_SECONDS, AbstractEngine, F, check_timeout
from lexigram.events.stores.sqlite.errors import environment_error
from lexigram.events.stores.sqlite.jobs import Folder, FoldJob, ReadJob, RunJob, SessionJob
from lexigram.events.stores.sqlite.readers import ReaderPool
from lexigram.events.stores.sqlite.schema import prepare_file
from lexigram.events.stores.sqlite.session import Session, SqliteUnitOfWork
from lexigram.events.stores.sqlite.settings import SqliteSettings
from lexigram.events.stores.sqlite.unit import SqlUnitOfWork
from lexigram.events.stores.sqlite.writer import Writer
from lexigram.events.stores.unit_of_work import current_unit_of_work

T = TypeVar("T")

MAX_WAITING: Final = 16_384
"""Jobs that may wait for a thread; coroutines beyond that wait before they queue, so memory stays bounded."""

_engines: dict[object, SqliteEngine] = {}
_registry_lock = threading.Lock()
_before_fork: list[SqliteEngine] = []


class SqliteEngine(AbstractEngine):
    """Writes through one thread with group commit, reads through others; reference counted.

    Get one with `await SqliteEngine.connect(config)` and give it back with `await engine.release()`.
    """

    def __init__(self, settings: SqliteSettings, key: object) -> None:
        super().__init__()
        self.settings = settings
        self._key = key
        self._users = 0
        self._closed = False
        self._forked = False
        self._writer = Writer(settings, lambda connection: prepare_file(connection, settings))
        self._readers = None if settings.in_memory else ReaderPool(settings)
        # Without a write-ahead log a reader may have to wait for the writer.
        is_direct = settings.journal_mode == "WAL" and not settings.in_memory
        self._direct = DirectReader(settings) if is_direct else None

    @classmethod
    async def connect(cls, config: Any = None) -> SqliteEngine:
        """Return the open engine of the file that `config` names, starting it if this is the first user.

        Args:
            config: A path, an `sqlite://` URL, a `SqliteConfig` or None for `./events.db`. `:memory:` is shared by
                those who pass the same `SqliteConfig` object and private otherwise.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the file cannot be opened; it is left as it was.
            EventValidationError: LEX_ERR_EVT_024, the file is already open with other settings.
        """
        engine = cls._acquire(config)
        try:
            await asyncio.wrap_future(engine._writer.opened)
        except BaseException as error:
            await engine.release()
            path = engine.settings.path
            raise (environment_error(error, path, EventStoreConnectionError) or error) from error.__cause__
        return engine

    @classmethod
    def _acquire(cls, config: Any) -> SqliteEngine:
        settings = SqliteSettings.of(config)
        key: object = settings.path
        if settings.in_memory:
            key = object() if isinstance(config, str) else _Identity(config)
        with _registry_lock:
            engine = _engines.get(key)
            if engine is None:
                engine = _engines[key] = cls(settings, key)
                engine._writer.start()
            elif engine.settings != settings:
                raise EventValidationError(
                    f"SQLite file {settings.path} is already open in this process with other settings "
                    f"({engine.settings}); give all stores of a file the same SqliteConfig",
                    field="sqlite",
                )
            engine._users += 1
            return engine

    def share(self, key: object, make: Callable[[], F]) -> F:
        """Return the folder that stores on this file share under `key`; it forgets when others have written."""
        with _registry_lock:
            folder: F | None = self._shared.get(key)
            if folder is None:
                folder = self._shared[key] = make()
                self._writer.adopt(folder)
            return folder

    async def release(self) -> None:
        """Give the engine back; the last user closes it after everything queued has been done."""
        with _registry_lock:
            self._users -= 1
            if self._users > 0 or self._closed:
                return
            self._stop()
        if self._forked:
            return
        try:
            await asyncio.wrap_future(self._writer.stopped)
            self._writer.join()
            if self._readers is not None:
                for stopped in self._readers.stopped:
                    await asyncio.wrap_future(stopped)
                self._readers.join()
        finally:
            if self._direct is not None:
                self._direct.close()

    @property
    def path(self) -> str:
        """The file, as shown in errors."""
        return self.settings.path

    @property
    def commits(self) -> int:
        """How many transactions the writer has committed; many appends share one."""
        return self._writer.commits

    def check_open(self) -> None:
        """Raise `EventStoreConnectionError` if the engine cannot be used (any more)."""
        if self._forked:
            raise EventStoreConnectionError(
                f"SQLite file {self.path} was opened before this process was forked; open a new store in the child"
            )
        if self._closed:
            raise EventStoreConnectionError(f"SQLite file {self.path} was closed; open the store again with connect()")

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Call `fn(connection)` in the writer thread and commit, together with whatever else waits."""
        unit = self.current_unit()
        if unit is not None:
            return await unit.run(fn)
        if self._writer.waiting() >= MAX_WAITING:
            await self._room(self._writer)
            self.check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.submit(RunJob(future, fn))
        return await future

    async def read(self, fn: Callable[[sqlite3.Connection], T], *, snapshot: bool = False, key: str | None = None) -> T:
        """Call `fn(connection)` in a reader thread, or in the owner's unit of work where its writes matter."""
        unit = self.current_unit()
        if unit is not None and (unit.is_owner or self._readers is None) and unit.covers(key):
            return await unit.run(fn)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._readers is None:
            self._writer.submit(ReadJob(future, fn))
        else:
            if self._readers.waiting() >= MAX_WAITING:
                await self._room(self._readers)
                self.check_open()
            self._readers.submit(ReadJob(future, _in_snapshot(fn) if snapshot else fn))
        return await future

    async def look_up(self, fn: Callable[[sqlite3.Connection], T], key: str | None = None) -> T:
        """Call `fn(connection)` on this very thread, while that is quick; otherwise the same as `read`."""
        unit = self.current_unit()
        if self._direct is not None and (unit is None or not unit.covers(key)):
            found = self._direct.call(fn)
            if found is not None:
                value: T = found[0]
                return value
        return await self.read(fn, key=key)

    def fold(self, folder: Folder, request: Any, weight: int, unit: SqlUnitOfWork | None) -> Awaitable[Any]:
        """Have `folder` execute `request` with group commit, or inside `unit`."""
        if unit is not None:
            return unit.fold(folder, request)
        if self._closed or self._forked:
            self.check_open()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = FoldJob(future, folder, request, weight)
        if self._writer.waiting() >= MAX_WAITING:
            return self._fold_later(job)
        self._writer.submit(job)
        return future

    async def _fold_later(self, job: FoldJob) -> Any:
        await self._room(self._writer)
        self.check_open()
        self._writer.submit(job)
        return await job.future

    def unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> SqliteUnitOfWork:
        """Return one write transaction for this task, an async context manager; inside another one it joins that."""
        return SqliteUnitOfWork(self, check_timeout(timeout_seconds))

    def current_unit(self) -> SqlUnitOfWork | None:
        """Return this task's open unit of work on this file, or None. Raises if the engine is closed."""
        if self._closed or self._forked:
            self.check_open()
        unit: Any = current_unit_of_work(self)
        return unit  # type: ignore[no-any-return]

    def submit_session(self, session: Session) -> None:
        """Queue a unit of work for the writer."""
        self.check_open()
        self._writer.submit(SessionJob(session))

    async def _room(self, threads: Writer | ReaderPool) -> None:
        """Wait while too many jobs wait already; polled, because it is rare and must work across event loops."""
        while threads.waiting() >= MAX_WAITING:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def _stop(self) -> None:
        """Leave the registry and tell the threads to end; the registry lock is held."""
        self._closed = True
        if _engines.get(self._key) is self:
            del _engines[self._key]
        if not self._forked:
            self._writer.stop()
            if self._readers is not None:
                self._readers.stop()


class _Identity:
    """A dictionary key that is one particular object and keeps it alive."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def _in_snapshot(fn: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    def call(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN")
        try:
            return fn(connection)
        finally:
            connection.rollback()

    return call


@atexit.register
def _close_all() -> None:
    """End the threads of engines that nobody closed, so that they do not run into the interpreter's shutdown."""
    with _registry_lock:
        engines = list(_engines.values())
        for engine in engines:
            engine._stop()
    for engine in engines:
        engine._writer.join(5.0)


def _forget_parents_engines() -> None:
    """In a forked child: never touch the parent's connections, not even to close them."""
    global _registry_lock
    _registry_lock = threading.Lock()
    for engine in _engines.values():
        engine._forked = True
        _before_fork.append(engine)
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_engines)
