"""What the annotations of a class say: its fields along the bases, its type variables, names that stand as text."""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any


def type_variables(cls: type, arguments: tuple[Any, ...] = ()) -> dict[Any, Any]:
    """Return what every type variable in the bases of a class stands for, e.g. `class H(G[int])`."""
    found: dict[Any, Any] = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    for base in cls.__mro__:
        for generic in base.__dict__.get("__orig_bases__", ()):
            parameters = getattr(typing.get_origin(generic), "__parameters__", ())
            for parameter, argument in zip(parameters, typing.get_args(generic), strict=False):
                if parameter is not argument:
                    known = isinstance(argument, typing.TypeVar) and argument in found
                    found.setdefault(parameter, found[argument] if known else argument)
    return found


def annotations_of(cls: type) -> dict[str, tuple[Any, type]]:
    """Return {field name: (annotation, class that has it)} along the bases, without class variables."""
    found: dict[str, tuple[Any, type]] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in own_annotations(base).items():
            if not _is_class_variable(annotation):
                found[name] = (annotation, base)
    return found


def own_annotations(cls: type) -> dict[str, Any]:
    """Return the annotations of a class itself, unresolved names included."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.startswith(("ClassVar", "typing.ClassVar", "t.ClassVar"))
    return annotation is typing.ClassVar or typing.get_origin(annotation) is typing.ClassVar


def resolve_text(annotation: str | typing.ForwardRef, owner: type | None) -> Any:
    """Evaluate a textual annotation in the module of the class that has it; Any where a name cannot be found."""
    text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
    if owner is None:
        return Any
    module = sys.modules.get(owner.__module__)
    names = {**vars(typing), **getattr(module, "__dict__", {})}
    names.setdefault(owner.__name__, owner)
    try:
        return eval(text, names, dict(vars(owner)))
    except Exception:
        return Any
