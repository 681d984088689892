"""Backends: one registry, one set of stores per backend, never another one than asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lexigram.events.config import EventsConfig
from lexigram.events.constants import EVENT_STORE_BACKENDS
from lexigram.events.di.backends import COMPANIONS
from lexigram.events.di.sub_providers.store_provider import StoreSubProvider
from lexigram.events.exceptions import EventStoreError, EventValidationError
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.registry import EventStoreRegistry
from lexigram.events.stores.registry_factories import FACTORIES
from lexigram.events.types import EventStoreBackend


def test_every_available_backend_has_all_its_stores() -> None:
    """The table that validation uses, the factories and the companions name the same backends."""
    assert set(EVENT_STORE_BACKENDS) == set(FACTORIES) == set(COMPANIONS)
    assert set(EVENT_STORE_BACKENDS) <= set(EventStoreBackend)
    assert EventStoreRegistry.with_defaults().keys() == list(FACTORIES)


@pytest.mark.parametrize("backend", EventStoreBackend)
async def test_the_registry_creates_what_was_asked_for_or_nothing(backend: EventStoreBackend, tmp_path: Path) -> None:
    """An unknown backend is an error that lists the known ones."""
    registry = EventStoreRegistry.with_defaults()
    config = EventsConfig(
        sqlite={"database": str(tmp_path / "events.db")},
        redis={"url": "redis://127.0.0.1:1/0"},
        mongodb={"uri": "mongodb://h/x"},
        postgres={"dsn": "postgresql://h/x"},
    )
    store = await registry.create(backend, config)
    assert backend.value in type(store).__module__
    with pytest.raises(EventValidationError, match=r"'oracle' is not available.*memory, sqlite"):
        await registry.create("oracle", config)
    assert list(tmp_path.iterdir()) == []


async def test_a_backend_can_be_replaced_by_a_coroutine_function() -> None:
    """Applications register their own factory; the limits of the configuration reach the default one."""
    own = InMemoryEventStore()

    async def factory(config: EventsConfig, container: Any) -> InMemoryEventStore:
        return own

    registry = EventStoreRegistry.with_defaults()
    registry.register("memory", factory)
    provider = StoreSubProvider(EventsConfig(), registry)
    await provider.setup()
    assert provider.stores.events is own


async def test_a_backend_without_companions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event store alone does not make a backend: snapshots and sagas would silently be elsewhere."""
    monkeypatch.delitem(COMPANIONS, "memory")
    with pytest.raises(EventValidationError, match="'memory' has an event store, but no snapshot"):
        await StoreSubProvider(EventsConfig(event_store_backend="memory")).setup()


def test_stores_exist_after_setup_only() -> None:
    """Asking too early is a clear error."""
    with pytest.raises(EventStoreError, match="not set up yet"):
        _ = StoreSubProvider(EventsConfig()).stores


async def test_all_stores_open_and_close_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be closed does not keep the others open; the first error is raised."""
    provider = StoreSubProvider(
        EventsConfig(event_store_backend="sqlite", sqlite={"database": str(tmp_path / "events.db")})
    )
    await provider.setup()
    await provider.boot()
    closed: list[str] = []
    for store in provider.stores:
        original = store.close

        async def close(store: Any = store, original: Any = original) -> None:
            closed.append(type(store).__name__)
            await original()
            if type(store).__name__ == "SqliteIdempotencyStore":
                raise RuntimeError("cannot close")

        monkeypatch.setattr(store, "close", close)
    with pytest.raises(RuntimeError, match="cannot close"):
        await provider.teardown()
    assert closed == [type(store).__name__ for store in reversed(list(provider.stores))]
    await provider.teardown()
    assert len(closed) == 6
