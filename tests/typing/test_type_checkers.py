"""mypy --strict and pyright accept right programs and reject wrong ones, line by line."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lexigram.events

ROOT = Path(__file__).parents[2]
SAMPLES = Path(__file__).parent / "samples"


def expected(path: Path) -> set[int]:
    """Return the lines that must be reported."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if re.search(r"\S  # E: \w", line)}


def mypy(path: Path, cache: Path) -> set[int]:
    """Return the lines of `path` that mypy reports as errors."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    # One cache for both samples: most of the time goes into the framework's modules.
    command += [
        "--cache-dir",
        str(cache.parent / "mypy"),
        "--no-error-summary",
        "--follow-imports",
        "silent",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert not done.stderr, done.stderr
    found = re.findall(rf"{re.escape(path.name)}:(\d+): error: (.*)", done.stdout)
    print(done.stdout)
    return {int(line) for line, _ in found}


def one_package(folder: Path) -> Path:
    """Link the framework and our package into one `lexigram`, as an installation has it; pyright knows no other."""
    package = folder / "lexigram"
    package.mkdir(parents=True)
    parts = [part for place in lexigram.__path__ for part in Path(place).iterdir()]
    for part in (*parts, Path(lexigram.events.__file__).parent):
        if not (package / part.name).exists():
            (package / part.name).symlink_to(part)
    return folder


def pyright(path: Path, cache: Path) -> set[int]:
    """Return the lines of `path` that pyright reports as errors."""
    shutil.copy(path, cache)
    settings = {"include": [path.name], "extraPaths": [str(one_package(cache / "packages"))], "pythonVersion": "3.11"}
    (cache / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(cache)]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    print(*(f"{one['range']['start']['line'] + 1}: {one['message']}" for one in errors), sep="\n")
    return {one["range"]["start"]["line"] + 1 for one in errors}


CHECKERS = {"mypy": mypy, "pyright": pyright}


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_programs_are_accepted(checker: str, tmp_path: Path) -> None:
    """No error anywhere in the good sample."""
    assert CHECKERS[checker](SAMPLES / "good.py", tmp_path) == set()


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("sample", ["bad.py", "aggregates.py"])
def test_wrong_lines_are_rejected(checker: str, sample: str, tmp_path: Path) -> None:
    """Exactly the marked lines of a sample are errors."""
    path = SAMPLES / sample
    assert CHECKERS[checker](path, tmp_path) == expected(path)


def test_the_good_sample_runs() -> None:
    """What the checkers accept works at run time too."""
    runpy.run_path(str(SAMPLES / "good.py"))


def test_wrong_calls_fail_at_run_time_too() -> None:
    """Missing, unknown and positional arguments are TypeErrors."""
    text = (SAMPLES / "bad.py").read_text(encoding="utf-8")
    head, _, wrong = text.partition("\n\n\nUserRegistered()")
    for line in ("UserRegistered()" + wrong).splitlines():
        if re.search(r"# E: (missing|unknown|positional|too many|frozen)", line):
            space: dict[str, object] = {"__name__": __name__}
            exec(head + '\nevent = UserRegistered(user_id="u1")\n', space)
            with pytest.raises((TypeError, AttributeError)):
                exec(line, space)
