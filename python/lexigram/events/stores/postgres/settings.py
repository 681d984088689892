"""Where the database is and how it is used, checked once. Source: spec/reference-surface.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.postgres.names import TableNames

PAYLOAD_TYPES: Final = {"json": "json", "jsonb": "jsonb", "binary": "bytea"}


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What `PostgresEngine` needs to know; `repr` shows no password.

    Args:
        dsn: `postgresql://…`, or None where a pool or a provider is given.
        names: The tables.
        payload: Type of the payload column of a new log: `json`, `jsonb` or `bytea`.
        pool_min_size: Connections kept open for reading and units of work.
        pool_max_size: At most this many of them.
        command_timeout_seconds: For each statement.
        lock_timeout_seconds: How long an append may wait for another process's unit of work.
        reconnect_seconds: How long appends wait for a server that went away.
        create: Make and migrate the tables.
        transaction_pooling: A pooler (pgbouncer) in transaction mode is in between: nothing may outlive a transaction.
        listen: Be woken by other processes' commits; off, they are found by polling.
        ssl: As asyncpg takes it (`SSLContext`, mode); None = what the DSN says.
    """

    dsn: str | None
    names: TableNames
    payload: str = "json"
    pool_min_size: int = 1
    pool_max_size: int = 20
    command_timeout_seconds: float = 60.0
    lock_timeout_seconds: float = 30.0
    reconnect_seconds: float = 20.0
    create: bool = True
    transaction_pooling: bool = False
    listen: bool = True
    ssl: Any = None

    def __repr__(self) -> str:
        return f"PostgresSettings({self.where}, {self.names.events})"

    @classmethod
    def of(
        cls, config: Any, *, table_prefix: str = "", payload: str | None = None, ssl: Any = None
    ) -> PostgresSettings:
        """Build settings from a DSN, a `PostgresEventStoreConfig` or None (with a pool or provider).

        Raises:
            EventValidationError: LEX_ERR_EVT_024, naming the setting.
        """
        if config is None:
            return cls(None, TableNames(prefix=table_prefix), payload=_payload(payload or "json"))
        if isinstance(config, str):
            return cls(_dsn(config), TableNames(prefix=table_prefix), payload=_payload(payload or "json"), ssl=ssl)
        if not hasattr(config, "schema_name"):
            raise EventValidationError(
                f"config must be a postgresql:// DSN or a PostgresEventStoreConfig, got {type(config).__name__}",
                field="config",
            )
        secret = config.dsn
        return cls(
            dsn=None if secret is None else _dsn(secret.get_secret_value()),
            names=TableNames(
                schema=config.schema_name,
                prefix=table_prefix or config.table_prefix,
                events_table=config.events_table,
                snapshots_table=config.snapshots_table,
            ),
            payload=_payload(payload or config.payload_format),
            pool_min_size=min(config.pool_min_size, config.pool_max_size),
            pool_max_size=config.pool_max_size,
            command_timeout_seconds=config.command_timeout,
            lock_timeout_seconds=config.lock_timeout,
            reconnect_seconds=config.reconnect_timeout,
            create=config.auto_create_tables,
            transaction_pooling=config.transaction_pooling,
            listen=config.listen,
            ssl=ssl,
        )

    @property
    def where(self) -> str:
        """The database as shown in errors: host, port and name, no user and no password."""
        if self.dsn is None:
            return "PostgreSQL behind the given pool"
        parts = urlsplit(self.dsn)
        return f"PostgreSQL {parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def session(self) -> dict[str, str]:
        """Settings of each connection of our own. A pooler in between would refuse them."""
        if self.transaction_pooling:
            return {}
        return {
            "application_name": "lexigram-events",
            "default_transaction_isolation": "read committed",
            "jit": "off",
            # A plan made while the log was empty would scan it for ever.
            "enable_seqscan": "off",
            # Rows in the order of an index are read as they come, and not collected and sorted first.
            "random_page_cost": "1.1",
            "lock_timeout": f"{round(self.lock_timeout_seconds * 1000)}ms",
            "statement_timeout": f"{round(self.command_timeout_seconds * 1000)}ms",
        }


def _dsn(dsn: str) -> str:
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise EventValidationError("dsn must look like postgresql://user@host/database", field="dsn")
    try:
        for host in urlsplit(dsn).netloc.rpartition("@")[2].split(","):
            urlsplit(f"//{host}").port  # noqa: B018 - looked at to be checked
    except ValueError as error:
        # Not what the error says: it may quote the password.
        raise EventValidationError(
            "dsn: host and port cannot be read; it must look like postgresql://user@host:5432/database, "
            "with special characters of user and password written as %XX",
            field="dsn",
        ) from (None if "@" in str(error) else error)
    return dsn


def _payload(name: str) -> str:
    try:
        return PAYLOAD_TYPES[name]
    except KeyError:
        raise EventValidationError(
            f"payload_format must be one of {', '.join(PAYLOAD_TYPES)}, got {name!r}", field="payload_format"
        ) from None
