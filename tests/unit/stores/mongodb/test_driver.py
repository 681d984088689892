"""Without the driver, the MongoDB stores say what to install, and nothing else needs it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["pymongo"] = None
import importlib, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "pymongo" else find(name, *a)
import lexigram.events
for module in ("lexigram.events.stores.mongodb.event_store", "lexigram.events.sagas.mongodb"):
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(error)
try:
    lexigram.events.MongoDBEventStore
except ImportError as error:
    print(error)
"""


def test_a_missing_driver_says_which_extra_to_install() -> None:
    """Whichever way the store is imported."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("pip install 'lexigram-events[mongo]'" in line for line in lines)
