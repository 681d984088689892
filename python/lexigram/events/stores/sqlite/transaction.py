"""The writing connection: takes the lock, keeps each job atomic within the transaction, and always comes back clean.

Source: sqlite.org/lang_savepoint.html, sqlite.org/pragma.html#pragma_data_version.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from lexigram.events.exceptions import EventStoreError
from lexigram.events.stores.sqlite.connection import close_quietly, open_writer
from lexigram.events.stores.sqlite.errors import is_busy
from lexigram.events.stores.sqlite.jobs import Folder
from lexigram.events.stores.sqlite.settings import SqliteSettings

_POLITE_SECONDS: Final = 1.0
_YIELD_SECONDS: Final = 0.001


class WriteTransaction:
    """One connection, used by the writer thread only.

    Args:
        prepare: Called with the connection before anything else: checks the file, sets the journal mode.
        folders: Whose cached rows must be forgotten when a transaction is undone or somebody else has written. Others
            may add to it.
    """

    def __init__(
        self, settings: SqliteSettings, prepare: Callable[[sqlite3.Connection], None], folders: Sequence[Folder]
    ) -> None:
        self.connection = open_writer(settings)
        self._busy_timeout_seconds = settings.busy_timeout_seconds
        self._folders = folders
        self._guarded = False
        self._data_version = -1
        self._polite_until = self._ended = 0.0
        try:
            prepare(self.connection)
            self.connection.set_authorizer(self._authorize)
            # `_patiently` retries instead: SQLite's own back-off of up to 100 ms loses every race against a busy process.
            self.connection.execute("PRAGMA busy_timeout=0")
        except BaseException:
            close_quietly(self.connection)
            raise

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open; after a full disk and the like SQLite has already undone it."""
        return self.connection.in_transaction

    def begin(self) -> None:
        """Take the write lock, waiting for other processes, and forget what they may have changed."""
        now = time.monotonic()
        if now < self._polite_until:
            # Another process writes too: leave it a gap, or it would starve between our commits.
            time.sleep(max(self._ended + _YIELD_SECONDS - now, 0.0))
        self._patiently(lambda: self.connection.execute("BEGIN IMMEDIATE"))
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            if self._data_version != -1:
                self._polite_until = time.monotonic() + _POLITE_SECONDS
            self._data_version = version
            self._reset_folders()

    def commit(self) -> None:
        """Make everything durable, or raise. Without a write-ahead log it first waits for readers to finish."""
        self._patiently(self.connection.commit)
        self._ended = time.monotonic()

    def undo(self) -> None:
        """Roll back what is open; afterwards the connection is as good as new."""
        with suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.rollback()
        self._reset_folders()

    def atomic(self, fn: Callable[[sqlite3.Connection], Any], folder: Folder | None = None) -> Any:
        """Call `fn(connection)`; if it raises, undo what it wrote and nothing else.

        Args:
            folder: Whose cached rows have to follow.
        """
        connection = self.connection
        connection.execute("SAVEPOINT job")
        self._guarded = True
        try:
            result = fn(connection)
        except BaseException as error:
            self._guarded = False
            if folder is not None:
                folder.reset()
            if connection.in_transaction:
                connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
                raise EventStoreError(
                    "a function in the store's transaction must not commit or roll back; let it return or raise"
                ) from error
            raise
        self._guarded = False
        connection.execute("RELEASE job")
        return result

    def fold(self, folder: Folder, request: Any) -> Any:
        """Execute one request of a folder; returns or raises its outcome."""
        try:
            (outcome,) = self.atomic(lambda connection: folder.fold(connection, (request,)), folder)
        except sqlite3.IntegrityError:
            if not self.is_open:
                raise
            outcome = self.atomic(lambda connection: folder.fold_one(connection, request), folder)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """Undo what is open and close the connection."""
        self.undo()
        close_quietly(self.connection)

    def _patiently(self, call: Callable[[], object]) -> None:
        """Call until no lock is in the way, for as long as the settings say."""
        deadline = time.monotonic() + self._busy_timeout_seconds
        while True:
            try:
                call()
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(0.0002, 0.002))

    def _reset_folders(self) -> None:
        for folder in self._folders:
            folder.reset()

    def _authorize(self, action: int, *_names: object) -> int:
        """Refuse COMMIT and ROLLBACK inside a job: they would tear its neighbours apart."""
        return sqlite3.SQLITE_DENY if self._guarded and action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK
