"""The life of a run, without a screen: prepared, opened, carried out, its end recorded.

The command line and Python programs share it:

    context = surroundings(os.environ, Path.cwd())
    session = begin("nas", "demo", [], context=context, runs_dir=context.workspace.runs)
    finished = session.carry_out(Watch())
"""

import errno
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from agentlab import machine
from agentlab.commands import Command, Experiment, Narrate, command
from agentlab.errors import AgentlabError, ConfigError, Interrupted, RunMismatchError, StorageError, UsageError
from agentlab.runs.context import Context
from agentlab.runs.debug import DebugLog, printable
from agentlab.runs.events import Event, EventSink
from agentlab.runs.folder import check_name
from agentlab.runs.redact import Redactor, refuse_secrets
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import RunRecord

if TYPE_CHECKING:
    from pydantic import BaseModel

    from agentlab.commands import Reviewable
    from agentlab.config.base import KeyDifference
    from agentlab.config.load import LoadedConfig
    from agentlab.config.overrides import Override
    from agentlab.runs.document import AnswerDocument

R = TypeVar("R")

_GIVEN = "config.yaml"  # how messages name a config that is no file


def _ignore_line(_: Any) -> None:
    """Where lines go that nobody reads."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches a run: events go to `sinks`, other lines to `line`."""

    sinks: Sequence[EventSink] = ()
    line: Callable[[str], None] = _ignore_line
    crashed: Callable[[Mapping[str, str]], None] = _ignore_line  # told which run a bug is about to end
    debug: bool = False  # prompts, answers and differences as well, to `line` and to the run's log.txt


@dataclass(frozen=True, slots=True)
class Lines:
    """Implements `EventSink`: the lines of a command's narration."""

    narrate: Narrate
    line: Callable[[str], None]

    def emit(self, event: Event) -> None:
        narration = self.narrate(event)
        if narration is not None and narration.line:
            self.line(narration.line)


def stderr_line(redactor: Redactor) -> Callable[[str], None]:
    """Prints lines to stderr, as plain text with its secrets masked."""

    def line(text: str) -> None:
        sys.stderr.write(f"{printable(redactor.scrub(text))}\n")

    return line


