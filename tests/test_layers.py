"""Imports point down: a package may import its own level or a lower one (see docs/flow.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lexigram.events

PACKAGE = Path(__file__).parent.parent / "python" / "lexigram" / "events"
LEVELS = {
    0: "_core _packages constants exceptions",
    1: "messages types protocols config hooks events clock",
    2: "schema encryption",
    3: "aggregates buses decorators middleware stores",
    4: "handlers repository projections sagas streaming adapters webhooks version_skew reactive services observability",
    5: "di module",
    6: "admin cli",
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names.split()}
TESTING = 4.5  # may import up to level 4; nobody imports it


def room(name: str) -> str:
    """Return the room of a dotted name; a name taken from the package root counts as where it lives."""
    first = name.split(".")[2]
    module = lexigram.events._EXPORTS.get(first, (name,))[0]
    return module.split(".")[2] if module.startswith("lexigram.events.") else "constants"


def imported_rooms(tree: ast.AST) -> set[str]:
    """Return the first component below `lexigram.events` of every import, type-checking blocks left out."""
    rooms: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                rooms |= imported_rooms(ast.Module([other], []))
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {room(name) for name in names if name.startswith("lexigram.events.")}
        rooms |= imported_rooms(node)
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(room: str) -> float:
    return TESTING if room == "testing" else LEVEL[room]


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in ("__init__", "_aliases")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_its_own_level_and_below(path: Path) -> None:
    """A room never imports a room above it, and nobody imports the testing kit."""
    own = level_of(room_of(path))
    for other in imported_rooms(ast.parse(path.read_text(encoding="utf-8"))) - {room_of(path)}:
        assert other in LEVEL or other == "testing", f"{other} has no level in this test"
        assert level_of(other) <= own, f"level {own} imports {other} of level {level_of(other)}"


def test_the_checker_sees_a_wrong_import() -> None:
    """The reader of imports finds them at module level, in functions and behind `else` of a type-checking block."""
    source = (
        "from lexigram.events.di import x\ndef f():\n  import lexigram.events.cli.y\n"
        "if TYPE_CHECKING:\n  from lexigram.events.admin import z\nelse:\n  from lexigram.events import stores\n"
    )
    assert imported_rooms(ast.parse(source)) == {"di", "cli", "stores"}


def test_unsafe_code_is_in_these_files() -> None:
    """Only these may lift the crate's ban; see docs/decisions/0001."""
    sources = Path(__file__).parent.parent / "rust" / "src"
    lifting = [path for path in sources.rglob("*.rs") if "allow(unsafe_code)" in path.read_text(encoding="utf-8")]
    assert sorted(path.name for path in lifting) == ["awaitable.rs", "call_slots.rs", "event.rs", "numbers.rs"]
