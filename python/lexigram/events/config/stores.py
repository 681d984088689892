"""Configuration of the store backends and of snapshots. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from lexigram.events.config.section import ConfigSection, address_aliases, section, setting
from lexigram.events.constants import DATABASE_NAME_PATTERN, NAMESPACE_PATTERN, TABLE_NAME_PATTERN
from lexigram.events.exceptions import EventValidationError
from lexigram.events.types import SnapshotStrategy
from lexigram.validation import SecretStr, field_validator


def _checked_scheme(value: SecretStr | str, schemes: tuple[str, ...], where: str) -> SecretStr:
    """Return `value` as a secret if it starts with one of the schemes; the message never shows it."""
    secret = value if isinstance(value, SecretStr) else SecretStr(value)
    if not secret.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise EventValidationError(f"{where}: expected an address like {schemes[0]}://host/name", field=where)
    return secret


@section
class InMemoryEventStoreConfig(ConfigSection):
    """The in-memory event store; `max_events_per_stream` 0 keeps everything."""

    max_events_per_stream: int = setting(10000, ge=0)
    enable_snapshots: bool = True


@section
class SqliteConfig(ConfigSection):
    """One SQLite file for events, snapshots, checkpoints, sagas and dead letters."""

    ALIASES: ClassVar[Mapping[str, str]] = {"path": "database", **address_aliases("database")}

    database: str = "./events.db"
    pragmas: dict[str, str] = field(default_factory=dict)
    wal_mode: bool = True
    journal_mode: str = setting("WAL", choices=("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"))
    synchronous: str = setting("FULL", choices=("FULL", "NORMAL", "OFF", "EXTRA"))
    busy_timeout_seconds: float = setting(5.0, ge=0)

    @field_validator("database", mode="before")
    @classmethod
    def validate_database(cls, v: str) -> str:
        """Return a path: `sqlite:///events.db` and `sqlite:////var/events.db` are paths too; NUL and empty are not."""
        path = v.removeprefix("sqlite:///").removeprefix("sqlite://") or ":memory:" if v.startswith("sqlite:") else v
        if not path.strip() or "\0" in path or ("://" in path and not path.startswith(("file:", "sqlite+"))):
            raise EventValidationError(
                "events.sqlite.database: expected the path of a file or sqlite:///path", field="events.sqlite.database"
            )
        return path


@section
class PostgresEventStoreConfig(ConfigSection):
    """PostgreSQL: where the server is and which tables to use."""

    ALIASES: ClassVar[Mapping[str, str]] = address_aliases("dsn")

    dsn: SecretStr | None = None
    pool_min_size: int = setting(5, ge=0)
    pool_max_size: int = setting(20, ge=1)
    command_timeout: float = setting(60.0, gt=0)
    events_table: str = setting("events", pattern=TABLE_NAME_PATTERN)
    snapshots_table: str = setting("snapshots", pattern=TABLE_NAME_PATTERN)
    auto_create_tables: bool = True
    schema_name: str | None = setting(None, pattern=TABLE_NAME_PATTERN)
    table_prefix: str = setting("", pattern=f"({TABLE_NAME_PATTERN})?")
    payload_format: str = setting("json", choices=("json", "jsonb", "binary"))
    lock_timeout: float = setting(30.0, gt=0)
    reconnect_timeout: float = setting(20.0, ge=0)
    transaction_pooling: bool = False
    listen: bool = True

    @field_validator("dsn", mode="before")
    @classmethod
    def validate_dsn(cls, v: SecretStr | str | None) -> SecretStr | None:
        """Return the DSN as a secret, or raise if it is no PostgreSQL address."""
        return None if v is None else _checked_scheme(v, ("postgresql", "postgres"), "events.postgres.dsn")


@section
class MongoDBEventStoreConfig(ConfigSection):
    """MongoDB: where the server is and which collections to use."""

    ALIASES: ClassVar[Mapping[str, str]] = {**address_aliases("connection_string"), "database": "database_name"}

    connection_string: SecretStr
    database_name: str = setting("events", pattern=DATABASE_NAME_PATTERN)
    events_collection: str = setting("domain_events", pattern=TABLE_NAME_PATTERN)
    snapshots_collection: str = setting("snapshots", pattern=TABLE_NAME_PATTERN)
    max_pool_size: int = setting(10, ge=1)
    server_selection_timeout: int = setting(30000, ge=1)

    @field_validator("connection_string", mode="before")
    @classmethod
    def validate_connection_string(cls, v: SecretStr | str) -> SecretStr:
        """Return the address as a secret, or raise if it is no MongoDB address."""
        return _checked_scheme(v, ("mongodb", "mongodb+srv"), "events.mongodb.connection_string")


@section
class RedisEventStoreConfig(ConfigSection):
    """Redis: where the server is and under which namespace the keys are."""

    ALIASES: ClassVar[Mapping[str, str]] = address_aliases("url")

    url: SecretStr | None = None
    namespace: str = setting("lexigram:events", pattern=NAMESPACE_PATTERN)
    max_connections: int = setting(20, ge=1)
    command_timeout: float = setting(60.0, gt=0)
    require_durable: bool = False

    @field_validator("url", mode="before")
    @classmethod
    def validate_url(cls, v: SecretStr | str | None) -> SecretStr | None:
        """Return the address as a secret, or raise if it is no Redis address."""
        return None if v is None else _checked_scheme(v, ("redis", "rediss", "unix"), "events.redis.url")


@section
class SnapshotConfig(ConfigSection):
    """When snapshots are taken and how many are kept."""

    enabled: bool = True
    strategy: SnapshotStrategy = SnapshotStrategy.EVENT_COUNT
    event_count_threshold: int = setting(100, ge=1)
    time_threshold_seconds: int = setting(3600, ge=1)
    max_snapshots_per_aggregate: int = setting(5, ge=1)
