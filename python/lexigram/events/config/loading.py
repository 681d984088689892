"""What the framework merged from YAML and the environment, taken apart again so that the spelling does not matter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lexigram.config.base import BaseConfig
from lexigram.config.lib import EnvironmentConfigSource
from lexigram.events.constants import ENV_NESTED_DELIMITER, ENV_PREFIX

__all__ = ["MergedSources", "overlaid", "split_environment"]


class MergedSources(BaseConfig):
    """Everything the framework merged from files and environment, not yet interpreted."""

    def __init__(self, **values: Any) -> None:
        self.values = values


def split_environment(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a merged section into what files said and what came from `LEX_EVENTS__…`, as the variables' own text.

    A variable counts only where the section holds its value: a configuration made in code never reads it.
    """
    rest: dict[str, Any] = _deep_copied(values)
    environment: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        *parents, leaf = variable.removeprefix(ENV_PREFIX).lower().split(ENV_NESTED_DELIMITER)
        source, target = rest, environment
        for part in parents:
            source, target = source.get(part, {}), target.setdefault(part, {})
            if not isinstance(source, dict):
                break
        if isinstance(source, dict) and leaf in source and source[leaf] == EnvironmentConfigSource._parse_value(text):
            del source[leaf]
            target[leaf] = text
    return rest, environment


def _deep_copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def overlaid(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the leaves of `over` on top."""
    joined = dict(base)
    for key, value in over.items():
        below = joined.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        joined[key] = overlaid(below, value) if both and below is not None else value
    return joined
