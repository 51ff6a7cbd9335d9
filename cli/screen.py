"""Everything a user sees. The answer goes to stdout; progress, warnings and hints go to stderr.

Only a terminal gets colours, boxes and wrapped lines. Anything else gets plain lines, written without rich, whose
console ends the process when the other end of a pipe closes.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import typer

from agentlab.errors import AgentlabError
from agentlab.runs.redact import Redactor
from agentlab.runs.sanitize import visible

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from agentlab.commands import Narrate
    from agentlab.runs.document import Block, Table
    from agentlab.runs.events import Event

SCHEMA = 1

_SHOW_CURSOR = b"\x1b[?25h"
_WHOLE_WORDS: dict[str, Any] = {"overflow": "ignore", "crop": False}  # lines end between words; a path stays whole
_GAP = 3  # characters between two columns of a table
_SHOWN = 60  # characters of a growing line beside the bar
_SOONEST, _LATEST = 2.0, 60.0  # seconds of silence without a terminal


class Screen:
    """One per process. `json_mode` leaves stdout to a single JSON document."""

    def __init__(self, *, json_mode: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        self.verbose = verbose
        self.debug = False  # prompts, answers and differences too
        self.asking = False  # questions are put to the user: no bar may stand in their way
        self.redactor = Redactor()
        self.run: Mapping[str, str] | None = None  # the run that a bug has ended; other errors name theirs

    # -- stdout -------------------------------------------------------------------------------------------------

    def answer(self, command: str, result: "BaseModel", *, run: dict[str, str] | None = None) -> None:
        """Print a command's typed result: as one JSON document, or as blocks if it is an `AnswerDocument`."""
        if self.json_mode:
            self._document({"command": command, "run": run, "result": result.model_dump(mode="json")})
        else:
            self.blocks(result.blocks())  # type: ignore[attr-defined] # every result is a Document

    def gate(self, missed: AgentlabError | None) -> None:
        """End the command by what was missed, behind its answer; in JSON by the exit code alone: a document is out."""
        if missed is not None:
            if self.json_mode:
                raise typer.Exit(missed.exit_code)
            raise missed

    def blocks(self, blocks: "Iterable[Block]") -> None:
        """Print blocks to stdout."""
        if not sys.stdout.isatty():
            lines = chain.from_iterable(map(self._plain, blocks))
            sys.stdout.writelines(f"{line}\n" for line in lines)
            return
        from rich.console import Console

        from agentlab.runs.document import Code, Figure, Heading, Table, Text

        out = Console(file=sys.stdout)
        for block in blocks:
            match block:
                case Heading(text):
                    out.print(f"\n{self.clean_text(text)}", style="bold", markup=False, highlight=False)
                case Text(text):
                    out.print(self.clean_text(text), markup=False, highlight=False)
                case Code(text):
                    out.print(self.clean_text(text), markup=False, highlight=False, soft_wrap=True)
                case Figure(file, alt):
                    out.print(self.clean_text(f"{alt}: {file}"), markup=False, highlight=False, soft_wrap=True)
                case Table():
                    self._table(out, block)

    def write(self, text: str) -> None:
        """A piece of an answer while it comes; nothing with --json, whose document holds the answer."""
        if not self.json_mode:
            sys.stdout.write(self.clean_text(text))
            sys.stdout.flush()

    def _plain(self, block: "Block") -> list[str]:
        """A block for a pipe: whole lines, and rows whose cells are parted by tabs, so that cut and awk work."""
        from agentlab.runs.document import Figure, Heading, Table

        match block:
            case Heading(text):
                return ["", self.clean_text(text)]
            case Figure(file, alt):
                return [self.clean_text(f"{alt}: {file}")]
            case Table():
                rows = (block.columns, *block.rows) if any(block.columns) else block.rows
                return [self._join_cells(row) for row in rows]
        return [self.clean_text(block.text)]

    def _join_cells(self, row: "Iterable[str]") -> str:
        return "\t".join(" ".join(self.clean_text(cell).split()) for cell in row)

    def _document(self, fields: dict[str, Any]) -> None:
        document = self.redactor.mask_tree({"schema": SCHEMA, **fields})
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # not a Unicode terminal, or half a character in a file's name
            text = json.dumps(document, allow_nan=False)
        sys.stdout.write(text + "\n")

    def clean_text(self, text: str) -> str:
        """The text as it may be shown: secrets masked, control characters made harmless."""
        return visible(self.redactor.scrub(text))

    def _table(self, out: "Console", table: "Table") -> None:
        from rich import box
        from rich.padding import Padding
        from rich.table import Table as RichTable
        from rich.text import Text as RichText

        from agentlab.runs.document import Table
        from agentlab.runs.report import numeric_columns

        from .layout import column_widths, stack_rows, wrap_cell

        table = Table(
            [self.clean_text(column) for column in table.columns],
            [[self.clean_text(cell) for cell in row] for row in table.rows],
            self.clean_text(table.caption),
        )
        right = numeric_columns(table)
        widths = column_widths(table, out.width - _GAP * (len(table.columns) - 1))
        if widths is None and len(table.columns) > 2:
            label = max(map(len, table.columns[1:]))
            for title, cells in stack_rows(table):
                out.print(RichText(title, style="bold"))
                grid = RichTable.grid(padding=(0, 2))
                grid.add_column(width=label)
                grid.add_column(overflow="fold")
                for name, cell in cells:
                    grid.add_row(RichText(name, style="dim"), RichText(cell))
                out.print(Padding(grid, (0, 0, 1, 2)))
        else:
            grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(table.columns))
            for index, column in enumerate(table.columns):
                side: Literal["left", "right"] = "right" if index in right else "left"
                width = widths[index] if widths else None
                grid.add_column(RichText(column), justify=side, overflow="fold", width=width)
            for row in table.rows:
                wrapped = map(wrap_cell, row, widths) if widths else row
                grid.add_row(*map(RichText, wrapped))
            out.print(grid)
        if table.caption:
            out.print(RichText(table.caption, style="dim italic"))

    def note_crash(self, run: Mapping[str, str]) -> None:
        """Remember the run that a bug is about to end."""
        self.run = run

    # -- stderr -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        if not self.quiet:
            self._stderr(text)

    def warn(self, text: str) -> None:
        if not self.quiet:
            self._stderr(f"warning: {text}", style="yellow")

    def hint(self, text: str) -> None:
        if not self.quiet:
            self._stderr(f"hint: {text}", style="cyan", is_command=True)

    def prompt(self, text: str) -> None:
        """A question, or what belongs to it, without an end of line of its own; also with -q."""
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(self.clean_text(text))
            sys.stderr.flush()

    def error(self, error: AgentlabError, *, command: str) -> None:
        """The one place where errors are printed."""
        if self.json_mode:
            fields = {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
            self._document({"command": command, "run": error.run or self.run, "error": fields})
        self._stderr(f"error: {error.message}", style="red")
        if error.hint:
            self._stderr(f"hint: {error.hint}", style="cyan", is_command=True)

    def _stderr(self, text: str, style: str = "", *, is_command: bool = False) -> None:
        visible_text = self.clean_text(text)
        if not sys.stderr.isatty():
            with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the work is not theirs to end
                sys.stderr.write(f"{visible_text}\n")
                sys.stderr.flush()
            return
        from rich.console import Console

        # soft_wrap: a command must survive copying out of a narrow terminal
        look: dict[str, Any] = {"soft_wrap": True} if is_command else _WHOLE_WORDS
        Console(file=sys.stderr).print(visible_text, style=style, markup=False, highlight=False, **look)

    def progress(self, narrate: "Narrate | None" = None) -> "LiveProgress":
        """A sink that shows how far a run is. A bar on a terminal, else lines: of steps, and of how far it is."""
        return LiveProgress(self, narrate)


def silence(elapsed: float) -> float:
    """For how many seconds a work that has gone on for so long may say nothing: a quarter of them. Pure."""
    return min(_LATEST, max(_SOONEST, elapsed / 4))


class LiveProgress:
    """Implements `EventSink`. A context manager: the bar disappears at its end.

    Where there is no bar, a thread says how far the work is whenever nothing else was said for a while. It needs no
    event for that, so nothing that takes long is silent in a log.
    """

    def __init__(self, screen: Screen, narrate: "Narrate | None") -> None:
        self._screen = screen
        self._narrate = narrate
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._partial = ""  # the last line of a text that still comes
        self._done: int | None = None
        self._total: int | None = None
        self._detail = ""
        self._said = 0.0  # when the last line was
        self._over = threading.Event()
        self._telling: threading.Thread | None = None

    def __enter__(self) -> "LiveProgress":
        screen = self._screen
        if not (screen.quiet or screen.json_mode or screen.asking) and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
            from rich.table import Column

            columns = (
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            )
            # Left on, `redirect_stdout` would send the answer to stderr whenever stdout is a file or a pipe.
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        elif not (screen.quiet or screen.asking):
            self._telling = threading.Thread(target=self._tell, name="agentlab-progress", daemon=True)
            self._telling.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away, so that the answer can be printed. Safe to call twice."""
        self._over.set()
        if self._telling is not None:
            self._telling.join()
            self._telling = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def emit(self, event: "Event") -> None:
        """Show an event, if it means something to a user."""
        narration = self._narrate(event) if self._narrate else None
        if narration is None:
            return
        if narration.piece is not None:
            self._grow(narration.piece, narration.detail)
            return
        if narration.line or narration.verbose:
            self._settle()
        if narration.line:
            self.line(narration.line)
        if narration.verbose and self._screen.verbose:
            self.line(narration.verbose)
        self.update(narration.detail, done=narration.done, total=narration.total)

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._screen.quiet:
            return
        self._said = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(self._screen.clean_text(text), markup=False, highlight=False, **_WHOLE_WORDS)
        else:
            self._screen.say(text)

    def _grow(self, piece: str, title: str | None) -> None:
        """Show a text that comes bit by bit: whole lines above the bar, the one that still grows behind it."""
        if self._bar is None:
            self._detail = title or self._detail
            return
        *lines, self._partial = (self._partial + piece).split("\n")
        for line in lines:
            self._quote_line(line)
        self.update(self._screen.clean_text(f"{title}: {self._partial[-_SHOWN:]}"))

    def _settle(self) -> None:
        """The text that came is over: its last line is one like the others."""
        if self._partial:
            self._quote_line(self._partial)
            self._partial = ""

    def _quote_line(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(
                f"  │ {self._screen.clean_text(line)}", style="dim", markup=False, highlight=False, soft_wrap=True
            )

    def interject(self, text: str) -> None:
        """A line from a signal handler, past every buffer that the signal may have interrupted; silent with -q."""
        if not self._screen.quiet:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{text}\n".encode())

    def abandon(self) -> None:
        """Give the cursor back: the process is about to end without any clean-up."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                os.write(2, _SHOW_CURSOR)

    def update(self, detail: str | None, *, done: int | None = None, total: int | None = None) -> None:
        """Move the bar, or note what is said without one."""
        if self._bar is not None and self._task is not None:
            changes: dict[str, Any] = {"completed": done, "total": total, "description": detail}
            self._bar.update(self._task, **{key: value for key, value in changes.items() if value is not None})
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        self._detail = self._detail if detail is None else detail

    def _tell(self) -> None:
        """Say how far it is when nothing was said for a while, until it is over."""
        began = self._said = time.monotonic()
        while True:
            elapsed = time.monotonic() - began
            seconds_left = self._said + silence(elapsed) - time.monotonic()
            if self._over.wait(max(seconds_left, 0.0)):
                return
            if seconds_left <= 0:
                count = f"{self._done or 0} of {self._total}" if self._total else ""
                status = ", ".join(part for part in (count, self._detail) if part) or "working"
                self.line(f"  ... {status}, {elapsed // 60:.0f}:{elapsed % 60:02.0f}")
