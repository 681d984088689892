"""Configuration of the outbox and the message brokers. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lexigram.events.config.section import ConfigSection, address_aliases, section, setting
from lexigram.validation import SecretStr


@section
class OutboxConfig(ConfigSection):
    """Delivery to message brokers through rows written in the append's transaction."""

    ALIASES: ClassVar[Mapping[str, str]] = {"poll_interval_seconds": "poll_interval"}

    enabled: bool = True
    poll_interval: float = setting(5.0, gt=0)
    batch_size: int = setting(100, ge=1)
    max_attempts: int = setting(10, ge=1)
    retention_seconds: float = setting(0.0, ge=0)


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

    ALIASES: ClassVar[Mapping[str, str]] = address_aliases("url")

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

    ALIASES: ClassVar[Mapping[str, str]] = address_aliases("connection_string")

    connection_string: SecretStr
    topic_name: str = "events"
    subscription_name: str = "events-subscription"
    max_concurrent_calls: int = setting(10, ge=1)
