"""Where the database is and how durably it is written, checked once and the same for all stores of one file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lexigram.events.exceptions import EventValidationError

MEMORY: Final = ":memory:"
_PRAGMA_NAME: Final = re.compile(r"[a-z_]{1,40}")
_PRAGMA_VALUE: Final = re.compile(r"-?[A-Za-z0-9_.]{1,40}")
_SYNCHRONOUS: Final = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}
_JOURNAL_MODES: Final = ("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF")


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """What `SqliteEngine` needs to know.

    Args:
        path: Absolute path, `file:` URI, or `:memory:`.
        synchronous: OFF, NORMAL, FULL (default: an acknowledged append survives a power cut) or EXTRA.
        journal_mode: WAL (default: readers never wait for the writer) or a rollback journal.
        busy_timeout_seconds: How long another process may hold the write lock; from 0.
        pragmas: Further pragmas for every connection, in order.
    """

    path: str
    synchronous: str = "FULL"
    journal_mode: str = "WAL"
    busy_timeout_seconds: float = 5.0
    pragmas: tuple[tuple[str, str], ...] = ()

    @property
    def in_memory(self) -> bool:
        """Whether the database lives in one connection and dies with it."""
        return self.path == MEMORY

    @classmethod
    def of(cls, config: Any) -> SqliteSettings:
        """Build settings from a path, an `sqlite://` URL, a `SqliteConfig`, or None for the default file.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, naming the setting.
        """
        if config is None:
            config = "./events.db"
        if isinstance(config, cls):
            return config
        if isinstance(config, str | os.PathLike):
            return cls(path=normalise_path(os.fspath(config)))
        if not hasattr(config, "database"):
            return cls(path=normalise_path(config))
        pragmas = {str(name).lower(): value for name, value in dict(getattr(config, "pragmas", None) or {}).items()}
        wal = getattr(config, "wal_mode", True)
        journal = str(pragmas.pop("journal_mode", None) or getattr(config, "journal_mode", "WAL")).upper()
        if not wal and journal == "WAL":
            journal = "DELETE"
        synchronous = pragmas.pop("synchronous", None) or getattr(config, "synchronous", None) or "FULL"
        timeout = getattr(config, "busy_timeout_seconds", 5.0)
        if "busy_timeout" in pragmas:
            timeout = _milliseconds(pragmas.pop("busy_timeout")) / 1000
        return cls(
            path=normalise_path(config.database),
            synchronous=_one_of("synchronous", synchronous, tuple(_SYNCHRONOUS.values())),
            journal_mode=_one_of("journal_mode", journal, _JOURNAL_MODES),
            busy_timeout_seconds=float(timeout),
            pragmas=_check_pragmas(pragmas),
        )


def normalise_path(database: object) -> str:
    """Return one spelling per database: absolute with links resolved, the `file:` URI as given, or `:memory:`."""
    if not isinstance(database, str) or not database or "\x00" in database:
        raise EventValidationError(
            f"database must be a file path, an sqlite:// URL or ':memory:', got {database!r}", field="database"
        )
    other = re.match(r"(?!sqlite|file:)([A-Za-z][A-Za-z0-9+.-]*)://", database)
    if other:  # it may hold a password, so it is not shown
        raise EventValidationError(
            f"database must be a file path or an sqlite:// URL, got a {other[1]}:// address", field="database"
        )
    match = re.match(r"sqlite(?:\+\w+)?://(?P<rest>.*)", database, re.DOTALL)
    if match:
        rest = match["rest"].partition("?")[0]
        database = rest[1:] if rest.startswith("/") else rest
        database = database or MEMORY
    if database == MEMORY or database.startswith("file:"):
        return database
    return os.path.realpath(os.path.expanduser(database))


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    text = _SYNCHRONOUS.get(str(value), str(value).upper())
    if text not in allowed:
        raise EventValidationError(f"{name} must be one of {', '.join(allowed)}, got {value!r}", field=name)
    return text


def _milliseconds(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise EventValidationError(f"pragma busy_timeout must be milliseconds from 0, got {value!r}", field="pragmas")
    return number


def _check_pragmas(pragmas: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pragmas cannot be bound as parameters, so only plain words and numbers are let through."""
    checked = []
    for name, value in pragmas.items():
        text = str(value)
        if _PRAGMA_NAME.fullmatch(name) is None or _PRAGMA_VALUE.fullmatch(text) is None:
            raise EventValidationError(
                f"pragma {name!r} = {value!r} must be a plain name and a word or number", field="pragmas"
            )
        checked.append((name, text))
    return tuple(checked)
