"""Empty tables for the tests on PostgreSQL, made once for each purpose and emptied again: creating them is slow."""

from __future__ import annotations

import subprocess
from uuid import uuid4

from lexigram.events.config import PostgresEventStoreConfig
from tools.servers.base import program

_EMPTY = """DO $$ DECLARE t record; BEGIN
FOR t IN SELECT format('%I.%I', schemaname, tablename) AS name, tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
    IF t.tablename = 'event_head' THEN EXECUTE 'UPDATE ' || t.name || ' SET position = 0';
    ELSIF t.tablename <> 'event_meta' THEN EXECUTE 'DELETE FROM ' || t.name; END IF;
END LOOP; END $$"""

RUN = uuid4().hex[:8]
"""Names the schemas of this run, in case the server is shared."""


class EmptySchemas:
    """Schemas for one test: the first, the second, …, all of them empty.

    Args:
        purpose: Tests of one purpose share their schemas, one after the other.
    """

    def __init__(self, url: str, payload: str = "json", purpose: str = "t") -> None:
        self.url = url
        self._payload = payload
        self._name = f"{purpose}_{RUN}_{payload}"

    def config(self, number: int = 0, **settings: object) -> PostgresEventStoreConfig:
        """Return the configuration of the n-th schema, after emptying it."""
        schema = f"{self._name}_{number}"
        command = [program("psql"), "-qAt", self.url, "-c", _EMPTY.format(schema=schema)]
        subprocess.run(command, check=True, capture_output=True)
        values = {"pool_min_size": 1, **settings}
        return PostgresEventStoreConfig(dsn=self.url, schema_name=schema, payload_format=self._payload, **values)
