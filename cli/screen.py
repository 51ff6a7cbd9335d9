"""Everything a user sees. The answer goes to stdout; progress, warnings and hints go to stderr."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agentlab.errors import AgentlabError
from agentlab.runs.redact import Redactor

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from agentlab.commands import Narrate
    from agentlab.runs.document import Block, Table
    from agentlab.runs.events import Event

SCHEMA = 1


class Screen:
    """One per process. `json_mode` leaves stdout to a single JSON document."""

    def __init__(self, *, json_mode: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        self.verbose = verbose
        self.redactor = Redactor()

    # -- stdout -------------------------------------------------------------------------------------------------

    def answer(self, command: str, result: "BaseModel", *, run: dict[str, str] | None = None) -> None:
        """Print a command's typed result: as one JSON document, or as blocks if it is a `Document`."""
        if self.json_mode:
            self._document({"command": command, "run": run, "result": result.model_dump(mode="json")})
        else:
            self.blocks(result.blocks())  # type: ignore[attr-defined] # every result is a Document

    def blocks(self, blocks: "Iterable[Block]") -> None:
        """Print blocks to stdout."""
        from agentlab.runs.document import Code, Figure, Heading, Table, Text

        out = self._stdout()
        for block in blocks:
            match block:
                case Heading(text):
                    out.print(f"\n{text}", style="bold", markup=False, highlight=False)
                case Text(text):
                    wrap = not out.is_terminal  # a pipe gets whole lines
                    out.print(self.redactor.scrub(text), markup=False, highlight=False, soft_wrap=wrap)
                case Code(text):
                    out.print(self.redactor.scrub(text), markup=False, highlight=False, soft_wrap=True)
                case Figure(file, alt):
                    out.print(f"{alt}: {file}", markup=False, highlight=False, soft_wrap=True)
                case Table():
                    self._table(out, block)

    def plain(self, text: str) -> None:
        """Print one line to stdout as it is: a path, a name."""
        sys.stdout.write(self.redactor.scrub(text) + "\n")

    def _document(self, fields: dict[str, Any]) -> None:
        document = self.redactor.scrub_tree({"schema": SCHEMA, **fields})
        sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")

    def _table(self, out: "Console", table: "Table") -> None:
        if not out.is_terminal:  # a pipe gets plain rows, so that cut and awk work
            for row in (table.columns, *table.rows):
                sys.stdout.write("\t".join(" ".join(self.redactor.scrub(cell).split()) for cell in row) + "\n")
            return
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text as RichText

        from agentlab.runs.report import numeric_columns

        right = numeric_columns(table)
        grid = RichTable(box=box.SIMPLE_HEAD, caption=table.caption or None, caption_justify="left", pad_edge=False)
        for index, column in enumerate(table.columns):
            grid.add_column(column, justify="right" if index in right else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*(RichText(self.redactor.scrub(cell)) for cell in row))
        out.print(grid)

    def _stdout(self) -> "Console":
        from rich.console import Console

        return Console(file=sys.stdout)

    # -- stderr -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A remark; silent with -q."""
        if not self.quiet:
            self._stderr(text)

    def warn(self, text: str) -> None:
        """Something the user should know."""
        self._stderr(f"warning: {text}", style="yellow")

    def hint(self, text: str) -> None:
        """What to do next."""
        if not self.quiet:
            self._stderr(f"hint: {text}", style="cyan")

    def error(self, error: AgentlabError, *, command: str) -> None:
        """The one place where errors are printed."""
        if self.json_mode:
            fields = {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
            self._document({"command": command, "run": error.run, "error": fields})
        self._stderr(f"error: {error.message}", style="red")
        if error.hint:
            self._stderr(f"hint: {error.hint}", style="cyan")

    def _stderr(self, text: str, style: str = "") -> None:
        from rich.console import Console

        # soft_wrap: a path or command must survive copying out of a narrow terminal
        scrubbed = self.redactor.scrub(text)
        Console(file=sys.stderr).print(scrubbed, style=style, markup=False, highlight=False, soft_wrap=True)

    def progress(self, narrate: "Narrate | None" = None) -> "LiveProgress":
        """A sink that shows how far a run is. A bar on a terminal, else a line per finished step."""
        return LiveProgress(self, narrate)


class LiveProgress:
    """Implements `EventSink`. A context manager: the bar disappears at its end."""

    def __init__(self, screen: Screen, narrate: "Narrate | None") -> None:
        self._screen = screen
        self._narrate = narrate
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "LiveProgress":
        if not self._screen.quiet and not self._screen.json_mode and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def emit(self, event: "Event") -> None:
        """Show an event, if it means something to a user."""
        narration = self._narrate(event) if self._narrate else None
        if narration is None:
            return
        if narration.line:
            self.line(narration.line)
        self.update(narration.detail, done=narration.done, total=narration.total)

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._screen.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(self._screen.redactor.scrub(text), markup=False, highlight=False)
        else:
            self._screen.say(text)

    def update(self, detail: str | None, *, done: int | None = None, total: int | None = None) -> None:
        """Move the bar."""
        if self._bar is None or self._task is None:
            return
        changes: dict[str, Any] = {"completed": done, "total": total, "description": detail}
        self._bar.update(self._task, **{key: value for key, value in changes.items() if value is not None})
