"""Install, start and stop the real servers that tests use, on loopback and without containers. Standard library only.

python tools/services.py install [NAME ...]
python tools/services.py up [NAME ...] [--json]     # until `down`
python tools/services.py down
python tools/services.py run [NAME ...] -- COMMAND  # servers live as long as the command
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.servers.base import CACHE, Server, ServiceError
from tools.servers.chromium import Chromium
from tools.servers.kafka import Kafka
from tools.servers.mongo import Mongo
from tools.servers.pgbouncer import PgBouncer
from tools.servers.postgres import Postgres
from tools.servers.rabbitmq import RabbitMQ
from tools.servers.redis import Redis
from tools.servers.servicebus import ServiceBus
from tools.servers.toxiproxy import Toxiproxy

SERVERS: dict[str, type[Server]] = {
    server.name: server
    for server in (Postgres, PgBouncer, Redis, Mongo, RabbitMQ, Kafka, ServiceBus, Toxiproxy, Chromium)
}
STATE = CACHE / "up.json"


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names with what they need, in the order of starting."""
    result: list[str] = []
    for name in names:
        if name not in SERVERS:
            raise ServiceError(f"unknown server {name!r}; known: {', '.join(sorted(SERVERS))}")
        for wanted in (*ordered(SERVERS[name].needs), name):
            if wanted not in result:
                result.append(wanted)
    return result


def install(names: Iterable[str]) -> None:
    """Install every named server and what it needs; what is there already is left alone."""
    for name in ordered(names):
        install_one(name)


def install_one(name: str) -> None:
    """Install one server, if it is missing. One process at a time: they share the folder of downloads."""
    import fcntl

    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        SERVERS[name].install()


class Services:
    """The servers of one run, started when first asked for.

    Args:
        home: Directory for data and logs; a fresh temporary one if None, removed by `stop`.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._own = home is None
        self.home = home or Path(tempfile.mkdtemp(prefix="lexigram-services-"))
        self.home.chmod(0o755)
        self.running: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        """Return the running server, starting it and what it needs first.

        Raises:
            ServiceError: It cannot be installed or started; the message has the reason and the last log lines.
        """
        for wanted in ordered([name]):
            if wanted not in self.running:
                install_one(wanted)
                server = SERVERS[wanted](self.home)
                server.others = self.running
                try:
                    server.start()
                except BaseException:
                    server.kill()
                    raise
                self.running[wanted] = server
        return self.running[name]

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a test where each running server is."""
        return {key: value for server in self.running.values() for key, value in server.environment().items()}

    def stop(self) -> None:
        """Stop everything, last started first, and remove the data of a temporary run."""
        for name in reversed(list(self.running)):
            self.running.pop(name).stop()
        if self._own:
            shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def services(names: Sequence[str]) -> Iterator[Services]:
    """Run the named servers for the length of a `with` block."""
    group = Services()
    try:
        for name in names:
            group.get(name)
        yield group
    finally:
        group.stop()


def up(names: Sequence[str], as_json: bool) -> int:
    """Start servers that stay until `down`, and print where they are."""
    if STATE.exists():
        raise ServiceError("servers are up already; run: python tools/services.py down")
    group = Services()
    try:
        for name in names:
            group.get(name)
    except BaseException:
        group.stop()
        raise
    pids = [pid for server in group.running.values() for pid in server.pids()]
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps({"pids": pids, "home": str(group.home)}), encoding="utf-8")
    environment = group.environment()
    print(
        json.dumps(environment) if as_json else "\n".join(f"export {key}={value}" for key, value in environment.items())
    )
    return 0


def down() -> int:
    """Stop what `up` started, by the process ids that it noted."""
    if not STATE.exists():
        return 0
    state = json.loads(STATE.read_text(encoding="utf-8"))
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [pid for pid in state["pids"] if Path(f"/proc/{pid}").exists()]
        for pid in alive:
            os.killpg(pid, number)
        end = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in alive) and time.monotonic() < end:
            time.sleep(0.05)
    shutil.rmtree(state["home"], ignore_errors=True)
    STATE.unlink()
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands of the module's docstring."""
    own, command = arguments, list[str]()
    if "--" in arguments:
        cut = list(arguments).index("--")
        own, command = arguments[:cut], list(arguments[cut + 1 :])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["install", "up", "down", "run"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(SERVERS)}")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of export lines")
    options = parser.parse_args(own)
    names = options.names or list(SERVERS)
    if options.action == "install":
        install(names)
        return 0
    if options.action == "up":
        return up(names, options.json)
    if options.action == "down":
        return down()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the servers end with it
    with services(names) as group:
        return subprocess.run(command, env={**os.environ, **group.environment()}, check=False).returncode


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
