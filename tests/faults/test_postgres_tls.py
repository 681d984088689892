"""PostgreSQL under TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import PostgresEventStore
from lexigram.events.exceptions import EventStoreConnectionError
from tests.faults.test_restores import fill


def certificate(folder: Path, owner: str) -> Path:
    """Make a key and a self-signed certificate for localhost; return the certificate."""
    key, cert = folder / "server.key", folder / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    subprocess.run(["chown", owner, str(key), str(cert)], check=False)
    return cert


async def test_tls_is_checked_and_used(own_postgres: Any, tmp_path: Path) -> None:
    """With a context that trusts the server, and with `sslmode` and `sslrootcert` in the DSN."""
    cert = certificate(own_postgres.home, "postgres")
    own_postgres.stop()
    with (own_postgres.home / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write(f"\nssl = on\nssl_cert_file = '{cert}'\nssl_key_file = '{cert.with_suffix('.key')}'\n")
    (own_postgres.home / "data" / "pg_hba.conf").write_text(
        "hostssl all all 127.0.0.1/32 trust\nhostnossl all all 127.0.0.1/32 reject\nlocal all all trust\n",
        encoding="utf-8",
    )
    own_postgres.restart()
    known = tmp_path / "root.crt"
    known.write_bytes(cert.read_bytes())
    trusting = ssl.create_default_context(cafile=str(known))
    in_dsn = f"{own_postgres.url}?sslmode=verify-full&sslrootcert={known}"
    for store in (PostgresEventStore(own_postgres.url, ssl=trusting), PostgresEventStore(in_dsn)):
        async with store:
            woken = asyncio.create_task(store.wait_for_events(await store.head(), 20))
            await fill(store, 0, 20)
            assert await woken
            assert len(await store.read("s1")) >= 4
            used = await store.engine.fetch_all(
                "SELECT count(*) FROM pg_stat_ssl WHERE NOT ssl AND pid IN "
                "(SELECT pid FROM pg_stat_activity WHERE client_addr IS NOT NULL)"
            )
            assert used[0][0] == 0
    for refused in (
        PostgresEventStore(own_postgres.url, ssl=ssl.create_default_context()),
        PostgresEventStore(f"{own_postgres.url}?sslmode=disable"),
    ):
        with pytest.raises(EventStoreConnectionError):
            await refused.connect()
        await refused.close()
