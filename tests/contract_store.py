"""An event store with the framework's contract only."""

from __future__ import annotations

from typing import Any


class ContractStore:
    """One stream in memory; it reads with `start` and `count` and knows nothing else of ours."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def append(self, stream_id: str, events: list[Any], expected_version: int | None = None) -> int:
        self.events += events
        return len(self.events)

    async def read(self, stream_id: str, start: int = 0, count: int | None = None) -> list[Any]:
        return self.events[start:][:count]

    async def read_all(self, position: int = 0, count: int | None = None) -> list[Any]:
        return self.events[position:][:count]
