"""A server of the MongoDB wire protocol: FerretDB v2 over PostgreSQL with the DocumentDB extension.

No MongoDB server can be had from the package registries. FerretDB comes through the Go module proxy; PostgreSQL 18 and the
extension come from Debian's unstable packages, unpacked into a folder of their own by debootstrap. There are no
multi-document transactions and no change streams; a real replica set is tested where LEXIGRAM_TEST_MONGO_URL names one.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess

from tools.servers.base import CACHE, Server, ServiceError, apt_install, find_program, free_port, program

MODULE = "github.com/FerretDB/FerretDB/v2/cmd/ferretdb@v2.7.0"
BINARY = CACHE / "bin" / "ferretdb"
TREE = CACHE / "sid"
POSTGRES = """set -e
mount --rbind /dev {tree}/dev
mount -t proc proc {tree}/proc
mkdir -p {tree}/srv/data
mount --bind {home} {tree}/srv/data
exec chroot {tree} /bin/bash -c '
chown postgres /srv/data
B=/usr/lib/postgresql/18/bin
su=(setpriv --reuid=postgres --regid=postgres --init-groups)
cd /srv/data
[ -d db ] || "${{su[@]}}" $B/initdb -D db -U postgres -A trust -E UTF8 --locale=C.UTF-8
exec "${{su[@]}}" $B/postgres -D db -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=/srv/data \\
  -c shared_preload_libraries=pg_cron,pg_documentdb_core,pg_documentdb -c cron.database_name=postgres'
"""


class Mongo(Server):
    """FerretDB v2; `url` is a MongoDB URL without credentials."""

    name = "mongo"
    packages = ("debootstrap", "postgresql-client", "util-linux")
    programs = ("debootstrap", "psql", "unshare")

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and BINARY.exists() and (TREE / "complete").exists()

    @classmethod
    def install(cls) -> None:
        if cls.installed():
            return
        if os.geteuid() != 0 or shutil.which("go") is None:
            raise ServiceError("the MongoDB test server needs root (debootstrap, chroot) and the Go toolchain")
        if not all(find_program(name) for name in cls.programs):
            apt_install(cls.packages)
        if not BINARY.exists():
            env = {**os.environ, "GOBIN": str(BINARY.parent)}
            run(["go", "install", MODULE], env)
        if not (TREE / "complete").exists():
            # A run that was interrupted may have left the tree with its own /proc mounted.
            subprocess.run(["umount", "--quiet", str(TREE / "proc")], capture_output=True, check=False)
            shutil.rmtree(TREE, ignore_errors=True)
            targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).splitlines()
            mirror = next((uri for uri in targets if uri.rstrip("/").endswith("/debian")), None)
            if mirror is None:
                raise ServiceError("no Debian mirror is configured for apt-get")
            include = "--include=postgresql-18-documentdb,ca-certificates"
            run([program("debootstrap"), "--variant=minbase", include, "sid", str(TREE), mirror])
            (TREE / "complete").touch()

    def start(self) -> None:
        self.port, self.postgres_port = free_port(), free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}/"
        (self.home / "pg").mkdir(parents=True)
        self.restart()

    def restart(self) -> None:
        """Start both servers on their existing data, after `stop` or `kill`."""
        script = self.home / "postgres.sh"
        text = POSTGRES.format(tree=TREE, home=self.home / "pg", port=self.postgres_port)
        script.write_text(text, encoding="utf-8")
        self.spawn(
            ["unshare", "--mount", "--propagation", "private", "--kill-child", "--fork", "--pid", "bash", str(script)]
        )
        self.wait_until(lambda: self._sql("select 1") == "1\n", 60)
        self._sql("create extension if not exists documentdb cascade")
        url = f"postgres://postgres@127.0.0.1:{self.postgres_port}/postgres"
        arguments = [f"--postgresql-url={url}", f"--listen-addr=127.0.0.1:{self.port}", "--debug-addr=-", "--no-auth"]
        env = {"FERRETDB_STATE_DIR": str(self.home), "FERRETDB_TELEMETRY": "disable", "DO_NOT_TRACK": "1"}
        self.spawn([str(BINARY), *arguments, "--log-level=warn"], env=env)
        self.wait_until(self.answers, 30)

    def _sql(self, statement: str) -> str:
        command = [
            program("psql"),
            "-qAt",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.postgres_port),
            "-U",
            "postgres",
            "-c",
            statement,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def answers(self) -> bool:
        """Say whether `hello` is answered (one OP_MSG, written by hand so that no driver is needed)."""
        document = b"\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"
        body = struct.pack("<i", 0) + b"\x00" + struct.pack("<i", len(document) + 4) + document
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
            return b"maxWireVersion" in connection.recv(4096)


def run(command: list[str], env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its output; a failure raises with the last of it."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"{command[0]} failed\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout
