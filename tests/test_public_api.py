"""The names, parameters, fields, values and codes that existing programs use are all there."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lexigram.events
from tests.waiting import LEFT_OUT, WAITING

HERE = Path(__file__).parent
SURFACE: list[dict[str, Any]] = json.loads((HERE / "data" / "surface.json").read_text(encoding="utf-8"))
DOCS = HERE.parent / "docs"


def waits(row: dict[str, Any]) -> int | None:
    """Return the number of the issue that brings this row, or None where it must be there now."""
    for prefix, issue in WAITING.items():
        if (
            row["module"] == prefix
            or row["module"].startswith(prefix + ".")
            or f"{row['module']}.{row['name']}" == prefix
        ):
            return issue
    return None


def left_out(row: dict[str, Any]) -> bool:
    return row["module"] in LEFT_OUT or f"{row['module']}.{row['name']}" in LEFT_OUT


ALIASES = {"CommandBus", "QueryBus", "EventBus", "NextHandler"}
"""Root names of contracts that have another name in their own module."""

PRESENT = [row for row in SURFACE if waits(row) is None and not left_out(row)]


def row_id(row: dict[str, Any]) -> str:
    return f"{row['module'].removeprefix('lexigram.')}.{row['name']}"


def parameters(function: Any) -> tuple[set[str], bool]:
    """Return the names that `function` takes and whether it takes any keyword."""
    signature = inspect.signature(function)
    return set(signature.parameters), any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


@pytest.mark.parametrize("row", PRESENT, ids=row_id)
def test_a_published_name_imports_from_its_module(row: dict[str, Any]) -> None:
    """The name is in the module where programs look for it, and at the root if it was exported there."""
    if row["name"] not in ALIASES:
        assert hasattr(import_module(row["module"]), row["name"])
    if row["section"] == "lexigram.events":
        assert hasattr(lexigram.events, row["name"])
        assert row["name"] in lexigram.events.__all__


@pytest.mark.parametrize("row", [r for r in PRESENT if r["kind"] != "constant"], ids=row_id)
def test_a_published_name_takes_its_parameters(row: dict[str, Any]) -> None:
    """Every method, property, attribute, field, enum value and error code of the published name exists."""
    source = lexigram.events if row["section"] == "lexigram.events" else import_module(row["module"])
    item = getattr(source, row["name"])
    if row["kind"] == "function" and row["name"] not in ALIASES:
        names, anything = parameters(item)
        assert anything or not {p for p in row["params"] if not p.startswith("*")} - names
        return
    for method, expected in row.get("methods", {}).items():
        names, anything = parameters(item if method == "__init__" else getattr(item, method))
        missing = {p for p in expected if not p.startswith("*")} - names
        assert anything or not missing, f"{method} does not take {sorted(missing)}"
    for attribute in row.get("properties", []) + row.get("attributes", []):
        assert hasattr(item, attribute), attribute
    declared = {f.name for f in fields(item)} if is_dataclass(item) else set(getattr(item, "model_fields", ()))
    for field in row.get("fields", []):
        assert field in declared or hasattr(item, field) or field in parameters(item)[0], field
    for name, value in row.get("values", {}).items():
        assert item[name].value == value
    if "code" in row:
        assert item._code == row["code"]


def test_every_root_export_loads() -> None:
    """No line of the public stub names something that does not exist."""
    broken = [name for name in lexigram.events.__all__ if getattr(lexigram.events, name, None) is None]
    assert not broken


def test_no_root_export_hides_behind_a_module() -> None:
    """Importing `lexigram.events.x` sets the attribute `x`, so no public name may be called like a module."""
    package = Path(lexigram.events.__file__).parent
    assert not {path.stem for path in package.iterdir()} & set(lexigram.events.__all__)


def test_what_waits_is_not_there_yet() -> None:
    """A row of the waiting list is taken off as soon as its part has landed."""
    landed = []
    for row in SURFACE:
        if waits(row) is None:
            continue
        try:
            landed += [row_id(row)] if hasattr(import_module(row["module"]), row["name"]) else []
        except ImportError:
            continue
    assert not landed, f"take these off tests/waiting.py: {landed}"


def test_what_is_left_out_is_explained_to_users() -> None:
    """The migration page names everything of the published package that we do not carry."""
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    assert not [name for name in LEFT_OUT if name not in page]


def test_importing_the_package_loads_no_optional_driver() -> None:
    """`import lexigram.events` and its in-memory parts pull in no driver and no web framework."""
    code = (
        "import sys, lexigram.events as e; e.Event; e.InMemoryEventStore; e.CommandBusImpl; e.AggregateRoot;"
        "bad = {'asyncpg','pymongo','motor','redis','aio_pika','aiokafka','azure','starlette','uvicorn','typer','rich',"
        "'opentelemetry','cryptography','sqlite3'} & set(sys.modules); print(sorted(bad))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


PACKAGE_NAMES = [
    ("aggregates", "AggregateRoot Entity ValueObject VersionedAggregateRoot"),
    ("buses", "Bus CommandBusImpl EventBusImpl QueryBusImpl DispatchResult"),
    ("decorators", "command_handler event_handler query_handler multi_event_handler validate_command saga projection"),
    ("di", "EventsProvider"),
    ("handlers", "HandlerRegistry CommandHandlerProtocol EventHandlerProtocol QueryHandlerProtocol"),
    ("messages", "Command DomainEvent Event IntegrationEvent Message MessageMetadata PagedResult Query"),
    (
        "middleware",
        "AbstractMiddleware LoggingMiddleware MetricsMiddleware RetryMiddleware ValidationMiddleware middleware",
    ),
    ("projections", "InlineProjection ProjectionManager ProjectionProtocol"),
    ("repository", "AbstractRepository EventSourcingRepository"),
    ("sagas", "InMemorySagaStore SagaBase SagaContext SagaManager SagaStatus SagaStepResult saga_step"),
    ("schema", "EventSchema SchemaEvolution SchemaRegistry Upcaster"),
    ("stores", "AbstractEventStore HAS_SQLITE InMemoryEventStore RedisEventStore SnapshotManager SqliteEventStore"),
]


@pytest.mark.parametrize(("package", "names"), PACKAGE_NAMES, ids=lambda value: value.split()[0])
def test_names_can_be_imported_from_their_package(package: str, names: str) -> None:
    """They are those of their module; modules stay modules, and other names are an ImportError."""
    module = import_module(f"lexigram.events.{package}")
    for name in names.split():
        value = getattr(module, name)
        if inspect.isclass(value) and value.__module__.startswith("lexigram.events."):
            assert value.__module__.startswith(module.__name__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = module.nonsense
    decorators = import_module("lexigram.events.decorators")
    assert import_module("lexigram.events.decorators.idempotent") is decorators.idempotent
