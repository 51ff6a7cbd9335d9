"""`agentlab pipeline`: chains of local and remote models."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from agentlab.errors import UsageError

from .options import (
    CONFIG,
    RUN,
    CommonOptions,
    DefaultsToRun,
    InOrder,
    RunsDir,
    Set,
    screen_of,
    with_common_options,
    with_output,
)
from .pipeline_history import app as history_app

app = typer.Typer(cls=DefaultsToRun)
app.add_typer(history_app, name="history")

_EXAMPLES = """Examples:

  # takes seconds on the embedded model

  agentlab pipeline demo

  # draft, critique, final answer

  agentlab pipeline --input "Why do leaves turn red?"

  # your own models and stages, in two files that `agentlab init` creates

  agentlab pipeline --models models.yaml --pipeline pipeline.yaml --mode base --input "Hello" --json

  # every line of a file, stage by stage

  agentlab pipeline extract --inputs letters.jsonl

  # order, model loads and memory, before anything is loaded

  agentlab pipeline plan vote

  # rerun the last run from one stage on, with another temperature

  agentlab pipeline rerun last --from final --set base_pipeline.stages.final.temperature=0.7

  # why a stage called its model again

  agentlab pipeline why last final
"""

_LONGEST_INPUT = 32_768  # as in `PipelineConfig.input`

Models = Annotated[
    Path | None,
    typer.Option("--models", metavar="FILE", help="The file with the models.", rich_help_panel=CONFIG),
]
Pipeline = Annotated[
    Path | None,
    typer.Option(
        "--pipeline", metavar="FILE", help="The file with the stages; replaces CONFIG.", rich_help_panel=CONFIG
    ),
]
Mode = Annotated[str | None, typer.Option(help="base or manual.", rich_help_panel=CONFIG)]
InputText = Annotated[
    str | None, typer.Option("--input", metavar="TEXT", help="The input of the first stage.", rich_help_panel=CONFIG)
]
InputFile = Annotated[
    str | None,
    typer.Option(
        "--input-file", metavar="FILE", help="Read the input from a file; - is stdin.", rich_help_panel=CONFIG
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", metavar="FILE", help="A JSONL file, one input per line.", rich_help_panel=CONFIG),
]
Cache = Annotated[str | None, typer.Option(help="use, refresh or off.", rich_help_panel=RUN)]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, a unique prefix, or last.")]


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    models: Models = None,
    pipeline: Pipeline = None,
    mode: Mode = None,
    input_: InputText = None,
    input_file: InputFile = None,
    inputs: Inputs = None,
    cache: Cache = None,
) -> None:
    """Run a pipeline: its stages one after another, local models within the available memory, remote ones in parallel.

    Every answer is cached: a repeated run calls no model, and a changed run calls models only for the
    stages that the change affects.
    """
    _launch(ctx, common, models, pipeline, mode, (input_, input_file, inputs), cache)


@app.command("plan", cls=InOrder, epilog="Example: agentlab pipeline plan vote")
@with_common_options("max_cost")
def plan(
    ctx: typer.Context,
    common: CommonOptions,
    models: Models = None,
    pipeline: Pipeline = None,
    mode: Mode = None,
    input_: InputText = None,
    input_file: InputFile = None,
    inputs: Inputs = None,
) -> None:
    """Print the order of the stages, the model loads and unloads, and the memory needed; nothing is loaded."""
    common = replace(common, dry_run=True)
    _launch(ctx, common, models, pipeline, mode, (input_, input_file, inputs), None)


def _launch(
    ctx: typer.Context,
    common: CommonOptions,
    models: Path | None,
    pipeline: Path | None,
    mode: str | None,
    input_flags: tuple[str | None, str | None, Path | None],
    cache: str | None,
) -> None:
    from agentlab.config.overrides import Override
    from agentlab.files import written_path

    from .launch import launch

    text, file, inputs = input_flags
    read: list[Override] = []
    if file == "-":
        file, read = None, [Override("input", _short(_stdin()), "--input-file")]
    flags = {
        "mode": ("--mode", mode),
        "input": ("--input", None if text is None else _short(text)),
        "input_file": ("--input-file", None if file is None else str(Path.cwd() / written_path(file))),
        "inputs": ("--inputs", None if inputs is None else str(Path.cwd() / inputs)),
        "cache": ("--cache", cache),
    }
    common = _halves(common, models, pipeline)
    typed = {"input": text is not None or bool(read), "input_file": file is not None, "inputs": inputs is not None}
    if any(typed.values()):  # what is typed takes the place of what the file names
        read += [Override(key, None, "the command line") for key, is_given in typed.items() if not is_given]
    half = [] if models is None else [Override("models_file", str(models), "--models")]  # under all else that was typed
    launch("pipeline", common, [*half, *read, *common.overrides(**flags)], screen_of(ctx))


def _halves(common: CommonOptions, models: Path | None, pipeline: Path | None) -> CommonOptions:
    """The options with the file of the stages as their config."""
    if pipeline is None:
        if models is not None and common.preset is None and common.resume is None:
            raise UsageError("--models was given without stages.", hint="Add --pipeline FILE.")
        return common
    if common.preset is not None:
        raise UsageError(
            "--pipeline replaces CONFIG; only one of them can be given.",
            hint=f"Remove {common.preset!r} or --pipeline.",
        )
    return replace(common, preset=_path(pipeline))


def _path(file: Path) -> str:
    """How a config says that it is a file and no preset."""
    return str(file) if file.name != str(file) else f"./{file}"


def _short(text: str) -> str:
    """A text that a config may hold."""
    if len(text) > _LONGEST_INPUT:
        raise UsageError(
            f"The input has more than {_LONGEST_INPUT} characters, the limit for a config value.",
            hint="Save it in a file and give --input-file FILE.",
        )
    return text


def _stdin() -> str:
    if sys.stdin is None:
        raise UsageError("--input-file - reads standard input, which is closed.")
    try:
        return sys.stdin.read(_LONGEST_INPUT + 2).removeprefix("\ufeff")  # `_short` refuses what is longer
    except UnicodeDecodeError:
        raise UsageError("Standard input is not UTF-8 text.") from None


@app.command(epilog="Example: agentlab pipeline validate --models models.yaml --pipeline pipeline.yaml")
@with_output
def validate(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A preset's name or a file.")] = None,
    models: Models = None,
    pipeline: Pipeline = None,
    mode: Mode = None,
    set_: Set = None,
) -> None:
    """Check a pipeline without loading models: names, templates, cycles, schemas, and possible problems at run time."""
    from agentlab.pipeline.validation import validate as validated

    screen = screen_of(ctx)
    loaded, context = _load_config(ctx, config, models, pipeline, mode, set_ or ())
    screen.answer("pipeline validate", validated(loaded, context.workspace, context.env))


@app.command("models", epilog="Example: agentlab pipeline models --models models.yaml --pipeline pipeline.yaml")
@with_output
def models_(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A preset's name or a file.")] = None,
    models: Models = None,
    pipeline: Pipeline = None,
    mode: Mode = None,
    set_: Set = None,
) -> None:
    """List a pipeline's models: which can be used, and what is wrong with the others."""
    from agentlab.pipeline.registry import RegistryView, available

    screen = screen_of(ctx)
    loaded, context = _load_config(ctx, config, models, pipeline, mode, set_ or ())
    available_models = available(loaded.models, loaded, context.workspace, context.env)
    screen.answer("pipeline models", RegistryView.of(loaded, available_models))


