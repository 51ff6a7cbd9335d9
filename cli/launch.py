"""From parsed arguments to a run: check, plan or carry out, watch, answer. The same for every capability."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from agentlab.commands import Command, command
from agentlab.errors import UsageError
from agentlab.runs.context import Context
from agentlab.runs.redact import Redactor
from agentlab.runs.store import RunRecord, find_to_resume
from agentlab.session import (
    FinishedRun,
    Session,
    Watch,
    begin,
    go_on,
    reference,
    resume_command,
    runs_dir_flag,
)
from agentlab.session import surroundings as _surroundings
from agentlab.workers.launched import one_leads

from .options import CommonOptions
from .screen import LiveProgress, Screen

if TYPE_CHECKING:
    from agentlab.config.overrides import Override

    from .approve import TerminalReviewer

__all__ = ["launch", "reference", "resume_command", "resume_run", "runs_folder", "surroundings", "terminal_reviewer"]


def surroundings(screen: Screen) -> Context:
    """Workspace and environment of this process; the screen masks the secrets of both."""
    context = _surroundings(os.environ, Path.cwd())
    screen.redactor = Redactor.of(context.env)
    return context


def runs_folder(context: Context, folder: Path | None) -> Path:
    """`--runs-dir`, or the workspace's `runs/`."""
    return Path.cwd() / folder if folder else context.workspace.runs


def terminal_reviewer(context: Context, screen: Screen) -> "TerminalReviewer":
    """The person who is asked before each trial."""
    from .approve import TerminalReviewer

    if sys.stdin is None:
        raise UsageError("--approve reads its answers from standard input, which is closed.")
    screen.asking = True
    return TerminalReviewer(screen, context.stop)


def with_consent(context: Context, screen: Screen, progress: LiveProgress, *, yes: bool) -> Context:
    """Somebody agrees to what a model made of the config: who said so before, or the person at the terminal."""

    def ask(summary: str) -> bool:
        progress.close()
        if yes:
            screen.say(summary)
            return True
        screen.prompt(f"{summary}\nContinue? [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    is_interactive = not screen.json_mode and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return replace(context, ask_consent=ask if yes or is_interactive else None)


def launch(
    name: str,
    common: CommonOptions,
    overrides: "Sequence[Override]",
    screen: Screen,
    *,
    approve: bool = False,
    label: str | None = None,
    yes: bool = False,
) -> None:
    """Run a capability as typed. With `approve` a person is asked before each trial; `label` names the run folder.

    `yes` agrees beforehand to what a model makes of the config.
    """
    context = surroundings(screen)
    with _lead_processes(command(name), context, screen):
        _launch(name, common, overrides, screen, context, approve=approve, label=label, yes=yes)


def _launch(
    name: str,
    common: CommonOptions,
    overrides: "Sequence[Override]",
    screen: Screen,
    context: Context,
    *,
    approve: bool,
    label: str | None,
    yes: bool,
) -> None:
    reviewer = terminal_reviewer(context, screen) if approve else None
    the_command, folder = command(name), runs_folder(context, common.runs_dir)
    if common.resume is not None:
        if common.preset is not None:
            raise UsageError(
                "--resume uses the run's own config; CONFIG cannot be given as well.",
                hint=f"Remove {common.preset!r}; to extend the run, raise its budget with a flag.",
            )
        if common.run_name is not None:
            raise UsageError(
                "--resume continues in the run's own folder; --run-name cannot be given as well.",
                hint="Remove --run-name, or remove --resume to start a new run.",
            )
        record = find_to_resume(folder, common.resume, name)
        _resume(the_command, record, overrides, screen, context, reviewer, dry_run=common.dry_run)
        return
    with screen.progress() as bar:  # reading the data, or a large model's file, may take a while
        session = begin(
            name,
            common.preset,
            overrides,
            context=with_consent(context, screen, bar, yes=yes or common.dry_run),
            runs_dir=folder,
            run_name=common.run_name,
            label=label,
            argv=["agentlab", *sys.argv[1:]],
            planning=common.dry_run,
        )
        plan = session.experiment.plan() if common.dry_run else None
    if plan is not None:
        screen.answer(name, plan)
    else:
        _carry_out(session, screen, reviewer)


def resume_run(
    the_command: Command,
    record: RunRecord,
    overrides: "Sequence[Override]",
    screen: Screen,
    context: Context,
    reviewer: "TerminalReviewer | None",
) -> None:
    """Go on with a run from its own config. Only budget keys may differ."""
    with _lead_processes(the_command, context, screen):
        _resume(the_command, record, overrides, screen, context, reviewer, dry_run=False)


def _resume(
    the_command: Command,
    record: RunRecord,
    overrides: "Sequence[Override]",
    screen: Screen,
    context: Context,
    reviewer: "TerminalReviewer | None",
    *,
    dry_run: bool,
) -> None:
    with screen.progress():
        approve = reviewer is not None
        session = go_on(the_command, record, overrides, context=context, planning=dry_run, approve=approve)
    if isinstance(session, FinishedRun):
        screen.say(f"{record.id} is complete; raise its budget to continue.")
        screen.answer(the_command.name, session.result, run=reference(record, "completed"))
    elif dry_run:
        screen.answer(the_command.name, session.experiment.plan(), run=reference(record, record.status))
    else:
        if reviewer is None and the_command.was_reviewed(record.known_events()):
            screen.say(f"trials of {record.id} are no longer approved one by one; add --approve to keep approving them")
        _carry_out(session, screen, reviewer)


def _carry_out(session: Session, screen: Screen, reviewer: "TerminalReviewer | None") -> None:
    context = session.context
    if reviewer is not None:
        session = session.with_reviewer(reviewer)
    with screen.progress(session.command.narrate_function()) as progress, _signals(context, progress):
        done = session.carry_out(
            Watch(
                sinks=(progress,),
                line=progress.line,
                crashed=screen.note_crash,
                debug=screen.debug,
            )
        )
        progress.close()
        screen.answer(session.command.name, done.result, run=reference(done, "completed"))
        screen.hint(
            f"agentlab runs show {done.id}{runs_dir_flag(done, context)}  (report: {done.path / 'report.html'})"
        )


def _lead_processes(the_command: Command, context: Context, screen: Screen) -> AbstractContextManager[None]:
    """For the one process that does the command. Others that a launcher has started follow it, and end in here."""

    @contextmanager
    def watching() -> Iterator[None]:
        screen.quiet, screen.json_mode = True, False  # the answer is the leader's
        with screen.progress() as progress, _signals(context, progress):
            yield

    return one_leads(context, the_command.take_part_function, watching)


@contextmanager
def _signals(context: Context, progress: LiveProgress) -> Iterator[None]:
    """First Ctrl-C, TERM or HUP: finish the step. Second: leave now; the folder stays readable, and the lock goes."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if context.stop.is_requested:
            progress.abandon()
            os._exit(128 + number)
        context.stop.request(number)
        progress.interject("stopping after this step; press again to stop at once")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
