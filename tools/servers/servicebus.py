"""What Azure Service Bus looks like to its SDK: our own AMQP 1.0 peer on PyPI's python-qpid-proton. It is not Azure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tools.servers.base import Server, ServiceError, free_port, talk

ENTITIES = ("queue:events", "sessions:orders", "topic:news:one,two")
AMQP_SASL = b"AMQP\x03\x01\x00\x00"


class ServiceBus(Server):
    """The peer; `url` is a connection string that makes the SDK take it for Microsoft's emulator."""

    name = "servicebus"
    packages = ("python-qpid-proton",)
    """Of PyPI; pinned in requirements-dev.txt."""

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec("proton") is not None

    @classmethod
    def install(cls) -> None:
        if not cls.installed():
            raise ServiceError("servicebus: python-qpid-proton is missing; run: pip install -r requirements-dev.txt")

    def start(self) -> None:
        self.port = free_port()
        self.url = (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=test;SharedAccessKey=test;"
            "UseDevelopmentEmulator=true;"
        )
        self.spawn([sys.executable, str(Path(__file__).with_name("servicebus_peer.py")), str(self.port), *ENTITIES])
        self.wait_until(lambda: talk(self.port, AMQP_SASL)[:4] == b"AMQP", 20)
