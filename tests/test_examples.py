"""Every small example of examples/ runs as a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize(
    "script", [path for path in EXAMPLES if path.name != "__init__.py"], ids=lambda path: path.stem
)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    """The script ends without an error or a warning and prints what it shows."""
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
