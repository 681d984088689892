"""The Rust core needs no more instructions than before, counted by callgrind: no noise of the machine changes them."""

from __future__ import annotations

import json

import pytest

from benches.instructions import BASELINE, interpreter, measure, worse
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


def test_an_operation_that_needs_a_tenth_more_is_named() -> None:
    """A few instructions more are no finding; an operation without a baseline is one."""
    found = {"read": 1_120, "write": 1_500, "new": 30}
    assert worse(found, {"read": 1_000, "write": 1_000}) == [
        "write: 1,500 instructions, 1,000 before",
        "new: no baseline",
    ]
