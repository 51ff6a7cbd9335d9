"""The list of pipeline runs."""

from collections.abc import Sequence

from agentlab.pipeline.branches.digest import Digest, shown
from agentlab.runs.document import Block, Document, Table, Text


class HistoryLine(Document):
    """A run of the list. `calls` were answered, `asked` of them by a model in this run."""

    id: str
    parent: str | None
    status: str
    created: str
    seconds: float
    calls: int
    asked: int
    input: str


class HistoryList(Document):
    """The answer of `pipeline history list`: oldest first. `left_out` are older ones; `status` is that of all."""

    runs: list[HistoryLine]
    left_out: int = 0
    status: str | None = None

    def blocks(self) -> list[Block]:
        """A table, or a sentence when there is nothing to list."""
        if not self.runs:
            if self.status is not None:
                return [Text(f"No pipeline run has the status {self.status!r}.")]
            return [Text("There is no pipeline run yet. Try: agentlab pipeline demo")]
        rows = [
            (run.id, run.status, f"{run.seconds:.1f} s", f"{run.calls}", f"{run.asked}", shown(run.input))
            for run in self.runs
        ]
        caption = f"{self.left_out} older runs are left out." if self.left_out else ""
        return [Table(("run", "status", "time", "answers", "asked", "input"), rows, caption)]


def history_list(runs: Sequence[Digest], *, status: str | None = None, most: int | None = None) -> HistoryList:
    """The `most` newest of `runs` (oldest first, as `History.digests` has them), optionally of one status. Pure."""
    fitting = [run for run in runs if status is None or run.status == status]
    kept = fitting if most is None else fitting[max(0, len(fitting) - most) :]
    return HistoryList(runs=[_line(run) for run in kept], left_out=len(fitting) - len(kept), status=status)


def _line(run: Digest) -> HistoryLine:
    return HistoryLine(
        id=run.id,
        parent=run.parent,
        status=run.status,
        created=run.created,
        seconds=run.seconds,
        calls=sum(share.calls for share in run.shares),
        asked=sum(share.asked for share in run.shares),
        input=run.excerpt,
    )
