"""Every Python block of the README and of docs/ runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python( +[^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNER = """
import ast, asyncio, inspect, sys
from pathlib import Path
source = Path(sys.argv[1]).read_text(encoding="utf-8")
code = compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
page = {"__name__": "page"}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, page))
else:
    exec(code, page)
"""


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return (line, source) of the page's Python blocks, except those marked `fragment`."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 2, match[2])
        for match in BLOCK.finditer(text)
        if "fragment" not in (match[1] or "")
    ]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    """A reader who pastes the blocks of one page in order into a script sees no error."""
    source = ""
    for line, block in blocks(page):
        source += "\n" * max(0, line - 1 - source.count("\n")) + block
    script, runner = tmp_path / f"{page.stem}_page.py", tmp_path / "runner.py"
    script.write_text(source, encoding="utf-8")
    runner.write_text(RUNNER, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(runner), str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}\n{done.stderr}"


def test_there_are_pages_with_code() -> None:
    """The collector finds the README and several pages, so that the test above cannot pass by finding nothing."""
    assert ROOT / "README.md" in WITH_CODE
    assert len(WITH_CODE) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link of a page names an existing file."""
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_guarantees_table_cites_tests_that_exist() -> None:
    """Every "file::name" in the stores page is a test of that file."""
    text = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    cited = re.findall(r"`([\w/]+\.py)`::(\w+)", text)
    assert len(cited) >= 15
    missing = [
        f"{file}::{name}" for file, name in cited if f"def {name}" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not missing


def test_the_table_of_backends_links_to_tests_that_exist() -> None:
    """A link to a test file is named after one of its tests, and no cell of the table is without one."""
    text = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    links = re.findall(r"\[([^\]]+)\]\(\.\./((?:tests|python)/[\w/]+/(?:test_|_store)\w+\.py)\)", text)
    assert len(links) >= 20
    tests = [(f"def test_{words.replace(' ', '_')}", file) for words, file in links]
    assert not [(test, file) for test, file in tests if test not in (ROOT / file).read_text(encoding="utf-8")]
    table = text.partition("What each of them guarantees")[2].partition("\n\n")[2].partition("\n\n")[0]
    cells = [cell for row in table.splitlines()[2:] for cell in row.strip("| ").split(" | ")[1:]]
    assert len(cells) >= 5 * 8
    assert not [cell for cell in cells if "](../" not in cell]
