"""The real `kill -9`: a part of a run in a process of its own that ends at its point, with its threads and connections."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from lexigram.events.testing._scheduled_loop import Watch


class Report(NamedTuple):
    """What a child process tells before it ends.

    Args:
        crashed: It was killed at its point; False: it came to its end before that.
        place: Where it was killed.
        skipped: Seconds by which it has put its clock forward.
        error: What it raised, as text; empty if nothing.
    """

    crashed: bool
    place: str
    skipped: float
    error: str


def in_child(work: Callable[[Callable[[Watch], None]], None], skipped: Callable[[], float]) -> Report:
    """Call `work(end)` in a fork of this process; `end(watch)` kills it at once. Return what became of it.

    Raises:
        RuntimeError: This platform cannot fork, or the child ended without a word.
    """
    if not hasattr(os, "fork"):
        raise RuntimeError("crashes outside of memory need os.fork; pass crash=False here")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12 on: other threads may hold locks for ever in the child. Ours have ended with their stores.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _live(work, skipped, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"the child process ended with status {status} and told nothing")
    return Report(*pickle.loads(told))


def _live(work: Callable[[Callable[[Watch], None]], None], skipped: Callable[[], float], pipe: int) -> Any:
    """Be the child; never returns."""

    def end(watch: Watch) -> None:
        os.write(pipe, pickle.dumps(tuple(Report(True, watch.place, skipped(), ""))))
        os.kill(os.getpid(), signal.SIGKILL)

    error = ""
    try:
        work(end)
    except BaseException:
        error = traceback.format_exc()[-8000:]
    os.write(pipe, pickle.dumps(tuple(Report(False, "", skipped(), error))))
    os._exit(0)
