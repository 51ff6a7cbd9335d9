"""`agentlab compress`: make a language model smaller and faster, measured on the files that come out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentlab.errors import MissingFileError, UsageError

from .compress_memory import WorkspaceDir
from .compress_memory import app as memory_app
from .options import (
    CONFIG,
    RUN,
    CommonOptions,
    DefaultsToRun,
    InOrder,
    RunsDir,
    from_here,
    screen_of,
    with_common_options,
    with_output,
)

if TYPE_CHECKING:
    from agentlab.compress.result import CompressModelResult

app = typer.Typer(cls=DefaultsToRun)
app.add_typer(memory_app, name="memory")


_EXAMPLES = """Examples:

  # takes minutes on two cores

  agentlab compress demo

  # known recipes first, then an optimiser over all recipes

  agentlab compress --objective "maximise speed with < 2 % loss"

  # the best model that fits

  agentlab compress --fit 100MB

  # at most half a gram of CO2

  agentlab compress --carbon-budget 0.5g

  # your own model and text

  agentlab compress --base models/mine --text notes.txt

  # continue after Ctrl-C

  agentlab compress --resume last
"""

_EVAL = """Examples:

  agentlab compress eval last --tasks mixed --include-path configs/debate/tasks

  # public tasks; their data sets are downloaded once

  agentlab compress eval last --tasks arc_easy,hellaswag,mmlu --limit 100
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost", "control")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model's name, or a checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='The objective, such as "smallest with < 5 % loss".', rich_help_panel=CONFIG),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Lowest divergence within this size, such as 100MB.", rich_help_panel=CONFIG),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text for calibration and evaluation.", rich_help_panel=CONFIG)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of recipes in the search.", rich_help_panel=CONFIG)
    ] = None,
    carbon_budget: Annotated[
        str | None,
        typer.Option(metavar="MASS", help="Maximum CO2, e.g. 0.5g; a bare number is in kg.", rich_help_panel=CONFIG),
    ] = None,
    workspace_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the measurements of earlier runs.", rich_help_panel=CONFIG),
    ] = None,
    control_seeds: Annotated[
        int | None, typer.Option(min=6, help="Pairs of searches with --control full.", rich_help_panel=CONFIG)
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Accept a language model's interpretation of the goal.", rich_help_panel=RUN),
    ] = False,
) -> None:
    """Quantize, prune, recover and distil a model, and measure every resulting file.

    A search starts with recipes that are known to be good and continues with an optimiser; the complete list of known
    recipes runs as a baseline. The report has the Pareto front of size, divergence and speed, and the command that
    loads the winner.
    """
    from .launch import launch

    screen = screen_of(ctx)
    if fit is not None and objective is not None:
        raise UsageError(
            "--fit and --objective cannot be combined.", hint=f'Use --objective "least kl with size < {fit}".'
        )
    if control_seeds is not None and common.control != "full":
        raise UsageError(
            "--control-seeds counts pairs of searches, which only --control full runs.", hint="Add --control full."
        )
    flags: dict[str, tuple[str, Any]] = {
        "base": ("--base", None if base is None else from_here(base)),
        "goal": ("--objective", objective) if fit is None else ("--fit", f"minimise kl with size < {fit}"),
        "text.file": ("--text", None if text is None else str(Path.cwd() / text)),
        "budget.trials": ("--trials", trials),
        "budget.carbon": ("--carbon-budget", carbon_budget),
        "memory": ("--workspace-dir", None if workspace_dir is None else str(Path.cwd() / workspace_dir)),
        "control_seeds": ("--control-seeds", control_seeds),
    }
    launch("compress", common, common.overrides(**flags), screen, yes=yes)


