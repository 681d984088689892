"""PostgreSQL servers that change: dumps restored elsewhere, and connections under TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import ConcurrencyError, DomainEvent, PostgresEventStore, event_type
from lexigram.events.exceptions import EventStoreConnectionError
from tools.servers.base import program
from tools.services import Services


@event_type("moves.happened")
class Happened(DomainEvent):
    number: int


async def fill(store: Any, first: int, count: int) -> list[Happened]:
    """Append from a few writers at once; return the events."""
    events = [Happened(number=number) for number in range(first, first + count)]

    async def write(mine: list[Happened]) -> None:
        for event in mine:
            await store.append(f"s{event.number % 5}", [event])

    await asyncio.gather(*(write(events[part::4]) for part in range(4)))
    return events


def burn_transaction_ids(url: str, count: int) -> int:
    """Use up transaction ids and return the next one."""
    sql = f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    subprocess.run([program("psql"), "-qAt", url, "-c", sql], check=True, capture_output=True)
    done = subprocess.run(
        [program("psql"), "-qAt", url, "-c", "SELECT pg_current_xact_id()"], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


async def test_a_log_restored_into_a_younger_cluster_goes_on(own_postgres: Any, tmp_path: Path) -> None:
    """Transaction ids are smaller there than those that wrote the events; order, versions and retries do not care."""
    old_ids = await asyncio.to_thread(burn_transaction_ids, own_postgres.url, 20_000)
    async with PostgresEventStore(own_postgres.url) as store:
        written = await fill(store, 0, 200)
        await store.compact("s0", 10)
        before = await store.read_all()
    dump = subprocess.run(
        [program("pg_dump"), "--no-owner", own_postgres.url], check=True, capture_output=True, text=True
    ).stdout
    group = Services()
    try:
        younger = group.get("postgres")
        subprocess.run(
            [program("psql"), "-q", "-v", "ON_ERROR_STOP=1", younger.url], input=dump, text=True, check=True,
            capture_output=True,
        )  # fmt: skip
        assert await asyncio.to_thread(burn_transaction_ids, younger.url, 1) < old_ids
        async with PostgresEventStore(younger.url) as store:
            assert await store.read_all() == before
            assert await store.head() == 200
            seen: list[int] = []

            async def follow() -> None:
                async with aclosing(store.subscribe(200)) as events:
                    async for event in events:
                        seen.append(event.sequence_number)
                        if len(seen) == 100:
                            return

            following = asyncio.create_task(follow())
            await fill(store, 1_000, 100)
            await asyncio.wait_for(following, 20)
            assert seen == list(range(201, 301))
            for event in written:
                if event.number % 5:  # those of s0 are partly compacted
                    await store.append(f"s{event.number % 5}", [event])
            assert await store.head() == 300, "a retry of stored events stores nothing"
            with pytest.raises(ConcurrencyError):
                await store.append("s1", [Happened(number=1)], expected_version=0)
    finally:
        group.stop()


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
