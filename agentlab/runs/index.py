"""One page that lists the runs of a folder."""

from collections.abc import Sequence
from pathlib import Path

from agentlab.runs.atomic import write_text
from agentlab.runs.document import Table, duration
from agentlab.runs.redact import Redactor
from agentlab.runs.report import html
from agentlab.runs.store import RunRecord


def write_index(folder: Path, records: Sequence[RunRecord], redactor: Redactor) -> Path:
    """One page that lists these runs, newest first, with links to their reports."""
    rows: list[tuple[str, ...]] = []
    links: list[str] = []
    for record in reversed(records):
        manifest = record.manifest
        metrics = ", ".join(f"{name} {metric}" for name, metric in manifest.metrics.items())
        error = manifest.error.message if manifest.error else ""
        rows.append((record.id, manifest.command, record.status, duration(record.seconds), metrics or error))
        links.append(f"{record.id}/report.html" if (record.path / "report.html").is_file() else "")
    columns = ("run", "command", "status", "duration", "result")
    blocks = redactor.scrub_blocks([Table(columns, rows, f"{len(rows)} runs, newest first", links)])
    page = folder / "index.html"
    write_text(page, html("agentlab runs", blocks, lambda _: ""))
    return page
