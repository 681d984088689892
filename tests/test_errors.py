"""Every exception has one stable code, one place in the tree and one line in the documentation."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from lexigram.contracts.exceptions.base import LexigramError
from lexigram.events import exceptions
from tools.generate_docs import all_errors, render_errors

ERRORS = all_errors()
DOCS = Path(__file__).parent.parent / "docs"


def build(error: type[LexigramError]) -> LexigramError:
    """Return an instance of any of our errors."""
    arguments: dict[str, tuple[object, ...]] = {
        "StreamNotFoundError": ("Order", "order-1"),
        "EventHandlerError": ("OrderPlaced", "send_mail", "no route to host"),
        "WebhookDeliveryError": ("https://example.test/hook", 503),
        "SchemaIncompatibleError": ("changed", "OrderPlaced", 2),
        "SchemaNotFoundError": ("OrderPlaced", 2),
    }
    return error(*arguments.get(error.__name__, ()))


def test_codes_are_unique_and_well_formed() -> None:
    """No two exceptions share a code."""
    codes = [error._code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"LEX_ERR_EVT_0\d\d", code) for code in codes)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_says_its_code_and_keeps_its_message(error: type[LexigramError]) -> None:
    """`str()` shows code and message; details is a dict; cause and hint are accepted."""
    instance = build(error)
    assert instance.code == error._code
    assert error._code in str(instance)
    assert isinstance(instance.details, dict)
    assert instance.message


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_the_module_docstring_draws_every_error(error: type[LexigramError]) -> None:
    """The tree in exceptions.py names every error declared there, with its code."""
    if error.__module__ == exceptions.__name__:
        assert re.search(rf"{error.__name__}\s+{error._code}", exceptions.__doc__ or "")


def test_concurrency_error_carries_both_versions() -> None:
    """The versions are attributes and details."""
    error = exceptions.ConcurrencyError("conflict", expected_version=3, actual_version=5)
    assert (error.expected_version, error.actual_version) == (3, 5)
    assert error.details == {"expected_version": 3, "actual_version": 5}


def test_details_of_the_caller_are_not_changed() -> None:
    """A dict handed in as details is copied."""
    details = {"a": 1}
    error = exceptions.EventValidationError("bad", field="stream_id", details=details)
    assert details == {"a": 1}
    assert error.details == {"a": 1, "field": "stream_id"}
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_survives_copy_and_pickle(error: type[LexigramError]) -> None:
    """Errors can be copied and cross process borders with everything they carry."""
    instance = build(error)
    for twin in (copy.copy(instance), pickle.loads(pickle.dumps(instance))):
        assert type(twin) is error
        assert (twin.message, twin.details, str(twin)) == (instance.message, instance.details, str(instance))


def test_the_errors_page_is_generated_from_the_code() -> None:
    """docs/errors.md is what `make docs` writes now."""
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == render_errors()
