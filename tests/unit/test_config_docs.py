"""The table of settings in the documentation lists every setting with its default and its variable."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from lexigram.events.config import EventsConfig
from lexigram.events.config.section import ConfigSection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "module.md"
BEGIN, END = "<!-- settings: checked by tests/unit/test_config_docs.py -->\n", "<!-- end of settings -->"


def rows(cls: type[ConfigSection], path: str, defaults: Any) -> Iterator[str]:
    """Yield one line per setting of `cls`, sections included."""
    hints = cls._cached_type_hints or {}
    for field in dataclasses.fields(cls):
        name, hint = f"{path}{field.name}", hints[field.name]
        section = next(
            (t for t in (hint, *get_args(hint)) if isinstance(t, type) and issubclass(t, ConfigSection)), None
        )
        value = getattr(defaults, field.name, None) if defaults is not None else default_of(field)
        if section is not None:
            yield from rows(section, f"{name}.", value)
        else:
            variable = "LEX_EVENTS__" + name.upper().replace(".", "__")
            yield f"| `{name}` | {shown(value)} | `{variable}` |"


def default_of(field: Any) -> Any:
    """Return a field's default; required ones have none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return "required" if field.default is dataclasses.MISSING else field.default


def shown(value: Any) -> str:
    """Return a default as the documentation writes it."""
    if value in (None, "", {}) or value == "required":
        return "required" if value == "required" else "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def test_the_documentation_lists_every_setting() -> None:
    """Names, defaults and environment variables in docs/module.md are those of the classes."""
    table = "| Setting | Default | Environment variable |\n|---|---|---|\n" + "\n".join(
        rows(EventsConfig, "", EventsConfig())
    )
    text = PAGE.read_text(encoding="utf-8")
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert written == table, f"replace the table by:\n{table}"
