"""Configuration: `EventsConfig` and one section per part.

Precedence is the framework's: an explicit `EventsConfig` in code is taken as it is; without one the environment
(`LEX_EVENTS__…`) overrides the profile's YAML, which overrides `application.yaml`, which overrides the defaults.
Texts may refer to environment variables: `${VAR}` or `${VAR:default}`. Secrets are masked in `repr`.

Source: spec/package-page.md, spec/reference-surface.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Self

from lexigram.config.base import BaseConfig
from lexigram.config.lib import EnvironmentConfigSource
from lexigram.contracts.core.config import ConfigIssue, Environment
from lexigram.validation import SecretStr, field_validator

from lexigram.events.config_section import ConfigSection, canonical, section, setting
from lexigram.events.constants import ENV_NESTED_DELIMITER, ENV_PREFIX, EVENT_BUS_BACKENDS, EVENT_STORE_BACKENDS
from lexigram.events.exceptions import EventValidationError
from lexigram.events.types import EventStoreBackend, SnapshotStrategy

_ADDRESS_NAMES = ("connection_string", "dsn", "uri", "url")


def _address(field_name: str) -> dict[str, str]:
    """Return the aliases of an address field: all its usual names."""
    return {name: field_name for name in _ADDRESS_NAMES if name != field_name}


def _checked_scheme(value: SecretStr | str, schemes: tuple[str, ...], where: str) -> SecretStr:
    """Return `value` as a secret if it starts with one of the schemes; the message never shows it."""
    secret = value if isinstance(value, SecretStr) else SecretStr(value)
    if not secret.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise EventValidationError(f"{where}: expected an address like {schemes[0]}://host/name", field=where)
    return secret


@section
class InMemoryEventStoreConfig(ConfigSection):
    """The in-memory event store."""

    max_events_per_stream: int = setting(10000, ge=1)
    enable_snapshots: bool = True


@section
class SqliteConfig(ConfigSection):
    """One SQLite file for events, snapshots, checkpoints, sagas and dead letters."""

    ALIASES: ClassVar[Mapping[str, str]] = {"path": "database", **_address("database")}

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
        if not path.strip() or "\0" in path:
            raise EventValidationError(
                "events.sqlite.database: expected the path of a file", field="events.sqlite.database"
            )
        return path


@section
class PostgresEventStoreConfig(ConfigSection):
    """PostgreSQL: where the server is and which tables to use."""

    ALIASES: ClassVar[Mapping[str, str]] = _address("dsn")

    dsn: SecretStr | None = None
    pool_min_size: int = setting(5, ge=0)
    pool_max_size: int = setting(20, ge=1)
    command_timeout: float = setting(60.0, gt=0)
    events_table: str = "events"
    snapshots_table: str = "snapshots"
    auto_create_tables: bool = True

    @field_validator("dsn", mode="before")
    @classmethod
    def validate_dsn(cls, v: SecretStr | str | None) -> SecretStr | None:
        """Return the DSN as a secret, or raise if it is no PostgreSQL address."""
        return None if v is None else _checked_scheme(v, ("postgresql", "postgres"), "events.postgres.dsn")


@section
class MongoDBEventStoreConfig(ConfigSection):
    """MongoDB: where the server is and which collections to use."""

    ALIASES: ClassVar[Mapping[str, str]] = {**_address("connection_string"), "database": "database_name"}

    connection_string: SecretStr
    database_name: str = "events"
    events_collection: str = "domain_events"
    snapshots_collection: str = "snapshots"
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

    ALIASES: ClassVar[Mapping[str, str]] = _address("url")

    url: SecretStr | None = None
    namespace: str = "lexigram:events"
    max_connections: int = setting(20, ge=1)
    command_timeout: float = setting(60.0, gt=0)

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


@section
class CommandBusConfig(ConfigSection):
    """Retries, timeout and middleware of the command bus."""

    max_retries: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(1.0, ge=0)
    timeout_seconds: float = setting(30.0, gt=0)
    enable_validation: bool = True
    enable_logging: bool = True
    enable_metrics: bool = True


@section
class QueryBusConfig(ConfigSection):
    """Timeout and middleware of the query bus."""

    timeout_seconds: float = setting(30.0, gt=0)
    enable_logging: bool = True
    enable_metrics: bool = True


@section
class EventBusConfig(ConfigSection):
    """How events reach their handlers."""

    ALIASES: ClassVar[Mapping[str, str]] = {"handler_timeout": "handler_timeout_seconds"}

    backend: str = setting("memory", choices=("memory", "redis", "rabbitmq", "kafka", "azure"))
    max_concurrent_handlers: int = setting(10, ge=1)
    handler_timeout_seconds: float = setting(30.0, gt=0)
    retry_failed_handlers: bool = True
    max_handler_retries: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(0.1, ge=0)
    enable_dead_letter: bool = True
    allow_no_handlers: bool = True
    parallel_dispatch: bool = True
    continue_on_error: bool = True
    max_queue_per_subscriber: int = setting(1000, ge=1)
    shutdown_timeout_seconds: float = setting(10.0, ge=0)


@section
class SagaConfig(ConfigSection):
    """Timeouts, retries and compensation of sagas."""

    enabled: bool = True
    default_timeout_seconds: float = setting(300.0, gt=0)
    max_retries_per_step: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(1.0, ge=0)
    enable_compensation: bool = True
    persist_state: bool = True
    cleanup_completed_after_hours: int = setting(24, ge=0)


@section
class ProjectionConfig(ConfigSection):
    """Batches, checkpoints and rebuilds of projections."""

    enabled: bool = True
    checkpoint_interval: int = setting(100, ge=1)
    batch_size: int = setting(100, ge=1)
    max_catch_up_events: int = setting(10000, ge=1)
    rebuild_batch_size: int = setting(1000, ge=1)
    enable_parallel_projections: bool = True


@section
class OutboxConfig(ConfigSection):
    """Delivery to message brokers through rows written in the append's transaction."""

    ALIASES: ClassVar[Mapping[str, str]] = {"poll_interval_seconds": "poll_interval"}

    enabled: bool = True
    poll_interval: float = setting(5.0, gt=0)
    batch_size: int = setting(100, ge=1)
    max_attempts: int = setting(10, ge=1)


