"""`EventsConfig`, the whole configuration. Source: spec/package-page.md, spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Self

from lexigram.contracts.core.config import ConfigIssue, Environment
from lexigram.events.config.brokers import AzureServiceBusConfig, KafkaConfig, OutboxConfig, RabbitMQConfig
from lexigram.events.config.buses import (
    CircuitBreakerMiddlewareConfig,
    CommandBusConfig,
    EventBusConfig,
    LoggingMiddlewareConfig,
    MetricsMiddlewareConfig,
    QueryBusConfig,
    RetryMiddlewareConfig,
    TransactionMiddlewareConfig,
    ValidationMiddlewareConfig,
)
from lexigram.events.config.loading import MergedSources, overlaid, split_environment
from lexigram.events.config.managers import ProjectionConfig, SagaConfig, StreamingConfig
from lexigram.events.config.section import ConfigSection, canonical, section
from lexigram.events.config.stores import (
    InMemoryEventStoreConfig,
    MongoDBEventStoreConfig,
    PostgresEventStoreConfig,
    RedisEventStoreConfig,
    SnapshotConfig,
    SqliteConfig,
)
from lexigram.events.constants import EVENT_BUS_BACKENDS, EVENT_STORE_BACKENDS
from lexigram.events.exceptions import EventValidationError
from lexigram.events.types import EventStoreBackend


@section
class EventsConfig(ConfigSection):
    """The whole configuration, section `events` of `application.yaml`, `LEX_EVENTS__…` in the environment."""

    config_section: ClassVar[str] = "events"
    ALIASES: ClassVar[Mapping[str, str]] = {
        "event_store.backend": "event_store_backend",
        "event_store.memory": "memory",
        "event_store.sqlite": "sqlite",
        "event_store.postgres": "postgres",
        "event_store.mongodb": "mongodb",
        "event_store.redis": "redis",
        "event_bus.redis": "redis",
        "event_bus.rabbitmq": "rabbitmq",
        "event_bus.kafka": "kafka",
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
    # Quiet unless asked: a configured section logs at its own level, INFO by default.
    logging_middleware: LoggingMiddlewareConfig = field(
        default_factory=lambda: LoggingMiddlewareConfig(log_level="DEBUG")
    )
    validation_middleware: ValidationMiddlewareConfig = field(default_factory=ValidationMiddlewareConfig)
    transaction_middleware: TransactionMiddlewareConfig = field(default_factory=TransactionMiddlewareConfig)
    retry_middleware: RetryMiddlewareConfig = field(default_factory=RetryMiddlewareConfig)
    metrics_middleware: MetricsMiddlewareConfig = field(default_factory=MetricsMiddlewareConfig)
    circuit_breaker_middleware: CircuitBreakerMiddlewareConfig = field(default_factory=CircuitBreakerMiddlewareConfig)
    rabbitmq: RabbitMQConfig | None = None
    kafka: KafkaConfig | None = None
    azure_servicebus: AzureServiceBusConfig | None = None
    debug: bool = False
    env: Environment | None = None

    @property
    def takes_snapshots(self) -> bool:
        """Whether repositories use snapshots: enabled here and, in memory, there too."""
        in_memory = self.event_store_backend is EventStoreBackend.MEMORY
        return self.snapshots.enabled and (self.memory.enable_snapshots or not in_memory)

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
        if values is not None and not isinstance(values, Mapping):
            raise EventValidationError(f"{root}: expected a mapping, got {type(values).__name__}", field=root)
        rest, environment = split_environment(values or {})
        base = canonical(cls, rest, root)
        return cls(**overlaid(base, canonical(cls, environment, root)))

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
        merged = MergedSources.from_yaml(path, profile=profile, env_override=env_override)
        return cls.from_section(merged.values.get(section or cls.config_section))

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


def _unavailable(where: str, asked: str, available: tuple[str, ...]) -> str:
    return f"{where} {asked!r} is not available in this release; available: {', '.join(available)}"
