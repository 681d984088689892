"""What caused what: the events of one correlation id as a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lexigram.events.exceptions import EventValidationError


@dataclass(frozen=True)
class CausationNode:
    """An event, or a message that caused one and is not in the log (a command, say).

    Args:
        id: Id of the event or message.
        event_type: Type of the event; empty for a message that is not stored.
        aggregate_id: Its aggregate, if it has one.
        position: Its position in the log; 0 for a message that is not stored.
    """

    id: str
    event_type: str = ""
    aggregate_id: str | None = None
    position: int = 0
    occurred_at: datetime | None = None

    @property
    def label(self) -> str:
        """How the node is shown."""
        if not self.event_type:
            return f"message {self.id[:8]}"
        where = "" if self.aggregate_id is None else f" {self.aggregate_id}"
        return f"{self.event_type}{where} @{self.position}"


@dataclass(frozen=True)
class CausationGraph:
    """Nodes in order of position, messages that are not stored first, and edges from cause to effect."""

    correlation_id: str
    nodes: tuple[CausationNode, ...]
    edges: tuple[tuple[str, str], ...]

    def to_text(self) -> str:
        """Return the graph as indented lines, effects below their causes."""
        effects: dict[str, list[str]] = {}
        for cause, effect in self.edges:
            effects.setdefault(cause, []).append(effect)
        caused = {effect for _, effect in self.edges}
        by_id = {node.id: node for node in self.nodes}
        lines: list[str] = []
        # A stack instead of recursion: chains may be long.
        stack = [(node.id, 0) for node in reversed(self.nodes) if node.id not in caused]
        while stack:
            node_id, depth = stack.pop()
            lines.append("  " * depth + by_id[node_id].label)
            stack += [(effect, depth + 1) for effect in reversed(effects.get(node_id, []))]
        return "\n".join(lines)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flow chart."""
        names = {node.id: f"n{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        lines += [f'    {names[node.id]}["{node.label.replace(chr(34), chr(39))}"]' for node in self.nodes]
        lines += [f"    {names[cause]} --> {names[effect]}" for cause, effect in self.edges]
        return "\n".join(lines)


async def causation_graph(events: AsyncIterator[Any], correlation_id: Any) -> CausationGraph:
    """Return the graph of the events that carry this correlation id, and of the event that has it as its own id."""
    wanted = str(correlation_id)
    if not wanted:
        raise EventValidationError("correlation_id must not be empty", field="correlation_id")
    found: dict[str, Any] = {}
    async for event in events:
        if str(getattr(event, "correlation_id", None) or "") == wanted or str(event.event_id) == wanted:
            found[str(event.event_id)] = event
    edges = [
        (str(event.causation_id), event_id)
        for event_id, event in found.items()
        if getattr(event, "causation_id", None) is not None and str(event.causation_id) != event_id
    ]
    messages = dict.fromkeys(cause for cause, _ in edges if cause not in found)
    nodes = [CausationNode(cause) for cause in messages]
    nodes += [
        CausationNode(
            event_id,
            event.event_type,
            None if event.aggregate_id is None else str(event.aggregate_id),
            event.sequence_number or 0,
            event.occurred_at,
        )
        for event_id, event in found.items()
    ]
    return CausationGraph(wanted, tuple(nodes), tuple(edges))