@section
class StreamingConfig(ConfigSection):
    """Live streams of events to clients."""

    buffer_size: int = setting(1000, ge=1)
    batch_size: int = setting(100, ge=1)
    poll_interval_ms: int = setting(100, ge=1)
    max_subscribers: int = setting(100, ge=1)
    enable_websocket: bool = True
    websocket_ping_interval: int = setting(30, ge=1)


@section
class LoggingMiddlewareConfig(ConfigSection):
    """What the logging middleware writes, and at which level."""

    enabled: bool = True
    log_level: str = setting("INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    include_payload: bool = False
    max_payload_length: int = setting(1000, ge=1)


@section
class ValidationMiddlewareConfig(ConfigSection):
    """Whether messages are validated before they are handled."""

    enabled: bool = True
    strict_mode: bool = True


@section
class TransactionMiddlewareConfig(ConfigSection):
    """Whether commands run in a transaction."""

    enabled: bool = True
    isolation_level: str = "READ_COMMITTED"
    timeout_seconds: float = setting(30.0, gt=0)


@section
class RetryMiddlewareConfig(ConfigSection):
    """Exponential back-off of retried commands."""

    enabled: bool = True
    max_retries: int = setting(3, ge=0)
    initial_delay_seconds: float = setting(0.1, ge=0)
    max_delay_seconds: float = setting(10.0, ge=0)
    exponential_base: float = setting(2.0, ge=1)


@section
class MetricsMiddlewareConfig(ConfigSection):
    """What the metrics middleware records."""

    enabled: bool = True
    prefix: str = "events"
    include_histograms: bool = True
    histogram_buckets: list[float] = field(
        default_factory=lambda: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
    )


@section
class BaseAdapterConfig(ConfigSection):
    """What all message brokers have in common."""

    timeout: float = setting(30.0, gt=0)
    reconnect_attempts: int = setting(3, ge=0)
    reconnect_delay: float = setting(1.0, ge=0)
    enable_logging: bool = True


@section
class RabbitMQConfig(BaseAdapterConfig):
    """RabbitMQ as the broker of integration events."""

    ALIASES: ClassVar[Mapping[str, str]] = _address("url")

    url: SecretStr
    exchange_name: str = "events"
    queue_prefix: str = "events"
    prefetch_count: int = setting(10, ge=1)
    durable: bool = True


@section
class KafkaConfig(BaseAdapterConfig):
    """Kafka as the broker of integration events."""

    bootstrap_servers: str
    topic_prefix: str = "events"
    consumer_group: str = "events-consumers"
    auto_offset_reset: str = setting("earliest", choices=("earliest", "latest", "none"))
    enable_auto_commit: bool = True


@section
class AzureServiceBusConfig(BaseAdapterConfig):
    """Azure Service Bus as the broker of integration events."""

    ALIASES: ClassVar[Mapping[str, str]] = _address("connection_string")

    connection_string: SecretStr
    topic_name: str = "events"
    subscription_name: str = "events-subscription"
    max_concurrent_calls: int = setting(10, ge=1)


@section
class EventsConfig(ConfigSection):
    """The whole configuration, section `events` of `application.yaml`, `LEX_EVENTS__…` in the environment."""

    config_section: ClassVar[str] = "events"
    ALIASES: ClassVar[Mapping[str, str]] = {
        "event_store.backend": "event_store_backend",
        "sagas": "saga",
        "projections": "projection",
        "snapshot": "snapshots",
        "mongo": "mongodb",
        "azure": "azure_servicebus",
    }

    name: str = "events"
    enabled: bool = True
    event_store_backend: EventStoreBackend = EventStoreBackend.MEMORY
    memory: InMemoryEventStoreConfig = field(default_factory=InMemoryEventStoreConfig)
    sqlite: SqliteConfig | None = None
    postgres: PostgresEventStoreConfig | None = None
    mongodb: MongoDBEventStoreConfig | None = None
    redis: RedisEventStoreConfig | None = None
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    command_bus: CommandBusConfig = field(default_factory=CommandBusConfig)
    query_bus: QueryBusConfig = field(default_factory=QueryBusConfig)
    event_bus: EventBusConfig = field(default_factory=EventBusConfig)
    saga: SagaConfig = field(default_factory=SagaConfig)
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    streaming: StreamingConfig = field(default_factory=StreamingConfig)
    version_skew_alerts_enabled: bool = True
    logging_middleware: LoggingMiddlewareConfig = field(default_factory=LoggingMiddlewareConfig)
    validation_middleware: ValidationMiddlewareConfig = field(default_factory=ValidationMiddlewareConfig)
    transaction_middleware: TransactionMiddlewareConfig = field(default_factory=TransactionMiddlewareConfig)
    retry_middleware: RetryMiddlewareConfig = field(default_factory=RetryMiddlewareConfig)
    metrics_middleware: MetricsMiddlewareConfig = field(default_factory=MetricsMiddlewareConfig)
    rabbitmq: RabbitMQConfig | None = None
    kafka: KafkaConfig | None = None
    azure_servicebus: AzureServiceBusConfig | None = None
    debug: bool = False
    env: Environment | None = None

    @classmethod
    def from_section(cls, values: Mapping[str, Any] | None) -> Self:
        """Build from a section that the framework merged from YAML and the environment.

        The framework merges by key, so a value of the environment under another spelling than the YAML's would not
        override it, and it has already turned texts into numbers. Both are repaired here.

        Args:
            values: The section as a mapping, or None for defaults.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. A key is unknown or a value does not fit.
        """
        root = cls.config_section
        rest, environment = _split_environment(values or {})
        base = canonical(cls, rest, root)
        return cls(**_overlaid(base, canonical(cls, environment, root)))

    @classmethod
    def from_yaml(
        cls,
        path: str | Path = "application.yaml",
        *,
        profile: str | None = None,
        env_override: bool = True,
        section: str | None = None,
    ) -> Self:
        """Load from a YAML file, its profile's overlay and the environment, in this order of precedence.

        Args:
            path: The file; a missing one means defaults.
            profile: Overlay `application.<profile>.yaml`; `LEX_PROFILE` if omitted.
            env_override: Whether `LEX_EVENTS__…` variables override the file.
            section: Key of the section, `events` if omitted.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. A key is unknown or a value does not fit.
        """
        raw = _RawSection.from_yaml(path, profile=profile, env_override=env_override, section=section)
        return cls.from_section(raw.values)

    def validate_backend_config(self) -> list[str]:
        """Return what prevents these backends from booting, one sentence each; empty if nothing does."""
        problems: list[str] = []
        backend = self.event_store_backend.value
        if backend not in EVENT_STORE_BACKENDS:
            problems.append(_unavailable("event_store_backend", backend, EVENT_STORE_BACKENDS))
        elif backend not in ("memory", "sqlite") and getattr(self, backend) is None:
            problems.append(f"event_store_backend {backend!r} needs the section events.{backend} with its address")
        if self.event_bus.backend not in EVENT_BUS_BACKENDS:
            problems.append(_unavailable("event_bus.backend", self.event_bus.backend, EVENT_BUS_BACKENDS))
        problems += [
            f"events.{name} is configured, but this release has no adapter for it yet; remove the section"
            for name in ("rabbitmq", "kafka", "azure_servicebus")
            if getattr(self, name) is not None
        ]
        return problems

    def validate_for_environment(self, env: Environment | None = None) -> list[ConfigIssue]:
        """Return what is wrong with this configuration in `env`: backends that cannot boot, debug in production."""
        issues = [ConfigIssue(field="events", message=problem) for problem in self.validate_backend_config()]
        if (env or self.environment) == Environment.PRODUCTION:
            if self.debug:
                issues.append(ConfigIssue(field="events.debug", message="debug is not allowed in production"))
            if self.event_store_backend is EventStoreBackend.MEMORY:
                issues.append(
                    ConfigIssue(
                        field="events.event_store_backend",
                        message="the in-memory store forgets everything when the process ends",
                        severity="warning",
                        suggestion="choose sqlite or a database server",
                    )
                )
        return issues


class _RawSection(BaseConfig):
    """The section as the framework merged it, not yet interpreted."""

    config_section: ClassVar[str] = EventsConfig.config_section

    def __init__(self, **values: Any) -> None:
        self.values = values


def _unavailable(where: str, asked: str, available: Mapping[str, str] | tuple[str, ...]) -> str:
    return f"{where} {asked!r} is not available in this release; available: {', '.join(available)}"


def _split_environment(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a merged section into what files said and what came from `LEX_EVENTS__…`, as the variables' own text.

    A variable counts only where the section holds its value: a configuration made in code never reads it.
    """
    rest: dict[str, Any] = _deep_copied(values)
    environment: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        *parents, leaf = variable.removeprefix(ENV_PREFIX).lower().split(ENV_NESTED_DELIMITER)
        source, target = rest, environment
        for part in parents:
            source, target = source.get(part, {}), target.setdefault(part, {})
            if not isinstance(source, dict):
                break
        if isinstance(source, dict) and leaf in source and source[leaf] == EnvironmentConfigSource._parse_value(text):
            del source[leaf]
            target[leaf] = text
    return rest, environment


def _deep_copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _overlaid(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the leaves of `over` on top."""
    joined = dict(base)
    for key, value in over.items():
        below = joined.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        joined[key] = _overlaid(below, value) if both and below is not None else value
    return joined