@dataclass(frozen=True, slots=True)
class FinishedRun(Generic[R]):
    """A completed run: its typed result, and the folder with report, plots, models and events."""

    result: R
    path: Path

    @property
    def id(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Session:
    """A checked experiment, and how its run folder is opened. Nothing is written before `carry_out`."""

    command: Command
    experiment: Experiment
    context: Context
    open_run: Callable[[RunEnvironment], OpenRun]
    redactor: Redactor  # knows the keys that the config names
    changed: "Sequence[KeyDifference] | None" = None  # what a resume changes; None for a new run
    config_yaml: str = ""  # the config with these changes
    approve: bool = False  # a person is asked before each trial

    def with_reviewer(self, reviewer: object) -> "Session":
        """The same session, with a person who is asked before each trial; for commands that have trials."""
        cast("Reviewable", self.experiment).reviewer = reviewer
        return replace(self, approve=True)

    def carry_out(self, watch: Watch) -> FinishedRun[Any]:
        """Do the work to its end and record how it ended.

        Raises:
            Interrupted, KeyboardInterrupt: stopped; the run can be gone on with.
            AgentlabError: the run failed; its `run` says which.
        """
        with self.open_run_folder(watch) as run:
            return FinishedRun(finish(run, *self.experiment.run(run)), run.path)

    @contextmanager
    def open_run_folder(self, watch: Watch) -> Iterator[OpenRun]:
        """The run folder at work, for `finish`. An error in here is recorded as the run's end, and raised."""
        debug = DebugLog(watch.line, self.command.details_function()) if watch.debug else None
        edge = RunEnvironment(redactor=self.redactor, sinks=(*watch.sinks, *([debug] if debug else [])))
        with self.open_run(edge) as run, debug.listening(run) if debug else nullcontext():
            run.runs_dir_flag = runs_dir_flag(run, self.context)
            if self.changed:
                run.record_budget(self.config_yaml)
            watch.line(f"run {run.id}")
            if debug and self.changed is not None:
                debug.write_resumed(self.changed)
            with _recorded_end(run, edge, resume_command(run, self.context, approve=self.approve), watch):
                run.start(machine.describe().as_dict())
                yield run


def finish(run: OpenRun, result: "AnswerDocument", outcome: RunOutcome) -> "AnswerDocument":
    """The work is done: store its result and say so."""
    run.write_json("result.json", result.model_dump(mode="json"))
    run.complete(outcome)
    return result


def surroundings(environ: Mapping[str, str], cwd: Path) -> Context:
    """The workspace, and the environment with the workspace's `.env` below it.

    Raises:
        ConfigError: the `.env` is damaged.
    """
    from agentlab.config.environment import read_environment
    from agentlab.config.workspace import Workspace

    root = Workspace.locate(environ, cwd).root
    env = read_environment(root, environ)
    return Context(workspace=Workspace.locate({**env, "AGENTLAB_HOME": str(root)}, root), env=env)


def run_to_its_end(
    name: str,
    resume: str | None,
    config: "str | Path | Mapping[str, Any] | None",
    overrides: Mapping[str, Any],
    runs_dir: "str | Path | None",
    caller: str,
    *,
    verbose: bool,
) -> "FinishedRun[Any]":
    """What the Python faces of commands do: a run, or the rest of one, in this process.

    `resume`: a run's name, or `last` for the last of this command; None starts a new one, of a `config` as `begin`
    takes it. `overrides`: dotted config key -> value, as with `--set`. `runs_dir`: None is `runs` in the workspace.
    `caller`: the function, for the manifest. `verbose`: tell on stderr how it goes, line by line.

    Raises:
        UsageError: a config beside `resume`; and what `begin`, `go_on` and the run raise.
    """
    import os

    from agentlab.config.overrides import Override
    from agentlab.runs.store import find_to_resume

    if resume is not None and config is not None:
        raise UsageError(
            "A resumed run uses its own config; no other config can be given.",
            hint="Remove `config`; to extend the run, raise its budget.",
        )
    context = surroundings(os.environ, Path.cwd())
    folder = Path.cwd() / runs_dir if runs_dir else context.workspace.runs
    given = [Override(str(key), value, "overrides") for key, value in overrides.items()]
    if resume is not None:
        record = find_to_resume(folder, resume, name)
        session = go_on(command(name), record, given, context=context)
    else:
        session = begin(name, config, given, context=context, runs_dir=folder, argv=[caller])
    if isinstance(session, FinishedRun):
        return session
    if not verbose:
        return session.carry_out(Watch())
    line = stderr_line(session.redactor)
    return session.carry_out(Watch(sinks=[Lines(session.command.narrate_function(), line)], line=line))


def begin(
    name: str,
    config: "str | Path | Mapping[str, Any] | BaseModel | None",
    overrides: "Sequence[Override]",
    *,
    context: Context,
    runs_dir: Path,
    run_name: str | None = None,
    label: str | None = None,
    argv: Sequence[str] = (),
    planning: bool = False,
) -> Session:
    """A new run of the command `name`.

    `config`: a preset's name or a path, what such a file would hold, or a checked config; None is the default preset.
    `run_name`: of its folder; None is one made of time, label (None is the command) and a short id. `argv`: what the
    manifest says it was started with. `planning`: it will not be carried out; see `Command.foresee`.

    Raises:
        UsageError, MissingError: what is wrong with the input, before anything is written.
    """
    from agentlab.config.base import config_hash
    from agentlab.config.load import config_values, dump_yaml

    the_command = command(name)
    if run_name is not None:
        check_name(runs_dir, run_name)
    loaded = _loaded(the_command, config, overrides, context)
    redactor = _redactor(loaded.config, context)
    refuse_secrets(config_values(loaded.config), context.workspace, redactor)
    loaded = replace(loaded, config=the_command.settled(loaded.config, context))
    experiment = the_command.prepare_function(planning=planning)(loaded.config, context)
    spec = RunSpec(
        command=name,
        config_yaml=dump_yaml(loaded.config),
        source_yaml=loaded.source_text,
        config_hash=config_hash(loaded.config),
        seed=loaded.config.seed,
        argv=argv,
        name=run_name,
        label=label,
    )
    return Session(the_command, experiment, context, lambda edge: OpenRun.create(runs_dir, spec, edge), redactor)


def go_on(
    the_command: Command,
    record: RunRecord,
    overrides: "Sequence[Override]",
    *,
    context: Context,
    planning: bool = False,
    approve: bool = False,
) -> Session | FinishedRun[Any]:
    """Another session of a run, from its own config; the stored result if it is complete and gets no larger budget.

    Raises:
        RunMismatchError: an override changes more than the budget.
        UsageError, MissingError: what else is wrong with the input, before anything is written.
    """
    if record.manifest.command != the_command.name:
        raise UsageError(
            f"The run {record.id} belongs to `{record.manifest.command}`, not to `{the_command.name}`.",
            hint=resume_command(record, context, approve=approve),
        )
    from agentlab.config.base import differences, larger_budget
    from agentlab.config.load import dump_yaml, load_resolved

    model, path = the_command.config_model(), record.path / "config.yaml"
    old = load_resolved(model, path, (), env=context.env)
    new = load_resolved(model, path, overrides, env=context.env)
    changed = differences(old, new)
    refused = [f"{d.key}: {d.old!r} -> {d.new!r}" for d in changed if d.role is None]
    if refused:
        raise RunMismatchError(
            "A resumed run continues the same experiment; only its budget and machine settings can change. "
            f"Refused: {'; '.join(refused)}.",
            hint="Start a new run for a different experiment.",
        )
    if record.status == "completed" and not larger_budget(changed):
        from agentlab.runs.store import read_result

        return FinishedRun(read_result(record, the_command.result_model()), record.path)
    context = replace(context, resumed_run=record.path)
    experiment = the_command.prepare_function(planning=planning)(new, context)
    opened, redactor = (lambda edge: OpenRun.resume(record.path, edge)), _redactor(new, context)
    return Session(the_command, experiment, context, opened, redactor, changed, dump_yaml(new))


def _redactor(config: "BaseModel", context: Context) -> Redactor:
    from agentlab.config.load import config_values
    from agentlab.config.secrets import key_names

    return Redactor.of(context.env, set(key_names(config_values(config))))


def runs_dir_flag(run: OpenRun | RunRecord | FinishedRun[Any], context: Context) -> str:
    """The flag that a command to type next needs to find the run; empty where it is found without."""
    folder = run.path.parent
    return "" if folder == context.workspace.runs else f" --runs-dir {quote(str(folder))}"


def resume_command(run: OpenRun | RunRecord, context: Context, *, approve: bool) -> str:
    """The command to type next that goes on with the run. With `approve` a person is asked again before each trial."""
    return f"agentlab runs resume {quote(run.id)}{runs_dir_flag(run, context)}{' --approve' if approve else ''}"


def reference(run: OpenRun | RunRecord | FinishedRun[Any], status: str) -> dict[str, str]:
    """How a JSON document names a run."""
    return {"id": run.id, "path": str(run.path), "status": status}


def _loaded(
    the_command: Command,
    config: "str | Path | Mapping[str, Any] | BaseModel | None",
    overrides: "Sequence[Override]",
    context: Context,
) -> "LoadedConfig[Any]":
    """The checked config. What is no file becomes one for a moment: there is one way in, with its messages."""
    import yaml

    from agentlab.config.load import config_values, load
    from agentlab.config.presets import ConfigFile
    from agentlab.config.yaml_tree import write_yaml

    model, name, workspace, env = the_command.config_model(), the_command.name, context.workspace, context.env
    if config is None or isinstance(config, str | Path):
        ref = str(config.absolute()) if isinstance(config, Path) else config
        return load(model, name, ref, overrides, workspace=workspace, env=env, cwd=Path.cwd())
    try:
        text = write_yaml(dict(config) if isinstance(config, Mapping) else config_values(config))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"The config is not plain data: {error}.") from error
    with tempfile.TemporaryDirectory(prefix="agentlab-") as folder:
        file = ConfigFile(Path(folder) / _GIVEN, _GIVEN)
        file.path.write_text(text, encoding="utf-8")
        return load(model, name, file, overrides, workspace=workspace, env=env, cwd=Path.cwd())


