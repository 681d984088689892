"""Threads that read, each with its own connection: they never wait for the writer and see committed data only."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from typing import Final

from lexigram.events.stores.sqlite.connection import close_quietly, open_reader
from lexigram.events.stores.sqlite.errors import read_error
from lexigram.events.stores.sqlite.jobs import Answers, ReadJob
from lexigram.events.stores.sqlite.settings import SqliteSettings

READER_THREADS: Final = 2
_MAX_ROUND: Final = 16
_ROUND_SECONDS: Final = 0.001


class ReaderPool:
    """At most `size` threads, started when there is something to read."""

    def __init__(self, settings: SqliteSettings, size: int = READER_THREADS) -> None:
        self._settings = settings
        self._size = size
        self._queue: queue.SimpleQueue[ReadJob | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.stopped: list[Future[None]] = []
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, job: ReadJob) -> None:
        """Queue a read. Any thread."""
        self._queue.put(job)
        if len(self._threads) < self._size and self._queue.qsize():
            self._grow()

    def waiting(self) -> int:
        """Return about how many reads wait."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Finish what is queued, then end the threads."""
        with self._lock:
            self._stopped = True
            for _ in self._threads:
                self._queue.put(None)

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the threads to end."""
        for thread in self._threads:
            thread.join(timeout_seconds)

    def _grow(self) -> None:
        with self._lock:
            if len(self._threads) < self._size and not self._stopped:
                name = f"sqlite-reader-{len(self._threads)} {self._settings.path}"
                stopped: Future[None] = Future()
                stopped.set_running_or_notify_cancel()
                thread = threading.Thread(target=self._main, args=(stopped,), name=name, daemon=True)
                self._threads.append(thread)
                self.stopped.append(stopped)
                thread.start()

    def _main(self, stopped: Future[None]) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while True:
                job = self._queue.get()
                if job is None:
                    return
                connection = self._round(connection, job)
        finally:
            if connection is not None:
                close_quietly(connection)
            stopped.set_result(None)

    def _round(self, connection: sqlite3.Connection | None, job: ReadJob | None) -> sqlite3.Connection | None:
        """Answer `job` and, with the same wake-up, what else is waiting, unless that takes long."""
        answers = Answers()
        end = time.monotonic() + _ROUND_SECONDS
        for count in range(_MAX_ROUND):
            if job is None:
                self._queue.put(None)
                break
            if not job.future.cancelled():
                try:
                    if connection is None:
                        connection = open_reader(self._settings)
                    answers.add(job.future, job.fn(connection))
                except BaseException as error:
                    if connection is not None and connection.in_transaction:
                        connection.rollback()
                    answers.add(job.future, None, read_error(error, self._settings.path))
            if count == _MAX_ROUND - 1 or time.monotonic() >= end:
                break
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
        answers.send()
        return connection
