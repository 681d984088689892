"""Imports modules by name."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from lexigram.events.exceptions import EventValidationError


def import_modules(module_path: str, recursive: bool = True) -> list[ModuleType]:
    """Import a module and, if it is a package, the modules inside.

    Args:
        recursive: Whether to go into the package at all; `__main__` modules are left out.

    Raises:
        EventValidationError: There is no such module. Errors raised while it is imported are passed on.
    """
    if not isinstance(module_path, str) or not module_path:
        raise EventValidationError(
            f'module_path must be the name of a module like "app.handlers", not {module_path!r}', field="module_path"
        )
    try:
        module = import_module(module_path)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_path}.".startswith(f"{error.name}."):
            raise EventValidationError(
                f"There is no module {module_path!r}; check its name, and that it can be imported from where the "
                "program runs",
                field="module_path",
            ) from error
        raise
    modules = [module]
    if recursive and hasattr(module, "__path__"):
        for found in sorted(pkgutil.iter_modules(module.__path__, f"{module_path}."), key=lambda entry: entry.name):
            if not found.name.endswith(".__main__"):
                modules.extend(import_modules(found.name))
    return modules
