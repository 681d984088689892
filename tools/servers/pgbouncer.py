"""PgBouncer from Debian's package, in transaction mode, in front of PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess

from tools.servers.base import Server, as_user, free_port, program
from tools.servers.postgres import Postgres

CONFIG = """
[databases]
* = host=127.0.0.1 port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {home}/users.txt
pool_mode = transaction
default_pool_size = 20
ignore_startup_parameters = extra_float_digits,jit,plan_cache_mode,search_path,enable_seqscan
"""


class PgBouncer(Server):
    """PgBouncer in transaction mode; needs PostgreSQL."""

    name = "pgbouncer"
    packages = ("pgbouncer",)
    programs = ("pgbouncer", "psql")
    needs = ("postgres",)

    def start(self) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.home.mkdir(parents=True)
        target = self.others["postgres"]
        assert isinstance(target, Postgres)
        config = self.home / "pgbouncer.ini"
        config.write_text(CONFIG.format(port=self.port, target=target.port, home=self.home), encoding="utf-8")
        users = self.home / "users.txt"
        users.write_text('"postgres" ""\n', encoding="utf-8")
        if os.geteuid() == 0:
            for path in (self.home, config, users):
                shutil.chown(path, "postgres", "postgres")
        self.spawn(as_user("postgres", [program("pgbouncer"), str(config)]))
        self.wait_until(self.answers, 20)

    def answers(self) -> bool:
        """Say whether a query passes through."""
        command = [program("psql"), "-qAt", self.url, "-c", "select 1"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "1\n"