@contextmanager
def _recorded_end(run: OpenRun, edge: RunEnvironment, resume: str, watch: Watch) -> Iterator[None]:
    """Write down how the work ended, if it did not end well, and tell whoever handles the error which run it was."""
    try:
        yield
    except Interrupted as stopped:
        stopped.hint = resume
        stopped.run = reference(run, "interrupted")
        run.interrupt()
        raise
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"To continue: {resume}")
        run.close()  # it may have come between two writes: what is whole is read again
        with OpenRun.resume(run.path, edge) as again:
            again.interrupt()
        raise
    except AgentlabError as error:
        if isinstance(error, StorageError):
            error.hint = f"{_remedy(error)}, then: {resume}"
        error.run = reference(run, "failed")
        run.fail(error.kind, error.message)
        raise
    except Exception as bug:
        import traceback

        watch.crashed(reference(run, "failed"))
        run.fail(type(bug).__name__, str(bug), trace=traceback.format_exc())
        raise


def _remedy(error: StorageError) -> str:
    """What to do about a place that cannot be written to, before a run goes on: the run's folder stays where it is."""
    cause: BaseException | None = error
    while isinstance(cause, StorageError):
        cause = cause.__cause__
    full = not isinstance(cause, OSError) or cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return "Free some space" if full else "Fix that"
