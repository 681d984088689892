"""The Rust core needs no more instructions than before, counted by callgrind: no noise of the machine changes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benches.instructions import BASELINE, in_core, interpreter, measure, worse
from tools import valgrind
from tools.servers.base import ServiceError


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_operation_of_the_core_needs_clearly_more_instructions() -> None:
    """Each stays within a tenth of `benches/instructions.json`; after a change that is worth it, write a new baseline."""
    known = json.loads(BASELINE.read_text(encoding="utf-8"))
    if known["interpreter"] != interpreter():
        pytest.skip(f"the baseline is of {known['interpreter']}, this is {interpreter()}")
    try:
        valgrind.install()
    except ServiceError as error:
        pytest.skip(str(error).splitlines()[0])
    problems = worse(measure(), known["counts"])
    assert not problems, "\n".join([*problems, "if that is meant: python -m benches.instructions --write"])


def test_only_the_cores_own_instructions_count(tmp_path: Path) -> None:
    """Neither those of the interpreter, nor what the core's calls cost elsewhere, nor another library's `_core`."""
    part = tmp_path / "callgrind.1"
    part.write_text(
        "events: Ir\nsummary: 99999\n\n"
        "ob=(1) /venv/lexigram/events/_core.cpython-311.so\nfl=(1) ???\nfn=(1) append\n0 30\n"
        "cob=(2) /lib/libpython3.11.so\ncfn=(2) PyList_New\ncalls=2 0\n0 5000\n+3 4\n\n"
        "ob=(2)\nfn=(2)\n7 5000\ncob=(1)\ncfn=(3) dealloc\ncalls=1 0\n* 600\n\n"
        "ob=(3) /venv/pydantic_core/_pydantic_core.cpython-311.so\nfn=(4) validate\n0 700\n\n"
        "ob=(1)\nfn=(3)\n-2 600\n",
        encoding="utf-8",
    )
    assert in_core(part) == 30 + 4 + 600


def test_an_operation_that_needs_a_tenth_more_is_named() -> None:
    """A few instructions more are no finding; an operation without a baseline is one."""
    found = {"read": 1_120, "write": 1_500, "new": 30}
    assert worse(found, {"read": 1_000, "write": 1_000}) == [
        "write: 1,500 instructions, 1,000 before",
        "new: no baseline",
    ]
