"""`agentlab llm`: which language models a config asks, and what they have done."""

from typing import Annotated

import typer

from .options import Set, screen_of, with_output

app = typer.Typer(help="Show who is asked, with which limits, and what it took so far.", no_args_is_help=True)


@app.command(
    epilog="Examples: agentlab llm show prod · agentlab llm show mine.yaml --set defaults.strategy=fastest --json"
)
@with_output
def show(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A preset of configs/llm or a path; embedded without one.")
    ] = None,
    set_: Set = None,
) -> None:
    """Print the routing of a config: tasks, models, providers, prices, limits, and whether each key is set."""
    from agentlab.config.overrides import parse
    from agentlab.llm.load import DEFAULT, load_llm
    from agentlab.llm.views import routing

    from .launch import surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    found = load_llm(config, [parse(text) for text in set_ or ()], context)
    screen.answer("llm show", routing(config or DEFAULT, found, context.env))


@app.command(epilog="Examples: agentlab llm stats · agentlab llm stats --json | jq '.result.models[].cost_usd'")
@with_output
def stats(ctx: typer.Context) -> None:
    """Print what each model of this workspace has done: last answer, successes, errors by kind, tokens, spend."""
    from agentlab.llm.ledger.statistics import read_statistics
    from agentlab.llm.views import statistics

    from .launch import surroundings

    screen = screen_of(ctx)
    path = surroundings(screen).workspace.state / "llm.sqlite"
    screen.answer("llm stats", statistics(str(path), read_statistics(path)))
