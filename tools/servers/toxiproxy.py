"""Toxiproxy, built through the Go module proxy: latency, cuts and resets between a client and a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from typing import Any

from tools.servers.base import CACHE, Server, ServiceError, free_port

MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"
BINARY = CACHE / "bin" / "toxiproxy"


class Toxiproxy(Server):
    """Toxiproxy; `url` is its control API."""

    name = "toxiproxy"
    packages = ("golang-go",)

    @classmethod
    def installed(cls) -> bool:
        return BINARY.exists()

    @classmethod
    def install(cls) -> None:
        if cls.installed():
            return
        if shutil.which("go") is None:
            raise ServiceError("toxiproxy needs the Go toolchain on PATH")
        target = BINARY.parent / "build"
        env = {**os.environ, "GOBIN": str(target), "GOFLAGS": "-mod=mod"}
        done = subprocess.run(["go", "install", MODULE], env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"go install {MODULE} failed\n{done.stderr[-2000:]}")
        (target / "server").replace(BINARY)

    def start(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.spawn([str(BINARY), "-host", "127.0.0.1", "-port", str(self.port)], env={"LOG_LEVEL": "warn"})
        self.wait_until(lambda: bool(self.call("GET", "/version", raw=True)), 10)

    def call(self, method: str, path: str, body: Any = None, raw: bool = False) -> Any:
        """Call the control API and return the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read().decode()
        return text if raw or not text else json.loads(text)

    def proxy(self, name: str, target_port: int) -> int:
        """Create a proxy to a port of 127.0.0.1 and return the port it listens on."""
        port = free_port()
        body = {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{target_port}", "enabled": True}
        self.call("POST", "/proxies", body)
        return port
