"""What `agentlab runs` answers."""

from typing import Any

from pydantic import Field

from agentlab.runs.document import (
    AnswerDocument,
    Block,
    Code,
    Heading,
    Table,
    Text,
    figure_or_dash,
    number,
)
from agentlab.runs.manifest import Manifest
from agentlab.runs.store import Listing, RunRecord


class PathLine(AnswerDocument):
    """A file, folder or name: one line, easy to pipe."""

    path: str

    def blocks(self) -> list[Block]:
        return [Code(self.path)]


class Names(AnswerDocument):
    """The runs something was done to."""

    names: list[str]

    def blocks(self) -> list[Block]:
        return [Code("\n".join(self.names))]


class RunLine(AnswerDocument):
    """A row of the list."""

    id: str
    command: str
    status: str
    created: str
    seconds: float
    headline: dict[str, float]


class RunList(AnswerDocument):
    """All runs of a folder, oldest first."""

    runs: list[RunLine]

    @classmethod
    def of(cls, listing: Listing, *, command: str | None, status: str | None) -> "RunList":
        lines = [_line(record) for record in listing.runs if not command or record.manifest.command == command]
        return cls(runs=[line for line in lines if not status or line.status == status])

    def blocks(self) -> list[Block]:
        if not self.runs:
            return [Text("No runs found. Start one with: agentlab nas demo")]
        rows = []
        for run in self.runs:
            headline = "  ".join(f"{name} {number(value)}" for name, value in run.headline.items())
            rows.append((run.id, run.command, run.status, f"{run.seconds:.0f} s", headline))
        return [Table(("run", "command", "status", "time", "result"), rows)]


def _line(record: RunRecord) -> RunLine:
    manifest = record.manifest
    headline = {name: metric.value for name, metric in manifest.metrics.items()}
    return RunLine(
        id=record.id,
        command=manifest.command,
        status=record.status,
        created=manifest.created,
        seconds=record.seconds,
        headline=headline,
    )


class RunView(AnswerDocument):
    """One run: its manifest, and its command's result once it is complete."""

    manifest: dict[str, Any]
    status: str
    path: str
    seconds: float = Field(description="Wall time of all sessions; for an unfinished run, up to its last event.")
    result: dict[str, Any] | None = None
    details: AnswerDocument | None = Field(None, exclude=True)

    @classmethod
    def of(cls, record: RunRecord, result: AnswerDocument | None) -> "RunView":
        return cls(
            manifest=record.manifest.to_json(),
            status=record.status,
            path=str(record.path),
            seconds=record.seconds,
            result=result.model_dump(mode="json") if result else None,
            details=result,
        )

    def blocks(self) -> list[Block]:
        manifest = Manifest.model_validate(self.manifest)
        counts = (manifest.tokens.input, manifest.tokens.output)
        tokens_in, tokens_out = (figure_or_dash(count, "", "unknown") for count in counts)
        facts = [
            ("status", self.status),
            ("command", " ".join(manifest.argv)),
            ("started", manifest.started or "–"),
            ("time", _time(self.seconds, manifest)),
            ("seed", str(manifest.seed)),
            ("tokens", f"{tokens_in} in, {tokens_out} out"),
            ("folder", self.path),
        ]
        if manifest.error:
            facts.insert(1, ("error", f"{manifest.error.kind}: {manifest.error.message}"))
        facts += [(name, f"{metric} ({metric.direction} is better)") for name, metric in manifest.metrics.items()]
        return [Heading(manifest.id), Table(("", ""), facts), *(self.details.blocks() if self.details else [])]


def _time(seconds: float, manifest: Manifest) -> str:
    """Without an end it is not known how long the work went on after the last event."""
    since = "" if manifest.ended or manifest.started is None else " up to the last event"
    resumptions = f", resumed {len(manifest.resumed)}x" if manifest.resumed else ""
    return f"{seconds:.1f} s{since}{resumptions}"
