"""Configuration: `EventsConfig` and one section per part.

Precedence is the framework's: an explicit `EventsConfig` in code is taken as it is; without one the environment
(`LEX_EVENTS__…`) overrides the profile's YAML, which overrides `application.yaml`, which overrides the defaults.
Texts may refer to environment variables: `${VAR}` or `${VAR:default}`. Secrets are masked in `repr`.

Source: spec/package-page.md, spec/reference-surface.md.
"""

from __future__ import annotations

from lexigram.events.config.brokers import (
    AzureServiceBusConfig,
    BaseAdapterConfig,
    KafkaConfig,
    OutboxConfig,
    RabbitMQConfig,
)
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
from lexigram.events.config.managers import (
    ProjectionConfig,
    SagaConfig,
    StreamingConfig,
)
from lexigram.events.config.root import (
    EventsConfig,
)
from lexigram.events.config.stores import (
    InMemoryEventStoreConfig,
    MongoDBEventStoreConfig,
    PostgresEventStoreConfig,
    RedisEventStoreConfig,
    SnapshotConfig,
    SqliteConfig,
)

__all__ = [
    "AzureServiceBusConfig",
    "BaseAdapterConfig",
    "CircuitBreakerMiddlewareConfig",
    "CommandBusConfig",
    "EventBusConfig",
    "EventsConfig",
    "InMemoryEventStoreConfig",
    "KafkaConfig",
    "LoggingMiddlewareConfig",
    "MetricsMiddlewareConfig",
    "MongoDBEventStoreConfig",
    "OutboxConfig",
    "PostgresEventStoreConfig",
    "ProjectionConfig",
    "QueryBusConfig",
    "RabbitMQConfig",
    "RedisEventStoreConfig",
    "RetryMiddlewareConfig",
    "SagaConfig",
    "SnapshotConfig",
    "SqliteConfig",
    "StreamingConfig",
    "TransactionMiddlewareConfig",
    "ValidationMiddlewareConfig",
]
