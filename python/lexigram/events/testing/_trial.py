"""What a trial is, and how it ends. Users import these names from `lexigram.events.testing.scheduler`."""

from __future__ import annotations

from dataclasses import dataclass


class Trial:
    """One run of a program: what it does, how it recovers, and what must be true then.

    Keep in attributes only what survives a crash: stores in memory, or the address of a database. Everything else, such as
    managers and relays, is made anew in `run` and in `recover`.
    """

    async def prepare(self) -> None:
        """Make what the run needs, such as tables and first events; not interrupted."""

    async def run(self) -> None:
        """Do the work. It is interrupted at every await, in all the tasks that it starts."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    async def recover(self) -> None:
        """Start the program again, with fresh objects, and let it finish what it finds. Not interrupted.

        It is called after runs that came to their end, too: there must be nothing left to do then.
        """

    async def check(self) -> None:
        """Raise AssertionError unless everything is as it has to be."""

    async def close(self) -> None:
        """Remove what the trial has left behind."""


class TrialFailed(AssertionError):
    """An invariant does not hold after an interruption, or the program did not come to an end.

    Args:
        seed: The seed of the run.
        fault: Where it was interrupted, such as `"crash:17"`, or `"none"`. `replay` takes it.
        place: What the interrupted task was doing.
    """

    def __init__(self, message: str, seed: int, fault: str, place: str) -> None:
        at = f"\n  interrupted: {place}" if place else ""
        super().__init__(f"{message}\n  seed {seed}, fault {fault!r}: replay(…, {fault!r}, seed={seed}){at}")
        self.seed, self.fault, self.place = seed, fault, place


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        fault: Where it was interrupted.
        place: What the interrupted task was doing; empty where the point was not reached.
        crashes: Places where a run can crash or stall, as far as this one came.
        cancels: Places where a task can be cancelled, as far as this one came.
        trace: The tasks in the order of their steps; equal for equal seeds and faults in memory.
        seconds: How long it took by the virtual clock.
    """

    fault: str
    place: str
    crashes: int
    cancels: int
    trace: tuple[str, ...]
    seconds: float
