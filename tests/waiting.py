"""Published names that are not here: those of later issues, and those left out on purpose."""

from __future__ import annotations

WAITING: dict[str, int] = {
    "lexigram.events.adapters": 7,
    "lexigram.events.admin": 7,
    "lexigram.events.cli": 7,
    "lexigram.events.encryption": 7,
    "lexigram.events.decorators.encryption": 7,
    "lexigram.events.reactive": 7,
    "lexigram.events.schema.migration": 7,
    "lexigram.events.streaming": 7,
    "lexigram.events.stores.streaming": 7,
    "lexigram.events.version_skew": 7,
    "lexigram.events.webhooks": 7,
}
"""Module or full name -> issue that brings it (7 stands for the issues not yet written)."""

LEFT_OUT: dict[str, str] = {
    "lexigram.events.stores.sqlite.queries": "SQL text is an implementation detail",
    "lexigram.events.stores.sqlite.serializer": "one codec serves every backend: EventCodec",
    "lexigram.events.stores.postgres.queries": "SQL text is an implementation detail",
    "lexigram.events.stores.mongodb.utils": "one codec serves every backend: EventCodec",
    "lexigram.events.stores.database_bridge": "SqliteEventStore and PostgresEventStore take a provider themselves",
}
"""Module or full name -> what to use instead; the migration page of the docs lists the same."""
