"""A read model outside of the store's database whose emptying fails half-way is built again, not left with holes."""

from __future__ import annotations

import pytest

from lexigram.events import (
    DocumentProjection,
    DomainEvent,
    InMemoryEventStore,
    ProjectionManager,
    ProjectionProtocol,
)
from lexigram.events.projections.document import InMemoryDocuments
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore

pytestmark = pytest.mark.asyncio


class ResetSold(DomainEvent):
    """An event of these tests."""

    sku: str


class Fragile(InMemoryDocuments):
    """Loses its link when one document is deleted."""

    breaks = True

    async def clear(self) -> None:
        """Delete one document, then fail; the second time delete all."""
        if self.breaks:
            self.breaks = False
            del self._documents["a"]
            raise ConnectionError("the link is lost")
        await super().clear()


def sales(documents: InMemoryDocuments) -> ProjectionProtocol:
    """Return a projection that counts by sku."""
    projection = DocumentProjection("sales", documents)

    @projection.on(ResetSold, key=lambda event: event.sku)
    def sold(document: dict[str, int], event: ResetSold) -> dict[str, int]:
        return {"count": document.get("count", 0) + 1}

    return projection


@pytest.mark.parametrize("how", ["reset", "resume", "resume_rebuild", "restart"])
async def test_what_a_failed_reset_has_deleted_comes_back(how: str) -> None:
    """The position stayed where it was: what had been deleted was missing for ever, and the projection was live."""
    store, checkpoints, documents = InMemoryEventStore(), InMemoryCheckpointStore(), Fragile()
    await store.append("s", [ResetSold(sku=sku) for sku in "abab"])
    async with ProjectionManager(store, checkpoint_store=checkpoints) as manager:
        manager.register(sales(documents))
        await manager.wait_for("sales", 4, timeout=5)
        with pytest.raises(ConnectionError):
            await (manager.reset_all() if how == "reset" else manager.rebuild("sales"))
        if how == "resume":
            manager.resume("sales")
        elif how == "resume_rebuild":
            await manager.resume_rebuild("sales")
        elif how == "restart":
            await manager.stop()
            manager = ProjectionManager(store, checkpoint_store=checkpoints)
            manager.register(sales(documents))
            await manager.start()
        await store.append("s", [ResetSold(sku="b")])
        await manager.wait_for("sales", 5, timeout=5)
        await manager.stop()
    found = {sku: (await documents.get(sku)).document for sku in "ab"}
    assert found == {"a": {"count": 2}, "b": {"count": 3}}
