"""The transactional outbox: what is appended is also delivered, at least once and in order per key.

Source: spec/reference-surface.md, `lexigram.events.stores.outbox`; design/semantics.md, section 7.
"""

from lexigram.events.stores.outbox.entry import OutboxEntry as OutboxEntry
from lexigram.events.stores.outbox.entry import OutboxEntryStatus as OutboxEntryStatus
from lexigram.events.stores.outbox.entry import OutboxMessage as OutboxMessage
from lexigram.events.stores.outbox.event_store import OutboxEventStore as OutboxEventStore
from lexigram.events.stores.outbox.log import LogOutboxStore as LogOutboxStore
from lexigram.events.stores.outbox.publishers import AbstractOutboxPublisher as AbstractOutboxPublisher
from lexigram.events.stores.outbox.publishers import BusOutboxPublisher as BusOutboxPublisher
from lexigram.events.stores.outbox.publishers import OutboxPublisherProtocol as OutboxPublisherProtocol
from lexigram.events.stores.outbox.relay import OutboxPublisher as OutboxPublisher
from lexigram.events.stores.outbox.relay import OutboxRelay as OutboxRelay
from lexigram.events.stores.outbox.store import AbstractOutboxStore as AbstractOutboxStore
from lexigram.events.stores.outbox.store import OutboxBatch as OutboxBatch
from lexigram.events.stores.outbox.store import OutboxStats as OutboxStats
