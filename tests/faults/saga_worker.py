"""A process that runs its share of the sagas of one database until its input is closed; killed and stopped by a test."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from lexigram.events import SagaConfig, SagaManager
from lexigram.events.sagas.sharing import SagaSharing
from tests.backends import saga_store
from tests.faults.projection_worker import LEASE_SECONDS, open_store
from tests.flow.shop_worker import Fulfil

PARTITIONS = 8


def sharing(sagas: Any, store: Any, checkpoints: Any, *, works: bool) -> tuple[SagaManager, SagaSharing]:
    """Return a manager and its share."""
    config = SagaConfig(retry_delay_seconds=0.0)
    manager = SagaManager(sagas, event_store=store, services={"store": store}, config=config)
    manager.register(Fulfil)
    shared = SagaSharing(
        manager, checkpoints, partitions=PARTITIONS, works=works, lease_seconds=LEASE_SECONDS, poll_seconds=0.1
    )
    return manager, shared


async def main(backend: str, where: str) -> None:
    """Work until the input is closed."""
    async with open_store(backend, where) as store, saga_store(backend, store) as sagas:
        async with store.checkpoint_store() as checkpoints, sharing(sagas, store, checkpoints, works=True)[1]:
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
