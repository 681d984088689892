"""The contract suites catch known bugs: each is failed by the test that is about it, which healthy stores pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.contract import mutants

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run the suites over all stores of `mutants.py`; return the names of the failed tests by store."""
    folder = tmp_path_factory.mktemp("mutants")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore",
        "--timeout", "20", f"--junitxml={folder / 'report.xml'}", str(ROOT / "tests" / "contract" / "mutants.py"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        store = case.attrib["classname"].rpartition("Test")[2]
        found.setdefault(store, [])
        if case.find("failure") is not None or case.find("error") is not None:
            found[store].append(case.attrib["name"])
    return found


@pytest.mark.parametrize("store", mutants.MUTANTS, ids=lambda c: c.__name__)
def test_every_known_bug_is_caught(failures: dict[str, list[str]], store: type) -> None:
    """By the test that is about it."""
    assert failures[store.__name__], f"the suite does not notice: {store.__doc__}"


@pytest.mark.parametrize("store", mutants.HEALTHY, ids=lambda c: c.__name__)
def test_stores_without_a_bug_pass(failures: dict[str, list[str]], store: type) -> None:
    """So that a failing suite means something."""
    assert failures[store.__name__] == []
