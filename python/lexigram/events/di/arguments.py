"""Arguments of the module and its provider, checked where they are given."""

from __future__ import annotations

from typing import Any

from lexigram.events.config import EventsConfig
from lexigram.events.exceptions import EventValidationError


def as_config(config: Any) -> EventsConfig | None:
    """Return a configuration; a mapping becomes one, None is left to the application's files and environment.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, a setting is not acceptable, or it is something else.
    """
    if isinstance(config, dict):
        return EventsConfig.from_dict(config)
    if config is None or isinstance(config, EventsConfig):
        return config
    raise EventValidationError(
        f"config must be an EventsConfig, a mapping or None, got {type(config).__name__}", field="config"
    )


def as_module_names(handler_modules: Any) -> list[str]:
    """Return the names of modules with handlers; None is none.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, it is not a list of names.
    """
    if handler_modules is None:
        return []
    modules = handler_modules if isinstance(handler_modules, list | tuple) else [None]
    if not all(isinstance(name, str) and name for name in modules):
        raise EventValidationError(
            f'handler_modules must be a list of module names like ["myapp.handlers"], got {handler_modules!r}',
            field="handler_modules",
        )
    return list(modules)
