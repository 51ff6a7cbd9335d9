"""Which run came from which: all pipeline runs as a forest, and what each changed."""

from collections.abc import Sequence

from agentlab.pipeline.branches.digest import Digest, changes, told
from agentlab.runs.compare import ConfigDifference
from agentlab.runs.document import Block, Code, Document, Text

_MOST_CHANGES = 3  # told per run
_INDENT = 60  # characters; deeper branches lose the outermost lines


class TreeNode(Document):
    """One run. A parent that was removed has the status `removed`; `executed` and `reused` are ids of stages."""

    id: str
    parent: str | None
    depth: int
    status: str
    created: str
    changed: list[ConfigDifference]
    executed: list[str]
    reused: list[str]


class TreeView(Document):
    """The answer of `pipeline tree`: every run after the one it came from, siblings in the order of their making."""

    nodes: list[TreeNode]

    def blocks(self) -> list[Block]:
        """One line a run, its descent drawn before it."""
        if not self.nodes:
            return [Text("There is no pipeline run yet. Try: agentlab pipeline demo")]
        return [
            Code("\n".join(f"{lead}{_line(node)}" for lead, node in zip(_leads(self.nodes), self.nodes, strict=True)))
        ]


def tree(runs: Sequence[Digest]) -> TreeView:
    """The forest of `runs`, which come oldest first. Pure.

    Every run stands in it once, even when damaged manifests name each other, or themselves, as their parents.
    """
    known = {run.id: run for run in runs}
    children: dict[str, list[str]] = {}
    for run in runs:
        if run.parent is not None:
            children.setdefault(run.parent, []).append(run.id)
    top = dict.fromkeys(run.id if run.parent is None else run.parent for run in runs if run.parent not in known)
    nodes: list[TreeNode] = []
    seen: set[str] = set()
    for start in (*top, *known):  # the latter finds those whose descent is a circle
        stack: list[tuple[str, str | None, int]] = [(start, None, 0)]
        while stack:
            id_, parent, depth = stack.pop()
            if id_ in seen:
                continue
            seen.add(id_)
            nodes.append(_node(id_, known.get(id_), known.get(parent) if parent else None, parent, depth))
            stack += [(child, id_, depth + 1) for child in reversed(children.get(id_, []))]
    return TreeView(nodes=nodes)


def _node(id_: str, run: Digest | None, origin: Digest | None, parent: str | None, depth: int) -> TreeNode:
    shares = () if run is None else run.shares
    return TreeNode(
        id=id_,
        parent=parent,
        depth=depth,
        status="removed" if run is None else run.status,
        created="" if run is None else run.created,
        changed=changes(origin.config, run.config) if run and origin else [],
        executed=[share.stage for share in shares if share.asked],
        reused=[share.stage for share in shares if share.calls and not share.asked],
    )


def _leads(nodes: Sequence[TreeNode]) -> list[str]:
    """What is drawn before each node. Read from the end, so that a line goes down as far as there are siblings."""
    leads: list[str] = []
    open_depths: set[int] = set()  # depths at which a later sibling stands
    for node in reversed(nodes):
        drawn = "".join("│  " if depth in open_depths else "   " for depth in range(1, node.depth))
        branch = "" if node.depth == 0 else "├─ " if node.depth in open_depths else "└─ "
        leads.append((drawn + branch)[-_INDENT:])
        open_depths = {depth for depth in open_depths if depth < node.depth} | {node.depth}
    return leads[::-1]


def _line(node: TreeNode) -> str:
    parts = [f"{node.id}  {node.status}"]
    if node.changed:
        more = len(node.changed) - _MOST_CHANGES
        parts += [told(change) for change in node.changed[:_MOST_CHANGES]] + ([f"and {more} more"] if more > 0 else [])
    if node.executed:
        parts.append(f"executed {', '.join(node.executed)}")
    if node.reused:
        parts.append(f"reused {', '.join(node.reused)}")
    return "  ".join(parts)
