"""What the safety tests have in common."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """Put what other tests left behind out of the collector's sight: hundreds of collections take no time then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
