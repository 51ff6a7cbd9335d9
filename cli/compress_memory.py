"""`agentlab compress memory`: what earlier runs have measured."""

from pathlib import Path
from typing import Annotated

import typer

from agentlab.errors import UsageError

from .options import screen_of, with_output

app = typer.Typer(help="Query measurements from earlier runs, which later runs build on.", no_args_is_help=True)

WorkspaceDir = Annotated[
    Path | None, typer.Option("--workspace-dir", metavar="DIR", help="The folder; compress-memory by default.")
]
BaseName = Annotated[str | None, typer.Option("--base", metavar="NAME", help="Only this base model.")]


@app.command("list", epilog="Example: agentlab compress memory list --json")
@with_output
def list_(ctx: typer.Context, base: BaseName = None, workspace_dir: WorkspaceDir = None) -> None:
    """List the experiments, each with the run that measured it and the path of its export."""
    _answer(ctx, "list", workspace_dir, base, {}, None)


@app.command("query", epilog="Example: agentlab compress memory query quantizer=gptq quantization_bits=4")
@with_output
def query(
    ctx: typer.Context,
    settings: Annotated[
        list[str], typer.Argument(metavar="SETTING=VALUE...", help="Settings that the recipes must have.")
    ],
    base: BaseName = None,
    workspace_dir: WorkspaceDir = None,
) -> None:
    """List the experiments whose recipes have these settings."""
    if wrong := [setting for setting in settings if "=" not in setting]:
        raise UsageError(f"{wrong[0]!r} is not KEY=VALUE.", hint="Write, for example, quantizer=gptq.")
    _answer(ctx, "query", workspace_dir, base, dict(setting.split("=", 1) for setting in settings), None)


@app.command("best", epilog='Example: agentlab compress memory best --objective "smallest with < 2 % loss"')
@with_output
def best(
    ctx: typer.Context,
    objective: Annotated[str, typer.Option(metavar="TEXT", help="The objective.")] = "smallest with < 5 % loss",
    base: BaseName = None,
    workspace_dir: WorkspaceDir = None,
) -> None:
    """Show the best experiment for an objective, for each base model and text."""
    _answer(ctx, "best", workspace_dir, base, {}, objective)


def _answer(
    ctx: typer.Context, name: str, folder: Path | None, base: str | None, settings: dict[str, str], goal: str | None
) -> None:
    from agentlab.compress.config import CompressConfig
    from agentlab.compress.experiment_memory import CompressMemory, query_memory
    from agentlab.compress.goal import read_goal

    from .launch import surroundings

    screen = screen_of(ctx)
    default = surroundings(screen).workspace.resolve(str(CompressConfig.model_fields["memory"].default))
    experiment_memory = CompressMemory(default if folder is None else Path.cwd() / folder)
    experiments = query_memory(experiment_memory, base, settings, None if goal is None else read_goal(goal))
    screen.answer(f"compress memory {name}", experiments)
