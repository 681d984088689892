"""Event sourcing and CQRS: commands, events, queries, aggregates, stores, projections, sagas.

Names are loaded on first use, so importing this package imports no driver. The list of public names is the stub
`__init__.pyi`, and only that: it is read here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.2.0"


def _read_exports() -> dict[str, tuple[str, str]]:
    """Return {public name: (module, name there)} from the `from x import y as z` lines of the stub."""
    exports: dict[str, tuple[str, str]] = {}
    module = ""
    for raw in Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines():
        line = raw.split("#", 1)[0].strip()
        if line.startswith("from "):
            module, _, line = line[5:].partition(" import ")
        for part in line.strip("() ").split(","):
            name, as_, alias = part.strip().partition(" as ")
            if module and as_:
                exports[alias] = (module, name)
    return exports


_EXPORTS = _read_exports()
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
