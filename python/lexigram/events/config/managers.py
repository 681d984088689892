"""Configuration of sagas, projections and live streams. Source: spec/reference-surface.md."""

from __future__ import annotations

from lexigram.events.config.section import ConfigSection, section, setting


@section
class SagaConfig(ConfigSection):
    """Timeouts, retries and compensation of sagas.

    Sagas that have ended are removed after `cleanup_completed_after_hours`; 0 keeps them for ever. `shared` lets several
    processes run the sagas of one database: each of `partitions` parts of their ids belongs to one of them at a time;
    another one takes over `lease_seconds` after its owner was last heard of.
    """

    enabled: bool = True
    default_timeout_seconds: float = setting(300.0, gt=0)
    max_retries_per_step: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(1.0, ge=0)
    enable_compensation: bool = True
    persist_state: bool = True
    cleanup_completed_after_hours: int = setting(24, ge=0)
    shared: bool = False
    partitions: int = setting(64, ge=1, le=1024)
    lease_seconds: float = setting(30.0, gt=0)


@section
class ProjectionConfig(ConfigSection):
    """Batches, checkpoints and rebuilds of projections.

    `shared` lets several processes run the same projections: each projection, or each of its `partitions`, belongs to
    one of them at a time; another one takes over `lease_seconds` after its owner was last heard of.
    `max_catch_up_events` is how many decoded events are kept in memory for projections that come later to the same
    place of the log; one that is further behind reads them again. `on_error` says what an event does that a projection cannot apply: "fault" stops the projection before it, "park"
    puts it among the dead letters, with later events of its aggregate behind it.
    """

    enabled: bool = True
    checkpoint_interval: int = setting(100, ge=1)
    batch_size: int = setting(100, ge=1)
    max_catch_up_events: int = setting(10000, ge=1)
    rebuild_batch_size: int = setting(1000, ge=1)
    enable_parallel_projections: bool = True
    shared: bool = False
    partitions: int = setting(1, ge=1, le=1024)
    lease_seconds: float = setting(30.0, gt=0)
    on_error: str = setting("fault", choices=("fault", "park"))


@section
class StreamingConfig(ConfigSection):
    """Live streams of events to clients."""

    buffer_size: int = setting(1000, ge=1)
    batch_size: int = setting(100, ge=1)
    poll_interval_ms: int = setting(100, ge=1)
    max_subscribers: int = setting(100, ge=1)
    enable_websocket: bool = True
    websocket_ping_interval: int = setting(30, ge=1)
