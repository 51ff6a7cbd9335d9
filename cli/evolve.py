"""`agentlab evolve`: breed LoRA adapters, and measure whether that beat random search and the parents themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlab.errors import UsageError

from .options import (
    CONFIG,
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
    from .screen import Screen

ONCE = "One child, without a search"

app = typer.Typer(cls=DefaultsToRun)

_EXAMPLES = """Examples:

  # train three parents on the embedded model, once

  make personas

  # takes minutes on two cores

  agentlab evolve demo

  # a single crossover and mutation, without a search

  agentlab evolve --parents poet critic --child both --alpha 0.6 --mut 0.03 --mut-std 0.01

  # your own adapters and questions: {"question": ..., "choices": [...], "answer": ...}

  agentlab evolve --parent poet --parent critic --questions quiz.jsonl

  # does it beat random search? eight searches of each kind

  agentlab evolve --control full

  # the winner, or any other child, as an adapter

  agentlab evolve export last --out adapters/best

  # continue after Ctrl-C

  agentlab evolve --resume last
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost", "control")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    parent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A parent adapter; repeatable.", rich_help_panel=CONFIG),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model's name or checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions with choices and answers.", rich_help_panel=CONFIG),
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The search strategy.", rich_help_panel=CONFIG)
    ] = None,
    max_items: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum model answers per search, over all children.", rich_help_panel=CONFIG),
    ] = None,
    parents: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="With --child: the two parents to cross.", rich_help_panel=ONCE),
    ] = None,
    child: Annotated[
        str | None, typer.Option(metavar="NAME", help="Create this adapter, without a search.", rich_help_panel=ONCE)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of the first parent; 0.5 by default.", rich_help_panel=ONCE)
    ] = None,
    mut: Annotated[
        float | None, typer.Option(help="Share of modules that mutate; 0.03 by default.", rich_help_panel=ONCE)
    ] = None,
    mut_std: Annotated[
        float | None,
        typer.Option(help="Size of a mutation, relative to the norm; 0.01 by default.", rich_help_panel=ONCE),
    ] = None,
) -> None:
    """Breed adapters that answer better than their parents.

    Children are scored on questions that the search sees. The winner of each search is then scored once on a
    sealed split, which shows the gain of evolution over the best parent, over their blend, and over random search.
    """
    from .launch import launch

    screen = screen_of(ctx)
    if child is not None or parents is not None:
        _cross(screen, common, parents, child, (alpha, mut, mut_std))
        return
    if {alpha, mut, mut_std} != {None}:
        raise UsageError("--alpha, --mut and --mut-std work only with --parents A B --child NAME.", hint="Add them.")
    flags: dict[str, tuple[str, Any]] = {
        "parents": ("--parent", None if not parent else [from_here(name) for name in parent]),
        "base": ("--base", None if base is None else from_here(base)),
        "tasks.file": ("--questions", None if questions is None else str(Path.cwd() / questions)),
        "algorithm": ("--algorithm", algorithm),
        "max_items": ("--max-items", max_items),
    }
    launch("evolve", common, common.overrides(**flags), screen)


def _cross(
    screen: "Screen",
    common: CommonOptions,
    parents: tuple[str, str] | None,
    child: str | None,
    settings: tuple[float | None, float | None, float | None],
) -> None:
    """Make one child of two adapters."""
    from agentlab.evolve.adapter_folder import cross
    from agentlab.lora.catalogue import find

    from .launch import surroundings

    if child is None or parents is None:
        raise UsageError("--parents A B and --child NAME must be used together.", hint="For a search, repeat --parent.")
    searching = (
        common.preset,
        common.sets,
        common.resume,
        common.run_name,
        common.control,
        common.max_cost,
    )
    if any(searching) or common.dry_run:
        raise UsageError(
            "--child creates one adapter without a search; CONFIG, --set, --dry-run and other run options are invalid.",
            hint="It takes --alpha, --mut, --mut-std and --seed.",
        )
    workspace = surroundings(screen).workspace
    folders = [find(from_here(name), workspace) for name in parents]
    out = Path(from_here(child)) if "/" in child else workspace.adapters / child
    alpha, mut, step = (default if value is None else value for value, default in zip(settings, _SEEDS, strict=True))
    with screen.progress() as bar:
        new_child = cross(
            folders, out, alpha, mut, step, common.seed or 0, lambda n, of, at: bar.update(at, done=n, total=of)
        )
    screen.answer("evolve", new_child)


_SEEDS = (0.5, 0.03, 0.01)  # --alpha, --mut, --mut-std


@app.command(epilog="Example: agentlab evolve export last --out adapters/best")
@with_output
def export(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of evolve: its name, a unique prefix, or last.")],
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="A child; the winner by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to create; adapters/gen_NNNN/ID by default.")
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Export a child from a run as an adapter, with a card that records its origin."""
    from agentlab.config.load import load_resolved
    from agentlab.evolve.config import EvolveConfig
    from agentlab.evolve.run import export_child
    from agentlab.runs.journal import read_events
    from agentlab.runs.store import find

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = find(runs_folder(context, runs_dir), run, "evolve")
    config = load_resolved(EvolveConfig, record.path / "config.yaml", [], env=context.env)
    events = read_events(record.path / "events.jsonl")
    with screen.progress() as bar:
        answer = export_child(
            config,
            context,
            record.id,
            events,
            id_,
            None if out is None else Path.cwd() / out,
            lambda n, of, at: bar.update(at, done=n, total=of),
        )
    screen.answer("evolve export", answer, run=reference(record, record.status))
