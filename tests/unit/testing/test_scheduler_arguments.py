"""What a scheduler refuses: arguments with which it would try less than its caller believes."""

from __future__ import annotations

from typing import Any

import pytest

from lexigram.events.testing.scheduler import Trial, explore, replay


class Nothing(Trial):
    """A program without a fault."""

    async def run(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"at_most": 0}, "at_most must be at least 1"),
        ({"stall_seconds": 0}, "stall_seconds must be above 0"),
        ({"stall_seconds": -60}, "stall_seconds must be above 0"),
        ({"jump_seconds": 0}, "jump_seconds must not be 0"),
        ({"limit_seconds": 0}, "limit_seconds must be above 0"),
    ],
)
def test_numbers_with_which_nothing_is_tried(bad: dict[str, Any], message: str) -> None:
    """They passed."""
    with pytest.raises(ValueError, match=message):
        explore(Nothing, **bad)


def test_an_object_in_the_place_of_a_class() -> None:
    """Nothing of it was interrupted."""
    with pytest.raises(TypeError, match="interruptible takes classes"):
        explore(Nothing, interruptible=[Nothing()])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", ["stall", "jump"])
def test_a_stall_is_repeated_with_its_seconds(kind: str) -> None:
    """Without them nothing was held up, and the run passed."""
    with pytest.raises(ValueError, match=f"pass the {kind}_seconds"):
        replay(Nothing, f"{kind}:1")
    seconds: dict[str, Any] = {f"{kind}_seconds": 60.0}
    assert replay(Nothing, f"{kind}:1", **seconds).place
