"""Chromium from Debian's package, driven through its debugging protocol; Playwright connects to `url`."""

from __future__ import annotations

import json
import urllib.request

from tools.servers.base import Server, free_port, program


class Chromium(Server):
    """A headless browser with an empty profile; `url` is the address of its debugging endpoint."""

    name = "chromium"
    packages = ("chromium",)
    programs = ("chromium",)

    def start(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home.mkdir(parents=True)
        self.spawn(
            [
                program("chromium"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-address=127.0.0.1",
                f"--remote-debugging-port={self.port}",
                f"--user-data-dir={self.home / 'profile'}",
                "about:blank",
            ]
        )
        self.wait_until(self.answers, 30)

    def answers(self) -> bool:
        """Say whether the debugging protocol answers."""
        with urllib.request.urlopen(f"{self.url}/json/version", timeout=2) as answer:
            return "Browser" in json.load(answer)
