"""The tables of one store, by name. Several stores share a file under different prefixes."""

from __future__ import annotations

from dataclasses import dataclass

from lexigram.events.stores.identifiers import validate_table_name


@dataclass(frozen=True, slots=True)
class TableNames:
    """Quoted table names. `prefix` is put before each; application tables live beside them in the same file."""

    prefix: str = ""

    def __post_init__(self) -> None:
        # The longest name of a table or index decides whether a prefix fits.
        validate_table_name(f"{self.prefix}event_dead_letters_by_lane", "table_prefix")

    def _quoted(self, name: str) -> str:
        return f'"{self.prefix}{name}"'

    @property
    def meta(self) -> str:
        """Schema version and counters."""
        return self._quoted("event_meta")

    @property
    def streams(self) -> str:
        """One row per stream: its integer key, its id, and the version that survives compaction."""
        return self._quoted("event_streams")

    @property
    def types(self) -> str:
        """One row per event type: its integer key and its names."""
        return self._quoted("event_types")

    @property
    def events(self) -> str:
        """One row per event, by global position."""
        return self._quoted("events")

    @property
    def tags(self) -> str:
        """One row per tag of an event."""
        return self._quoted("event_tags")

    @property
    def snapshots(self) -> str:
        """Aggregate states by version."""
        return self._quoted("event_snapshots")

    @property
    def checkpoints(self) -> str:
        """Positions of projections and who owns them."""
        return self._quoted("event_checkpoints")

    @property
    def idempotency(self) -> str:
        """Messages that a consumer has processed."""
        return self._quoted("event_idempotency")

    @property
    def dead_letters(self) -> str:
        """Events that a handler could not handle."""
        return self._quoted("event_dead_letters")

    @property
    def sagas(self) -> str:
        """States of sagas."""
        return self._quoted("event_sagas")

    def beside(self, name: str) -> str:
        """Return the quoted name of another table or trigger of this store."""
        return self._quoted(name)

    def index(self, name: str) -> str:
        """Return the quoted name of an index."""
        return self._quoted(name)
