"""Who comes from whom, as text for other programs. Pure."""

import re
from collections.abc import Sequence

from agentlab.evolve.result import ChildRow

_NAMED = re.compile(r"\btrials? (\d+)(?: and (\d+))?")


def parents_in(note: str) -> list[int]:
    """Numbers of the trials that a child was bred from, as its algorithm says; none where it was drawn at random."""
    match = _NAMED.search(note)
    return [int(number) for number in match.groups() if number] if match else []


def mermaid(rows: Sequence[ChildRow], winner: str) -> str:
    """A flow chart of Mermaid, from the parents down."""
    lines = ["flowchart TD", *(f'    {row.id}["{_label(row)}"]' for row in rows)]
    for row in rows:
        lines += [f"    {parent} --> {row.id}" for parent in row.parents]
    return "\n".join([*lines, f"    style {winner} stroke-width:4px", ""])


def dot(rows: Sequence[ChildRow], winner: str) -> str:
    """A graph of Graphviz; children of a generation are side by side."""
    lines = ["digraph lineage {", "    node [shape=box];"]
    lines += [f'    {row.id} [label="{_label(row)}"{", penwidth=3" if row.id == winner else ""}];' for row in rows]
    for number in sorted({row.generation for row in rows}):
        names = " ".join(f"{row.id};" for row in rows if row.generation == number)
        lines.append(f"    {{ rank=same; {names} }}")
    for row in rows:
        lines += [f"    {parent} -> {row.id};" for parent in row.parents]
    return "\n".join([*lines, "}", ""])


def _label(row: ChildRow) -> str:
    """A child in a few words, which end no quotation."""
    right = "failed" if row.accuracy is None else f"{row.accuracy:.1%}"
    name = f" {row.note}" if row.source == "parent" else ""
    return re.sub(r'["\\\n]', " ", f"{row.id} {row.source}{name} {right}")
