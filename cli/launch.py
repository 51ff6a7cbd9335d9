"""From parsed arguments to a run: load, check, plan or start, watch, answer. The same for every capability."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Any

from agentlab.commands import Command, command
from agentlab.errors import AgentlabError, Interrupted, RunMismatchError, StorageError, UsageError
from agentlab.runs.context import Context
from agentlab.runs.run import Edge, Run, RunSpec
from agentlab.runs.store import RunRecord, find

from .options import Contract
from .screen import LiveProgress, Screen

if TYPE_CHECKING:
    from agentlab.config.overrides import Override


def surroundings(screen: Screen) -> Context:
    """Workspace and environment of this process."""
    from agentlab.config.environment import read_environment
    from agentlab.config.workspace import Workspace
    from agentlab.runs.redact import Redactor

    root = Workspace.locate(os.environ, Path.cwd()).root
    env = read_environment(root, os.environ)
    screen.redactor = Redactor.of(env)
    return Context(workspace=Workspace.locate({**env, "AGENTLAB_HOME": str(root)}, root), env=env)


def runs_folder(context: Context, given: Path | None) -> Path:
    """`--runs-dir`, or the workspace's `runs/`."""
    return Path.cwd() / given if given else context.workspace.runs


def reference(run: Run | RunRecord, status: str) -> dict[str, str]:
    """How a JSON document names a run."""
    return {"id": run.id, "path": str(run.path), "status": status}


def launch(name: str, contract: Contract, overrides: "Sequence[Override]", screen: Screen) -> None:
    """Run a capability as typed."""
    context = surroundings(screen)
    the_command, folder = command(name), runs_folder(context, contract.runs_dir)
    if contract.resume:
        if contract.preset:
            raise UsageError(
                "--resume reads the run's own config; a CONFIG cannot be given with it.",
                hint=f"Drop {contract.preset!r}; a larger budget is given by its flag.",
            )
        if contract.run_name:
            raise UsageError(
                "--resume goes on in the run's own folder; --run-name cannot be given with it.",
                hint="Drop --run-name, or drop --resume to start a new run.",
            )
        resume(the_command, find(folder, contract.resume), overrides, screen, context, dry_run=contract.dry_run)
        return
    from agentlab.config.base import config_hash
    from agentlab.config.load import dump_yaml, load

    loaded = load(
        the_command.config_model(),
        name,
        contract.preset,
        overrides,
        workspace=context.workspace,
        env=context.env,
        cwd=Path.cwd(),
    )
    experiment = the_command.prepare_function()(loaded.config, context)
    if contract.dry_run:
        screen.answer(name, experiment.plan())
        return
    spec = RunSpec(
        command=name,
        config_yaml=dump_yaml(loaded.config),
        source_yaml=loaded.source_text,
        config_hash=config_hash(loaded.config),
        seed=loaded.config.seed,  # type: ignore[attr-defined] # every command's config has one
        argv=["agentlab", *sys.argv[1:]],
        name=contract.run_name,
    )
    with (
        screen.progress(the_command.narrate_function()) as progress,
        _signals(context, progress),
        Run.create(folder, spec, _edge(screen, progress)) as run,
    ):
        _carry_out(the_command, experiment, run, screen, context, progress)


def resume(
    the_command: Command,
    record: RunRecord,
    overrides: "Sequence[Override]",
    screen: Screen,
    context: Context,
    *,
    dry_run: bool = False,
) -> None:
    """Go on with a run from its own config. Only budget keys may differ."""
    if record.manifest.command != the_command.name:
        raise UsageError(
            f"The run {record.id} belongs to `{record.manifest.command}`, not to `{the_command.name}`.",
            hint=f"agentlab runs resume {record.id}{where(record, context)}",
        )
    from agentlab.config.differences import differences, larger_budget
    from agentlab.config.load import dump_yaml, load_resolved

    model, path = the_command.config_model(), record.path / "config.yaml"
    old = load_resolved(model, path, (), env=context.env)
    new = load_resolved(model, path, overrides, env=context.env)
    changed = differences(old, new)
    refused = [f"{d.key}: {d.old!r} -> {d.new!r}" for d in changed if d.role != "budget"]
    if refused:
        raise RunMismatchError(
            f"A resumed run keeps its experiment; only its budget may change. Refused: {'; '.join(refused)}.",
            hint="Start a new run for a different experiment.",
        )
    if record.status == "completed" and not larger_budget(changed):
        screen.say(f"{record.id} is complete; raise its budget to go on.")
        screen.answer(the_command.name, _stored_result(the_command, record), run=reference(record, "completed"))
        return
    experiment = the_command.prepare_function()(new, context)
    if dry_run:
        screen.answer(the_command.name, experiment.plan(), run=reference(record, record.status))
        return
    with (
        screen.progress(the_command.narrate_function()) as progress,
        _signals(context, progress),
        Run.resume(record.path, _edge(screen, progress)) as run,
    ):
        if changed:
            run.budget(dump_yaml(new))
        _carry_out(the_command, experiment, run, screen, context, progress)


def _edge(screen: Screen, progress: LiveProgress) -> Edge:
    return Edge(redactor=screen.redactor, sinks=(progress,))


def _stored_result(the_command: Command, record: RunRecord) -> Any:
    from agentlab.runs.results import read_result

    return read_result(record, the_command.result_model())


def _carry_out(
    the_command: Command, experiment: Any, run: Run, screen: Screen, context: Context, progress: LiveProgress
) -> None:
    from agentlab import machine

    progress.line(f"run {run.id}")
    try:
        run.start(machine.describe().as_dict())
        result, outcome = experiment.run(run)
        run.write_json("result.json", result.model_dump(mode="json"))
        run.complete(outcome)
    except Interrupted as stopped:
        stopped.hint = f"agentlab runs resume {run.id}{where(run, context)}"
        stopped.run = reference(run, "interrupted")
        run.interrupt()
        raise
    except AgentlabError as error:
        if isinstance(error, StorageError):
            error.hint = f"Free some space, then: agentlab runs resume {run.id}{where(run, context)}"
        error.run = reference(run, "failed")
        run.fail(error.kind, error.message)
        raise
    except Exception as bug:
        import traceback

        screen.run = reference(run, "failed")
        run.fail(type(bug).__name__, str(bug), trace=traceback.format_exc())
        raise
    progress.close()
    screen.answer(the_command.name, result, run=reference(run, "completed"))
    screen.hint(f"agentlab runs show {run.id}{where(run, context)}  (report: {run.path / 'report.html'})")


def where(run: Run | RunRecord, context: Context) -> str:
    """The flag that a command to type next needs to find the run; empty where it is found without."""
    folder = run.path.parent
    return "" if folder == context.workspace.runs else f" --runs-dir {quote(str(folder))}"


@contextmanager
def _signals(context: Context, progress: LiveProgress) -> Iterator[None]:
    """First Ctrl-C or TERM: finish the step. Second: leave now; the folder stays readable, the lock is the kernel's."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if context.stop.requested:
            progress.abandon()
            os._exit(128 + number)
        context.stop.request(number)
        progress.interject("stopping after this step; once more to leave at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
