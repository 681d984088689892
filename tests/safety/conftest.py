"""What the safety tests have in common."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

UNDER_ASAN = "asan" in os.environ.get("LD_PRELOAD", "")
collect_ignore = [] if UNDER_ASAN else ["test_sanitizer.py"]  # it is about the sanitizer itself


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """Put what other tests left behind out of the collector's sight: hundreds of collections take no time then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
