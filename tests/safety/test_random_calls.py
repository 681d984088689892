"""Random calls of the core and random bytes for its decoders: an error or an answer, never a panic or a crash."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call_at_random(seed: int, calls: int, threads: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.safety.random_calls", str(seed), str(calls), str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:4]) == (0, "done"), f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 1), (3, 3)])
def test_random_calls_never_panic(seed: int, threads: int) -> None:
    """5,000 calls with objects that call back, in one thread or several."""
    call_at_random(seed, 5_000, threads)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 120))
def test_random_calls_never_panic_for_long(seed: int) -> None:
    """The same with 200,000 calls for each of twenty seeds."""
    call_at_random(seed, 200_000, 1 + seed % 3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("check", ["fuzz", "fuzz-python", "asan"])
def test_the_core_stands_fuzzing_and_the_address_sanitizer(check: str) -> None:
    """The commands of `tools/safety.py`; fuzzing takes ten minutes for each target."""
    if sysconfig.get_platform() != "linux-x86_64":
        pytest.skip("written for Linux on x86-64")
    command = [sys.executable, "-m", "tools.safety", check, *["600"] * check.startswith("fuzz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
