"""Fixtures of the flow tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lexigram.events.decorators.handlers import clear_handlers, get_all_handlers, get_handler_info, set_handler_info


@pytest.fixture
def own_handlers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only the decorated handlers of the test's own module exist: applications load all that were ever imported."""
    everybody = get_all_handlers()
    clear_handlers()
    for value in list(vars(request.module).values()):
        info = get_handler_info(value)
        if info is not None and info.module == request.module.__name__:
            set_handler_info(value, info)
    yield
    clear_handlers()
    for info in everybody:
        set_handler_info(info.handler, info)
