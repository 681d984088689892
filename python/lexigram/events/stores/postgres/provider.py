"""Where the database of a framework provider is. Source: lexigram-sql 0.1.5010.

A provider runs statements one by one and in its own transactions, which can neither share commits nor take the log's
lock safely from several tasks. So the store opens connections of its own to the provider's database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol

_PATHS = (
    ("connection_manager", "connection_string"),
    ("db_provider", "connection_manager", "connection_string"),
    ("connection_string",),
    ("dsn",),
)


def dsn_of(provider: DatabaseProviderProtocol) -> str:
    """Return the address of a provider's database.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, it is no PostgreSQL provider or does not say where its database is.
    """
    for path in _PATHS:
        value: object = provider
        for name in path:
            value = getattr(value, name, None)
        if isinstance(value, str) and value.startswith(("postgresql", "postgres")):
            scheme, _, rest = value.partition("://")
            return f"{scheme.partition('+')[0]}://{rest}"
    raise EventValidationError(
        f"{type(provider).__name__} does not say where its PostgreSQL database is; "
        "give the store the same address as config.dsn, or a pool",
        field="provider",
    )
