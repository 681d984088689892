"""Where the MongoDB database is and which collections the stores use. Source: spec/reference-surface.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from lexigram.events.config.section import ConfigSection, address_aliases, section, setting
from lexigram.events.constants import DATABASE_NAME_PATTERN, TABLE_NAME_PATTERN
from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.identifiers import validate_table_name
from lexigram.validation import SecretStr, field_validator

_SCHEMES: Final = ("mongodb://", "mongodb+srv://")


@section
class MongoDBConfig(ConfigSection):
    """Connection and collections of the MongoDB stores when they are used without the module."""

    ALIASES: ClassVar[Mapping[str, str]] = {**address_aliases("uri"), "database_name": "database"}

    uri: SecretStr
    database: str = setting("events", pattern=DATABASE_NAME_PATTERN)
    events_collection: str = setting("events", pattern=TABLE_NAME_PATTERN)
    snapshots_collection: str = setting("snapshots", pattern=TABLE_NAME_PATTERN)
    counters_collection: str = setting("counters", pattern=TABLE_NAME_PATTERN)
    max_pool_size: int = setting(100, ge=1)
    auto_create_indexes: bool = True

    @field_validator("uri", mode="before")
    @classmethod
    def validate_uri(cls, v: SecretStr | str) -> SecretStr:
        """Return the address as a secret, or raise if it is no MongoDB address; the message never shows it."""
        return SecretStr(_checked_url(v.get_secret_value() if isinstance(v, SecretStr) else v, "uri"))


@dataclass(frozen=True, slots=True)
class MongoSettings:
    """What `MongoDatabase` needs to know, whichever configuration it came from.

    Attributes:
        url: Address with credentials; None where a client or database was given. Never shown.
        events: Name of the collection of commits; those of the small stores are derived from it.
        timeout_seconds: How long a server may be away before an operation fails, above 0.
    """

    url: str | None = None
    database: str = "events"
    events: str = "domain_events"
    snapshots: str = "snapshots"
    counters: str = "domain_events_counters"
    max_pool_size: int = 10
    timeout_seconds: float = 30.0
    auto_create_indexes: bool = True

    def __post_init__(self) -> None:
        for field in ("events", "snapshots", "counters"):
            validate_table_name(getattr(self, field), f"{field}_collection")
        if len({self.events, self.snapshots, self.counters}) < 3:
            raise EventValidationError(
                "events_collection, snapshots_collection and counters_collection must differ, "
                f"got {self.events!r}, {self.snapshots!r} and {self.counters!r}",
                field="events_collection",
            )
        if re.fullmatch(DATABASE_NAME_PATTERN, self.database) is None:
            raise EventValidationError(
                f"database must be the name of a MongoDB database, got {self.database!r}", field="database"
            )

    def __repr__(self) -> str:
        return f"MongoSettings(database={self.database!r}, events={self.events!r})"

    @classmethod
    def of(cls, config: Any) -> MongoSettings:
        """Build settings from a URL, `MongoDBConfig`, `MongoDBEventStoreConfig`, an object like these, or None.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, naming the setting.
        """
        if config is None:
            return cls()
        if isinstance(config, cls):
            return config
        if isinstance(config, str):
            url = _checked_url(config, "config")
            return cls(url=url, database=unquote(urlsplit(url).path.strip("/")) or "events")
        address = getattr(config, "connection_string", None) or getattr(config, "uri", None)
        events = getattr(config, "events_collection", "domain_events")
        return cls(
            url=address.get_secret_value() if isinstance(address, SecretStr) else address,
            database=str(getattr(config, "database_name", None) or getattr(config, "database", "events")),
            events=events,
            snapshots=getattr(config, "snapshots_collection", "snapshots"),
            counters=getattr(config, "counters_collection", f"{events}_counters"),
            max_pool_size=getattr(config, "max_pool_size", 10),
            timeout_seconds=getattr(config, "server_selection_timeout", 30_000) / 1000,
            auto_create_indexes=getattr(config, "auto_create_indexes", True),
        )


def _checked_url(value: str, field: str) -> str:
    if not isinstance(value, str) or not value.startswith(_SCHEMES):
        raise EventValidationError(f"{field}: expected an address like mongodb://host/name", field=field)
    return value
