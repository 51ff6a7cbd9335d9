"""`agentlab compress`: make a language model smaller and faster, measured on the files that come out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import CONFIG, Contract, DefaultsToRun, InOrder, from_here, screen_of, with_contract

app = typer.Typer(cls=DefaultsToRun, help="Compress a model for real, within a budget of energy.")

_EXAMPLES = """Examples:

  # minutes, on two cores

  agentlab compress demo

  # known recipes first, then an optimiser over all of them

  agentlab compress --objective "maximise speed with < 2 % loss"

  # the best that fits

  agentlab compress --fit 100MB

  # half a gram of CO2, and no more

  agentlab compress --carbon-budget 0.5g

  # your own model and text

  agentlab compress --base models/mine --text notes.txt

  # go on after a Ctrl-C

  agentlab compress --resume last
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_contract()
def run(
    ctx: typer.Context,
    contract: Contract,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model's name, or a checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='What for: "smallest with < 5 % loss".', rich_help_panel=CONFIG),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The least divergence within a size: 100MB, 2GB.", rich_help_panel=CONFIG),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to calibrate and measure on.", rich_help_panel=CONFIG)
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Recipes of the search.", rich_help_panel=CONFIG)] = None,
    carbon_budget: Annotated[
        str | None,
        typer.Option(metavar="MASS", help="CO2 at most: 0.5g, 0.1kg; a bare number is kg.", rich_help_panel=CONFIG),
    ] = None,
) -> None:
    """Quantize, prune, recover and distil a model, and measure every file that comes out.

    A search begins with recipes that are known to be good and goes on with an optimiser; the whole list of known
    recipes runs beside it. The report has the front of size, divergence and speed, and the command that loads the
    winner.
    """
    from agentlab.errors import UsageError

    from .launch import launch

    screen = screen_of(ctx)
    if fit is not None and objective is not None:
        raise UsageError("--fit is an objective of its own.", hint=f'Say --objective "least kl with size < {fit}".')
    flags: dict[str, tuple[str, Any]] = {
        "base": ("--base", None if base is None else from_here(base)),
        "goal": ("--objective", objective if fit is None else f"minimise kl with size < {fit}"),
        "text.file": ("--text", None if text is None else str(Path.cwd() / text)),
        "budget.trials": ("--trials", trials),
        "budget.carbon": ("--carbon-budget", carbon_budget),
    }
    launch("compress", contract, contract.overrides(**flags), screen)