def _load_config(
    ctx: typer.Context,
    config: str | None,
    models: Path | None,
    pipeline: Path | None,
    mode: str | None,
    sets: Sequence[str],
) -> Any:
    """The checked config that was named and changed, and the surroundings."""
    from agentlab.config.load import load
    from agentlab.config.overrides import Override, parse
    from agentlab.pipeline.config import PipelineConfig

    from .launch import surroundings

    if pipeline is not None and config is not None:
        raise UsageError("--pipeline replaces CONFIG; only one of them can be given.", hint=f"Remove {config!r}.")
    context = surroundings(screen_of(ctx))
    ref = config if pipeline is None else _path(pipeline)
    changes = [] if models is None else [Override("models_file", str(models), "--models")]
    changes += [*map(parse, sets), *([] if mode is None else [Override("mode", mode, "--mode")])]
    where = {"workspace": context.workspace, "env": context.env, "cwd": Path.cwd()}
    return load(PipelineConfig, "pipeline", ref, changes, **where).config, context  # type: ignore[arg-type] # as named


@app.command(
    cls=InOrder,
    epilog="Example: agentlab pipeline rerun last --from final --set base_pipeline.stages.final.temperature=0.7",
)
@with_output
def rerun(
    ctx: typer.Context,
    run: RunName,
    start: Annotated[str, typer.Option("--from", metavar="STAGE", help="The first stage to run again.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one config value.")
    ] = None,
    cache: Cache = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    run_name: Annotated[str | None, typer.Option(metavar="NAME", help="Name the run folder.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Rerun a run from a given stage on, as a child run; earlier stages are reused."""
    from agentlab.config.overrides import Override
    from agentlab.runs.store import find

    from .launch import launch, runs_folder, surroundings

    screen = screen_of(ctx)
    parent = find(runs_folder(surroundings(screen), runs_dir), run, "pipeline")
    common = CommonOptions(
        preset=str(parent.path / "config.yaml"),
        sets=set_ or (),
        dry_run=dry_run,
        resume=None,
        run_name=run_name,
        runs_dir=runs_dir,
        seed=None,
        max_cost=None,
        control=None,
        order=ctx.meta["agentlab.order"],
    )
    branch = Override("branch", {"run": str(parent.path), "stage": start}, "--from")
    launch("pipeline", common, [branch, *common.overrides(cache=("--cache", cache))], screen)


@app.command(epilog="Example: agentlab pipeline tree --json")
@with_output
def tree(ctx: typer.Context, runs_dir: RunsDir = None) -> None:
    """Show which run was derived from which, and what changed."""
    from agentlab.pipeline.branches.digest import tree as grown

    from .pipeline_history import open_history

    with open_history(ctx, runs_dir) as history:
        screen_of(ctx).answer("pipeline tree", grown(history.digests()))


@app.command(epilog="Example: agentlab pipeline diff 3f2a9c last")
@with_output
def diff(
    ctx: typer.Context,
    first: RunName,
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    runs_dir: RunsDir = None,
) -> None:
    """Compare two runs: differences in config, and the stages with different answers."""
    from agentlab.pipeline.branches.diff import diff as compared
    from agentlab.runs.store import find

    from .launch import runs_folder
    from .pipeline_history import context_and_store

    context, store = context_and_store(ctx)
    folder = runs_folder(context, runs_dir)
    screen_of(ctx).answer(
        "pipeline diff", compared(find(folder, first, "pipeline"), find(folder, second, "pipeline"), store)
    )


@app.command(epilog="Example: agentlab pipeline why last final")
@with_output
def why(
    ctx: typer.Context,
    run: RunName,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of that run.")],
    runs_dir: RunsDir = None,
) -> None:
    """Show where each answer of a stage came from, and why it was not a cache hit."""
    from agentlab.pipeline.branches.why import explain_stage as explained
    from agentlab.runs.store import find

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    folder = runs_folder(surroundings(screen), runs_dir)
    screen.answer("pipeline why", explained(find(folder, run, "pipeline"), stage, _pipelines(folder)))


@app.command(epilog="Example: agentlab pipeline gc --days 30")
@with_output
def gc(
    ctx: typer.Context,
    days: Annotated[float, typer.Option(min=0, help="Keep answers used in the last DAYS days.")] = 30.0,
) -> None:
    """Remove cached answers that have not been used lately. Runs are unaffected: each keeps its own texts."""
    import time

    from agentlab.pipeline.store import gc as collect

    from .pipeline_history import context_and_store

    _, store = context_and_store(ctx)
    screen_of(ctx).answer("pipeline gc", collect(store, days * 86_400, time.time()))


def _pipelines(folder: Path) -> list[Any]:
    """The runs of pipelines, oldest first."""
    from agentlab.runs.store import list_runs

    return [record for record in list_runs(folder).runs if record.manifest.command == "pipeline"]
