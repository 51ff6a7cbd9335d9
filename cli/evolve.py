"""`agentlab evolve`: breed LoRA adapters, and measure whether that beat random search and the parents themselves."""

from typing import Annotated, Any

import typer

from .options import CONFIG, Contract, DefaultsToRun, InOrder, from_here, screen_of, with_contract

app = typer.Typer(cls=DefaultsToRun, help="Evolve adapters, beside random search and the parents themselves.")

_EXAMPLES = """Examples:

  # three parents of the embedded model, once

  make personas

  # minutes, on two cores

  agentlab evolve demo

  # your own adapters and questions: {"question": ..., "choices": [...], "answer": ...}

  agentlab evolve --parent poet --parent critic --questions quiz.jsonl

  # does it beat random search? six searches of each kind

  agentlab evolve --control full

  # go on after a Ctrl-C

  agentlab evolve --resume last
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_contract("max_cost", "control")
def run(
    ctx: typer.Context,
    contract: Contract,
    parent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An adapter that is bred from. Repeat it.", rich_help_panel=CONFIG),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model's name or checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    questions: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labelled questions with choices, JSONL.", rich_help_panel=CONFIG)
    ] = None,
    algorithm: Annotated[str | None, typer.Option(metavar="NAME", help="Who breeds.", rich_help_panel=CONFIG)] = None,
    max_items: Annotated[
        int | None, typer.Option(min=1, help="Answers in a search, of all children.", rich_help_panel=CONFIG)
    ] = None,
) -> None:
    """Breed adapters that answer better than those they come from.

    Children are scored on questions that the search sees. Of each search one winner is named, and then a sealed split
    is opened once: it tells what evolution added to the best parent, to their blend, and to random search.
    """
    from pathlib import Path

    from .launch import launch

    flags: dict[str, tuple[str, Any]] = {
        "parents": ("--parent", None if not parent else [from_here(name) for name in parent]),
        "base": ("--base", None if base is None else from_here(base)),
        "tasks.file": ("--questions", None if questions is None else str(Path.cwd() / questions)),
        "algorithm": ("--algorithm", algorithm),
        "max_items": ("--max-items", max_items),
    }
    launch("evolve", contract, contract.overrides(**flags), screen_of(ctx))