@app.command("eval", epilog=_EVAL)
@with_output
def evaluate(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of compress: its name, a unique prefix, or last.")],
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tasks, groups or tags from lm-evaluation-harness.")],
    base: Annotated[str | None, typer.Option(metavar="NAME", help="The base model, if the run has several.")] = None,
    include_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder with your own tasks, as YAML.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N items of each task.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME_eval.json is written.")] = Path("out"),
    runs_dir: RunsDir = None,
) -> None:
    """Score a run's base model and the exports on its Pareto front, on tasks from lm-evaluation-harness.

    All exports are evaluated in float32, GGUF files included. Differences from the base are paired, item by item.
    Needs the extra `eval`.
    """
    from tempfile import TemporaryDirectory

    from agentlab.compress.checkpoint_formats import unpack
    from agentlab.compress.result import CompressResult
    from agentlab.integrations import evaluation, lm_eval
    from agentlab.models.base_model import find_base, import_base
    from agentlab.models.importer import import_gguf
    from agentlab.runs.store import find, read_result

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = find(runs_folder(context, runs_dir), run, "compress")
    model = _one_of(read_result(record, CompressResult).models, base)
    exports = {name: record.path / model.exports / file for name, file in model.kept_files.items()}
    if lost_paths := [str(path) for path in exports.values() if not path.exists()]:
        raise MissingFileError(
            f"Exports of the run are missing: {', '.join(lost_paths)}.",
            hint="Run the compression again, or restore them.",
        )
    with screen.progress() as bar, TemporaryDirectory(dir=context.workspace.root) as scratch:
        bar.update("loading tasks and data sets")
        loaded, evaluations = lm_eval.Tasks([name for name in tasks.split(",") if name], include_path or ()), {}
        folders = {evaluation.BASE: import_base(find_base(model.base, context.workspace)), **exports}
        for position, (name, folder) in enumerate(folders.items()):
            bar.update(name, done=position, total=len(folders))
            plain = Path(scratch) / name.replace("/", "-")
            if folder.suffix == ".gguf":
                folder = import_gguf(folder, plain, "float32")
            elif name != evaluation.BASE:
                unpack(folder, plain, lambda: None)
                folder = plain
            evaluations[name] = lm_eval.in_process(loaded, folder, {}, limit, lambda _: None)[evaluation.BASE]
    files = evaluation.write(out, model.base, evaluations)
    screen.answer("compress eval", evaluation.Evaluation.of(model.base, "lm-eval", evaluations, files))


@app.command("plan", epilog='Example: agentlab compress plan --objective "smallest with < 2 % loss" --set llm=prod')
@with_output
def plan(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A preset's name, or a YAML file.")] = None,
    base: Annotated[str | None, typer.Option(metavar="NAME", help="A model's name, or a checkpoint folder.")] = None,
    objective: Annotated[str | None, typer.Option(metavar="TEXT", help="The objective.")] = None,
    workspace_dir: WorkspaceDir = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a config key.")] = None,
) -> None:
    """Ask the agent for its plan only: steps, and recipes with estimates from earlier measurements."""
    from agentlab.compress.agent import alone
    from agentlab.config.overrides import Override, parse
    from agentlab.session import begin

    from .launch import surroundings, with_consent

    screen = screen_of(ctx)
    context = surroundings(screen)
    flags = {
        "base": ("--base", None if base is None else from_here(base)),
        "goal": ("--objective", objective),
        "memory": ("--workspace-dir", None if workspace_dir is None else str(Path.cwd() / workspace_dir)),
    }
    overrides = [
        *map(parse, set_ or ()),
        *(Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None),
    ]
    with screen.progress() as bar:
        bar.update("planning")
        planning_context = with_consent(
            context, screen, bar, yes=True
        )  # the plan says what was understood, and nothing is done
        session = begin(
            "compress", config, overrides, context=planning_context, runs_dir=context.workspace.runs, planning=True
        )
        experiment: Any = session.experiment
        advice = alone(experiment.config, context, experiment.bases[0].path.name, (), has_ended=False)
        advice = advice.model_copy(update={"forecast": experiment.plan().foreseen})
    screen.answer("compress plan", advice)


