"""The configuration section of PostgreSQL, under its published path. Source: spec/reference-surface.md."""

from __future__ import annotations

from lexigram.events.config.stores import PostgresEventStoreConfig

__all__ = ["PostgresEventStoreConfig"]
