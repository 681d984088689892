"""`make safety-asan` sees what it looks for."""

from __future__ import annotations

import subprocess
import sys

USED_AFTER_FREE = """
import ctypes
from lexigram.events import DomainEvent, _core
class Gone(DomainEvent):
    a: object
event = Gone(a=object())
for _ in range(2):
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(event))
_core.message_state(event)
"""


def test_a_message_that_is_used_after_it_was_freed_is_reported() -> None:
    """With the place in the core; otherwise a run without reports would mean nothing."""
    done = subprocess.run([sys.executable, "-c", USED_AFTER_FREE], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-use-after-free" in done.stderr
    assert "rust/src/py/event.rs" in done.stderr
