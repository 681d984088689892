"""The outbox of an application: captured and delivered where a publisher is configured, otherwise without any cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
from lexigram.events.di.binding import bind_all

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol
    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.config import EventsConfig
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.outbox import AbstractOutboxStore, OutboxRelay

__all__ = ["OutboxSubProvider"]


class OutboxSubProvider:
    """Makes the outbox, and starts and stops its relay if the application binds an `OutboxPublisherProtocol`.

    Args:
        config: Section `outbox`.
        event_store: What is appended to it is delivered.
        dead_letters: The application's, where operators look.
    """

    def __init__(
        self, config: EventsConfig, event_store: AbstractEventStore, dead_letters: DeadLetterStore | None = None
    ) -> None:
        self._config = config.outbox
        self.outbox: AbstractOutboxStore = event_store.outbox()
        if isinstance(dead_letters, InMemoryDeadLetterStore):
            self.outbox.dead_letters = dead_letters  # elsewhere both are views of one database
        self.outbox.retention_seconds = self._config.retention_seconds
        self.relay: OutboxRelay | None = None

    def register(self, container: ContainerRegistrarProtocol) -> None:
        """Bind the outbox under the framework's contracts and its own class; using it begins to capture appends."""
        from lexigram.contracts.data.outbox import OutboxStoreProtocol
        from lexigram.contracts.events.outbox import OutboxBackendProtocol
        from lexigram.events.stores.outbox import AbstractOutboxStore

        bind_all(
            container,
            [
                (OutboxBackendProtocol, self.outbox),
                (OutboxStoreProtocol, self.outbox),
                (AbstractOutboxStore, self.outbox),
            ],
        )

    async def boot(self, publisher: Any) -> None:
        """Begin to capture appends if there is a publisher; None = there is none."""
        if publisher is None:
            return
        from lexigram.events.stores.outbox import OutboxRelay

        config = self._config
        self.relay = OutboxRelay(
            self.outbox,
            publisher,
            batch_size=config.batch_size,
            poll_interval=config.poll_interval,
            max_attempts=config.max_attempts,
        )
        await self.outbox.connect()

    async def start(self) -> None:
        """Start the relay: everything that its publisher needs has booted."""
        if self.relay is not None:
            await self.relay.start()

    async def teardown(self, timeout_seconds: float) -> None:
        """Finish the batch in hand and stop; what waits is delivered after the next start."""
        if self.relay is not None:
            await self.relay.stop(timeout_seconds)

    async def health_check(self, timeout: float) -> list[HealthCheckResult]:
        """Return the relay's health; nothing without one."""
        return [] if self.relay is None else [await self.relay.health_check(timeout)]