@app.command("reflect", epilog="Example: agentlab compress reflect last --set llm=prod")
@with_output
def reflect(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of compress: its name, a unique prefix, or last.")],
    base: Annotated[str | None, typer.Option(metavar="NAME", help="The base model, if the run has several.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a config key.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Ask the agent what it learned from a run and what to try next."""
    from agentlab.compress.agent import alone
    from agentlab.compress.config import CompressConfig
    from agentlab.compress.run_status import trials_of
    from agentlab.config.load import load
    from agentlab.config.overrides import parse
    from agentlab.models.base_model import find_base
    from agentlab.runs.store import find

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = find(runs_folder(context, runs_dir), run, "compress")
    where: dict[str, Any] = {"workspace": context.workspace, "env": context.env, "cwd": Path.cwd()}
    config = load(
        CompressConfig, "compress", str(record.path / "config.yaml"), [*map(parse, set_ or ())], **where
    ).config
    names = [find_base(base_name, context.workspace).path.name for base_name in config.bases]
    if (len(names) > 1 and base is None) or (base is not None and base not in names):
        raise UsageError(
            "The run has several base models.", hint=f"Choose one: {', '.join(f'--base {name}' for name in names)}."
        )
    chosen = base or names[0]
    with screen.progress() as bar:
        bar.update("reflecting")
        trials = trials_of(record.events(), chosen if len(names) > 1 else "")
        advice = alone(config, context, chosen, trials, has_ended=True, run=record.id)
    screen.answer("compress reflect", advice)


@app.command("watch", epilog="Example: agentlab compress watch last")
@with_output
def watch(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run of compress: its name, a unique prefix, or last.")
    ] = "last",
    runs_dir: RunsDir = None,
) -> None:
    """Show the Pareto front, the budget and the to-do list of a run in progress.

    In a terminal, the view refreshes until the run ends or you press Ctrl-C; otherwise it is printed once.
    """
    import sys
    import time

    from rich.console import Console

    from agentlab.compress.config import CompressConfig
    from agentlab.compress.run_status import read_progress
    from agentlab.config.load import load
    from agentlab.runs.store import find

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    folder, last_view = runs_folder(context, runs_dir), None
    live = sys.stdout.isatty() and not screen.json_mode
    while True:
        record = find(folder, run, "compress")
        run = record.id  # `last` may become another one
        where: dict[str, Any] = {"workspace": context.workspace, "env": context.env, "cwd": Path.cwd()}
        config = load(CompressConfig, "compress", str(record.path / "config.yaml"), [], **where).config
        view = read_progress(record.path, record.status, config.budget)
        if view != last_view:
            if live:
                Console().clear()
            screen.answer("compress watch", view)
            last_view = view
        if not live or record.status not in ("running", "created"):
            return
        time.sleep(1.0)


@app.command(
    "deploy", epilog="Example: agentlab compress deploy last --format k8s --image registry/compressed:1 --out deploy"
)
@with_output
def deploy(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of compress: its name, a unique prefix, or last.")],
    format_: Annotated[
        Literal["docker", "k8s"],
        typer.Option("--format", help="docker: a Dockerfile and its files; k8s: also Kubernetes manifests."),
    ] = "docker",
    base: Annotated[str | None, typer.Option(metavar="NAME", help="The base model, if the run has several.")] = None,
    image: Annotated[str, typer.Option(metavar="NAME", help="The name of the image.")] = "compressed",
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The agentlab wheel; built from the checkout by default.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files are written.")] = Path("deploy"),
    runs_dir: RunsDir = None,
) -> None:
    """Write the files to serve the winner: an OpenAI-compatible endpoint with a health check.

    Nothing is built or pushed. At startup, the container reads from its environment the token that clients must send.
    """
    from agentlab.compress.deploy import deploy as write
    from agentlab.compress.result import CompressResult
    from agentlab.runs.store import find, read_result

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    record = find(runs_folder(surroundings(screen), runs_dir), run, "compress")
    model = _one_of(read_result(record, CompressResult).models, base)
    with screen.progress() as bar:
        bar.update("writing the files")
        deployment = write(model, record.path / model.exports, format_, Path.cwd() / out, image, wheel)
    screen.answer("compress deploy", deployment)


def _one_of(models: "list[CompressModelResult]", base: str | None) -> "CompressModelResult":
    """The base that is meant, of a run with one or several."""
    model = next((candidate for candidate in models if base in (None, candidate.base)), None)
    if model is None or (base is None and len(models) > 1):
        options = ", ".join(f"--base {candidate.base}" for candidate in models)
        raise UsageError("The run has several base models.", hint=f"Choose one: {options}.")
    return model
