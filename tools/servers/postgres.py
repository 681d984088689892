"""PostgreSQL from Debian's package, in a fresh cluster with checksums, `fsync` on.

Another version: LEXIGRAM_TEST_POSTGRES_BIN names the directory of its programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from tools.servers.base import Server, ServiceError, as_user, free_port, program

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
fsync = on
synchronous_commit = on
max_connections = 200
shared_buffers = 128MB
wal_level = logical
max_prepared_transactions = 20
"""


class Postgres(Server):
    """PostgreSQL; `url` names the database `postgres` and its superuser, without a password."""

    name = "postgres"
    packages = ("postgresql",)
    programs = ("initdb", "postgres", "psql")

    def start(self) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.home.mkdir(parents=True)
        # The server user must be able to pass through to its data.
        for folder in self.home.parents:
            if folder.stat().st_mode & 0o001 == 0 and folder.stat().st_uid == 0:
                raise ServiceError(f"{folder} is closed to the user postgres; give a --home below an open directory")
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres", "postgres")
        data = str(self.home / "data")
        init = [program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-k"]
        done = subprocess.run(as_user("postgres", init), cwd=self.home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"initdb failed\n{done.stdout}{done.stderr}")
        with (self.home / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write(SETTINGS.format(port=self.port, home=self.home))
        self.restart()

    def restart(self) -> None:
        """Start the server on its existing data, after `stop` or `kill`."""
        self.spawn(as_user("postgres", [program("postgres"), "-D", str(self.home / "data")]))
        self.wait_until(self.answers, 60)

    def answers(self) -> bool:
        """Say whether a query is answered."""
        command = [program("psql"), "-qAt", self.url, "-c", "select 1"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "1\n"
