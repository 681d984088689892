"""An event class that another process can import."""

from __future__ import annotations

from lexigram.events import DomainEvent


class Importable(DomainEvent):
    a: int
