"""What every test server shares: installing packages, ports, child processes, readiness, stopping."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

CACHE = Path(__file__).resolve().parent.parent.parent / ".cache" / "services"
"""Downloads that outlive a run; ignored by git."""


class ServiceError(RuntimeError):
    """A server could not be installed or started; the message ends with its last log lines."""


class Server:
    """One server process (or a few) on 127.0.0.1, owned by this process.

    Args:
        home: Directory of this run; the server keeps data and logs in a folder of its own below it.
    """

    name: ClassVar[str] = ""
    packages: ClassVar[Sequence[str]] = ()
    """Debian packages that the server needs."""
    programs: ClassVar[Sequence[str]] = ()
    """Programs that show that the packages are there."""
    needs: ClassVar[Sequence[str]] = ()
    """Names of the servers that must run before this one."""

    def __init__(self, home: Path) -> None:
        self.home = home / self.name
        self.log = self.home / "server.log"
        self.url = ""
        self.others: dict[str, Server] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def installed(cls) -> bool:
        """Say whether every program is there."""
        return all(find_program(program) for program in cls.programs)

    @classmethod
    def install(cls) -> None:
        """Install what is missing from Debian's packages."""
        if not cls.installed():
            apt_install(cls.packages)
        if not cls.installed():
            raise ServiceError(f"{cls.name}: {', '.join(cls.programs)} not found; install {' '.join(cls.packages)}")

    def start(self) -> None:
        """Start the server and return when it answers in its own protocol; sets `url`."""
        raise AssertionError(f"{type(self).__name__} does not say how to start")

    def environment(self) -> dict[str, str]:
        """Return the variables that tell tests where the server is."""
        return {f"LEXIGRAM_TEST_{self.name.upper()}_URL": self.url}

    def pids(self) -> list[int]:
        """Return the ids of the processes that run."""
        return [process.pid for process in self._processes if process.poll() is None]

    def spawn(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Start a child process that writes to the server's log."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **(env or {})},
                    cwd=cwd or self.home,
                    start_new_session=True,
                )
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Poll `ready` until it is true; a dead child or the end of the time raises with the last log lines."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(process.poll() is not None for process in self._processes):
                raise ServiceError(f"{self.name} ended while starting\n{self.last_lines()}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise ServiceError(f"{self.name} was not ready after {seconds:.0f} s\n{self.last_lines()}")

    def last_lines(self, count: int = 30) -> str:
        """Return the end of the server's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL to every process of it."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End the server quickly: SIGTERM, and SIGKILL after five seconds."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for process in reversed(self._processes):
            for attempt in (number, signal.SIGKILL):
                if process.poll() is None:
                    try:
                        os.killpg(process.pid, attempt)
                    except ProcessLookupError:
                        break
                try:
                    process.wait(timeout=5)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._processes.clear()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def talk(port: int, request: bytes, size: int = 256, seconds: float = 1.0) -> bytes:
    """Send `request` to a port of 127.0.0.1 and return the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(request)
        return connection.recv(size)


def find_program(name: str) -> str | None:
    """Return the path of a program in LEXIGRAM_TEST_POSTGRES_BIN, on PATH or where Debian puts servers."""
    chosen = os.environ.get("LEXIGRAM_TEST_POSTGRES_BIN")
    extra = [
        *([chosen] if chosen else []),
        "/usr/sbin",
        "/usr/local/sbin",
        *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
    return shutil.which(name, path=os.pathsep.join([*extra, os.environ.get("PATH", "")]))


def program(name: str) -> str:
    """Return the path of a program that must be there."""
    path = find_program(name)
    if path is None:
        raise ServiceError(f"{name} is not installed; run: python tools/services.py install")
    return path


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages; needs root."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceError(f"cannot install {' '.join(packages)}: not root on a Debian system")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # A package must not start its own server beside ours.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        policy.chmod(0o755)
    try:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ServiceError(f"apt-get {' '.join(command)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    finally:
        if made:
            policy.unlink(missing_ok=True)


def as_user(user: str, command: Sequence[str]) -> list[str]:
    """Return `command` so that it runs as `user` where we are root (some servers refuse root)."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]
