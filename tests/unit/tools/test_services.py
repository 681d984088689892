"""The server launcher starts real servers, says where they are, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tools.servers.base import Server, ServiceError
from tools.services import SERVERS, Services, ordered

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the real servers are Debian packages")


def test_a_server_comes_after_what_it_needs() -> None:
    """PgBouncer brings PostgreSQL, once and before itself."""
    assert ordered(["pgbouncer", "redis", "postgres"]) == ["postgres", "pgbouncer", "redis"]


def test_an_unknown_server_is_named() -> None:
    """The error lists what there is."""
    with pytest.raises(ServiceError, match=r"unknown server 'oracle'; known: .*redis"):
        ordered(["oracle"])


@pytest.mark.parametrize("name", ["redis", "pgbouncer", "rabbitmq", "toxiproxy", "kafka", "servicebus", "chromium"])
def test_a_server_starts_answers_and_ends(name: str) -> None:
    """It answers in its own protocol once `get` returns; after `stop` no process and no data is left."""
    group = Services()
    try:
        pids = [pid for server in (group.get(name), *group.running.values()) for pid in server.pids()]
        assert group.environment()[f"LEXIGRAM_TEST_{name.upper()}_URL"]
    finally:
        group.stop()
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not group.home.exists()


def test_a_server_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    """The message has the last lines that it wrote."""

    class Broken(Server):
        name = "broken"

        def start(self) -> None:
            self.spawn([sys.executable, "-c", "import sys; sys.exit('no such option: --durable')"])
            self.wait_until(lambda: False, 20)

    with pytest.raises(ServiceError, match="no such option: --durable"):
        Broken(tmp_path).start()


def test_two_runs_that_install_at_once_take_turns(tmp_path: Path) -> None:
    """They share one folder of downloads: the second waits, and finds everything there."""
    code = """
import sys, time
from pathlib import Path
from tools import services
from tools.servers.base import Server
services.CACHE = Path(sys.argv[1])
tree = services.CACHE / "tree"
class Slow(Server):
    @classmethod
    def install(cls):
        if not tree.exists():
            (services.CACHE / "half").mkdir()  # fails where the other is at it
            time.sleep(0.5)
            (services.CACHE / "half").rename(tree)
            print("made")
services.SERVERS["slow"] = Slow
services.install_one("slow")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(run.communicate(timeout=60)[0] for run in runs) == ["", "made\n"]
    assert [run.returncode for run in runs] == [0, 0]


def test_a_command_runs_with_the_servers_in_its_environment() -> None:
    """`run NAME -- COMMAND` passes the command's exit code on."""
    code = (
        "import os, sys; sys.exit(7 if os.environ['LEXIGRAM_TEST_REDIS_URL'].startswith('redis://127.0.0.1:') else 1)"
    )
    command = [sys.executable, str(ROOT / "tools" / "services.py"), "run", "redis", "--", sys.executable, "-c", code]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 7


def test_servers_end_with_a_run_that_is_terminated() -> None:
    """A run that somebody stops leaves neither its command nor its servers behind."""
    code = "import os, time; print(os.environ['LEXIGRAM_TEST_REDIS_URL'], os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, str(ROOT / "tools" / "services.py"), "run", "redis", "--", sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, pid = process.stdout.readline().split()
        process.terminate()
        assert process.wait(timeout=30) == 143
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)):
        pass


def test_every_server_names_what_it_installs() -> None:
    """No server class is without a way to be installed."""
    assert all(server.packages and server.name == name for name, server in SERVERS.items())


def test_the_compose_file_has_the_same_servers() -> None:
    """For users who have containers; each listens on loopback only."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert services.keys() == SERVERS.keys()
    for name, service in services.items():
        assert service["image"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
