"""RabbitMQ from Debian's package, with its own node name, cookie, epmd and data."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

from tools.servers.base import Server, ServiceError, find_program, free_port, talk

CONFIG = """
listeners.tcp.1 = 127.0.0.1:{port}
loopback_users.guest = true
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""


class RabbitMQ(Server):
    """RabbitMQ; `url` is an AMQP URL of the user guest."""

    name = "rabbitmq"
    packages = ("rabbitmq-server",)
    programs = ("erl",)

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and cls._script() is not None

    @classmethod
    def _script(cls) -> Path | None:
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
        return found[-1] if found else None

    def start(self) -> None:
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        (self.home / "home").mkdir(parents=True)
        cookie = self.home / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16), encoding="utf-8")
        cookie.chmod(0o400)
        (self.home / "rabbitmq.conf").write_text(CONFIG.format(port=self.port), encoding="utf-8")
        (self.home / "enabled_plugins").write_text("[].", encoding="utf-8")
        self.epmd_port, dist_port = free_port(), free_port()
        self._env = {
            "HOME": str(self.home / "home"),
            "RABBITMQ_NODENAME": f"lexigram{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(self.home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
        }
        self.restart()

    def restart(self) -> None:
        """Start the server on its existing data, after `stop` or `kill`."""
        script = self._script()
        if script is None:
            raise ServiceError("rabbitmq-server is not installed")
        self.spawn([str(script)], env=self._env)
        # An AMQP server answers a wrong protocol header with its own.
        self.wait_until(lambda: talk(self.port, b"AMQP\x00\x09\x09\x09").startswith(b"AMQP"), 90)

    def stop(self) -> None:
        """Stop the node and the name server that it started."""
        super().stop()
        self._kill_epmd()

    def kill(self) -> None:
        """End the node as a crash would."""
        super().kill()
        self._kill_epmd()

    def _kill_epmd(self) -> None:
        epmd = find_program("epmd")
        if epmd is not None:
            env = {**os.environ, "ERL_EPMD_PORT": str(self.epmd_port)}
            subprocess.run([epmd, "-kill"], env=env, capture_output=True, check=False)
