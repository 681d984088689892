"""The one thread that writes to a database file: group commit of everything that waits.

A batch is BEGIN IMMEDIATE, every waiting job in order, COMMIT: one fsync for all of them. Each job is atomic and
answered by itself; nobody is answered before the commit. Source: sqlite.org/wal.html.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from lexigram.events.exceptions import EventStoreConnectionError, EventStoreError
from lexigram.events.stores.sqlite.errors import read_error, write_error
from lexigram.events.stores.sqlite.jobs import Answers, Folder, FoldJob, Job, ReadJob, RunJob, SessionJob, answer
from lexigram.events.stores.sqlite.session import COMMIT, ROLLBACK, Command, Session
from lexigram.events.stores.sqlite.settings import SqliteSettings
from lexigram.events.stores.sqlite.transaction import WriteTransaction

MAX_BATCH_JOBS: Final = 1024
MAX_BATCH_WEIGHT: Final = 4096
"""Events in one commit: enough to make the fsync cheap, few enough that the first of them does not wait long."""


class Writer:
    """Owns the writing connection and its thread.

    Args:
        prepare: Called in the thread with the connection before the first job.
    """

    def __init__(self, settings: SqliteSettings, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self.opened: Future[None] = Future()
        self.stopped: Future[None] = Future()
        for future in (self.opened, self.stopped):
            # From now on one waiter's cancellation cannot cancel what every other waiter needs.
            future.set_running_or_notify_cancel()
        self.commits = 0
        self._folders: list[Folder] = []
        self._settings = settings
        self._prepare = prepare
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: SessionJob | None = None
        self._session: Session | None = None
        self._stopping = False
        self._transaction: WriteTransaction
        self._thread = threading.Thread(target=self._main, name=f"sqlite-writer {settings.path}", daemon=True)

    def start(self) -> None:
        """Start the thread; `opened` tells when the database is ready."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Any thread; costs well below a microsecond."""
        self._queue.put(job)

    def adopt(self, folder: Folder) -> None:
        """Have `folder` forget what it knows whenever that may have become wrong. Before its first job; any thread."""
        self._folders.append(folder)

    def waiting(self) -> int:
        """Return about how many jobs wait."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Finish what is queued, undo an open unit of work, close the connection; `stopped` tells when."""
        self._stopping = True
        session = self._session
        if session is not None:
            session.abort(_closed(self._settings.path))
        self._queue.put(None)

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the thread to end."""
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _main(self) -> None:
        try:
            self._transaction = WriteTransaction(self._settings, self._prepare, self._folders)
        except BaseException as error:
            self.opened.set_exception(error)
            self.stopped.set_result(None)
            return
        self.opened.set_result(None)
        try:
            while self._turn():
                pass
        finally:
            self._transaction.close()
            self.stopped.set_result(None)

    def _turn(self) -> bool:
        """Serve one batch or one session; False when it is time to end."""
        batch = self._take()
        if type(batch[0]) is SessionJob:
            self._serve(batch[0].session)
            return True
        reads = [job for job in batch if type(job) is ReadJob]
        if reads:
            self._read(reads)
        writes = [job for job in batch if job is not None and type(job) is not ReadJob and not job.future.cancelled()]
        if writes:
            self._write(writes)
        return batch[-1] is not None

    def _take(self) -> list[Job | None]:
        """Return what waits: a session alone, or jobs up to the limits of one commit, or jobs and the final None."""
        job: Job | None
        if self._held is not None:
            job, self._held = self._held, None
        else:
            job = self._queue.get()
        batch, weight = [job], 0
        while job is not None and type(job) is not SessionJob and len(batch) < MAX_BATCH_JOBS:
            weight += job.weight if type(job) is FoldJob else 1
            if weight >= MAX_BATCH_WEIGHT:
                break
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if type(job) is SessionJob:
                self._held = job
                break
            batch.append(job)
        return batch

    def _read(self, jobs: Sequence[ReadJob]) -> None:
        answers = Answers()
        for job in jobs:
            if not job.future.cancelled():
                try:
                    answers.add(job.future, job.fn(self._transaction.connection))
                except BaseException as error:
                    answers.add(job.future, None, read_error(error, self._settings.path))
        answers.send()

    def _write(self, jobs: Sequence[Job]) -> None:
        answers, folders = Answers(), set[Folder]()
        try:
            self._transaction.begin()
            self._execute(jobs, answers, folders)
            self._transaction.commit()
        except BaseException as error:
            self._transaction.undo()
            answers = Answers()
            for job in jobs:
                answers.add(job.future, None, write_error(error, self._settings.path))
            folders.clear()
        else:
            self.commits += 1
        answers.send()
        for folder in folders:
            folder.committed()

    def _execute(self, jobs: Sequence[Job], answers: Answers, folders: set[Folder]) -> None:
        """Run the jobs in order, neighbours with the same folder together."""
        start = 0
        while start < len(jobs):
            job, end = jobs[start], start + 1
            if type(job) is FoldJob:
                folder = job.folder
                folders.add(folder)
                while end < len(jobs) and getattr(jobs[end], "folder", None) is folder:
                    end += 1
                self._fold(folder, jobs[start:end], answers)
            elif type(job) is RunJob:
                self._run(job, answers)
            start = end

    def _fold(self, folder: Folder, jobs: Sequence[Any], answers: Answers) -> None:
        """Execute neighbours together; if that fails, each by itself, so that it fails alone."""
        requests = [job.request for job in jobs]
        try:
            outcomes = self._transaction.atomic(lambda connection: folder.fold(connection, requests), folder)
        except Exception:
            if not self._transaction.is_open:
                raise
            for job in jobs:
                self._fold_one(folder, job, answers)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                answers.add(job.future, None, outcome)
            else:
                answers.add(job.future, outcome)

    def _fold_one(self, folder: Folder, job: FoldJob, answers: Answers) -> None:
        try:
            answers.add(job.future, self._transaction.fold(folder, job.request))
        except Exception as error:
            if not self._transaction.is_open:
                raise
            answers.add(job.future, None, write_error(error, self._settings.path))

    def _run(self, job: RunJob, answers: Answers) -> None:
        try:
            answers.add(job.future, self._transaction.atomic(job.fn))
        except Exception as error:
            if not self._transaction.is_open:
                raise
            answers.add(job.future, None, write_error(error, self._settings.path))

    def _serve(self, session: Session) -> None:
        """Execute the session's commands until it commits, rolls back, fails or takes too long."""
        self._session = session
        commit: Command | None = None
        folders: set[Folder] = set()
        try:
            if self._stopping:
                raise _closed(self._settings.path)
            self._transaction.begin()
            commit = self._converse(session, folders)
            if commit is not None:
                self._transaction.commit()
                self.commits += 1
                answer(commit.future, None)
        except BaseException as error:
            self._transaction.undo()
            reason = write_error(error, self._settings.path)
            if commit is not None:
                answer(commit.future, None, reason)
            session.finish(reason)
            return
        finally:
            self._session = None
        session.finish(EventStoreError("the unit of work has ended; open a new one"))
        if commit is not None:
            for folder in folders:
                folder.committed()

    def _converse(self, session: Session, folders: set[Folder]) -> Command | None:
        """Obey until the end: return the COMMIT command, or None after a rollback."""
        deadline = time.monotonic() + session.timeout_seconds
        while True:
            command = session.next(deadline)
            if command.call == COMMIT:
                return command
            if command.call == ROLLBACK:
                self._transaction.undo()
                answer(command.future, None)
                return None
            if command.folder is not None:
                folders.add(command.folder)
            try:
                if command.folder is None:
                    value = self._transaction.atomic(command.call)
                else:
                    value = self._transaction.fold(command.folder, command.call)
            except Exception as error:
                answer(command.future, None, write_error(error, self._settings.path))
                if not self._transaction.is_open:
                    raise
            else:
                answer(command.future, value)


def _closed(path: str) -> EventStoreConnectionError:
    return EventStoreConnectionError(f"SQLite file {path} was closed; open the store again with connect()")
