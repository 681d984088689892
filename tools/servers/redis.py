"""Redis from Debian's package; every write is synced before it is acknowledged."""

from __future__ import annotations

from tools.servers.base import Server, free_port, program, talk


class Redis(Server):
    """Redis with `appendfsync always`."""

    name = "redis"
    packages = ("redis-server",)
    programs = ("redis-server",)

    def start(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.restart()

    def restart(self) -> None:
        """Start the server on its existing data, after `stop` or `kill`."""
        self.home.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.home),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        self.spawn([program("redis-server"), *(part for key, value in options.items() for part in (f"--{key}", value))])
        self.wait_until(lambda: talk(self.port, b"PING\r\n") == b"+PONG\r\n", 20)
