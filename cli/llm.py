"""`agentlab llm`: talk to models and personas; which of them a config asks, and what they have done."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agentlab.errors import UsageError

from .options import Set, from_here, screen_of, with_output

if TYPE_CHECKING:
    from agentlab.llm.options import Options
    from agentlab.persona.talk import Talk

    from .screen import Screen

app = typer.Typer(no_args_is_help=True)
_ASK = """Examples:

  # the embedded model

  agentlab llm ask "Name three rivers."

  # two personas, side by side; each with the system message it was trained with

  agentlab llm ask "Does a heavier stone fall faster?" --adapter persona_a --adapter persona_b

  # text from another program, and a hosted model for at most 5 cents

  git diff | agentlab llm ask - --system "Summarise." --set llm=openrouter --max-cost 0.05
"""
_CHAT = """Examples:

  agentlab llm chat --adapter persona_a

  agentlab llm chat --model models/Qwen3-4B-Instruct-2507 --temperature 0.7

While it runs: /system TEXT, /reset, /help, /exit; Ctrl-C stops an answer; press it twice to exit.
"""

Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME", help="A persona, by name or path; repeat to ask several side by side."),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A model from the config or on this machine; with adapters, their base."),
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The system message; by default the one a persona was trained with.")
]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0 always takes the most likely token.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed for sampling at a temperature above 0.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, max=131_072, help="Maximum tokens per answer.")]
MaxCost = Annotated[float | None, typer.Option(metavar="USD", min=0, help="Spend at most this much on paid models.")]


@app.command(
    epilog="Examples: agentlab llm show prod · agentlab llm show mine.yaml --set defaults.strategy=fastest --json"
)
@with_output
def show(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A preset from configs/llm or a path; embedded by default.")
    ] = None,
    set_: Set = None,
) -> None:
    """Print the routing of a config: tasks, models, providers, limits, and whether keys are set and files exist."""
    from agentlab.config.overrides import parse
    from agentlab.llm.load import DEFAULT, absent, load_llm
    from agentlab.llm.views import routing

    from .launch import surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    llm_config = load_llm(config, [parse(text) for text in set_ or ()], context)
    screen.answer("llm show", routing(config or DEFAULT, llm_config, context.env, absent(llm_config, context)))


@app.command(epilog="Examples: agentlab llm stats · agentlab llm stats --json | jq '.result.models[].cost_usd'")
@with_output
def stats(ctx: typer.Context) -> None:
    """Print the usage of each model in this workspace: last answer, successes, errors by kind, tokens, spend."""
    from agentlab.llm.ledger.statistics import read_statistics

    from .launch import surroundings

    screen = screen_of(ctx)
    screen.answer("llm stats", read_statistics(surroundings(screen).workspace.state / "llm.sqlite"))


@app.command(epilog=_ASK)
@with_output
def ask(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The question; if - or absent, it is read from stdin.")
    ] = None,
    adapter: Adapters = None,
    model: Model = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    max_cost: MaxCost = None,
    set_: Set = None,
) -> None:
    """Ask a model or personas one question; the answer is streamed."""
    import asyncio

    from agentlab.llm.options import Options
    from agentlab.persona.talk import Transcript

    from . import talk as terminal

    screen = screen_of(ctx)
    text = terminal.prompt(prompt)
    options = Options(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with _talk(screen, adapter or (), model, system, options, max_cost, set_ or ()) as talk:
        turn = asyncio.run(terminal.turn(screen, talk, text))
    if screen.json_mode:
        screen.answer("llm ask", Transcript(turns=[turn]))


@app.command(epilog=_CHAT)
@with_output
def chat(
    ctx: typer.Context,
    adapter: Adapters = None,
    model: Model = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    max_cost: MaxCost = None,
    set_: Set = None,
) -> None:
    """Chat with a model or personas, one question per line, until /exit or the end of the input."""
    from agentlab.llm.options import Options
    from agentlab.persona.talk import Transcript

    from .talk import conversation

    screen = screen_of(ctx)
    screen.asking = True
    options = Options(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with _talk(screen, adapter or (), model, system, options, max_cost, set_ or ()) as talk:
        turns = list(conversation(screen, talk))
    if screen.json_mode:
        screen.answer("llm chat", Transcript(turns=turns))


@app.command(epilog="Example: agentlab llm trust MY_SERVER_API_KEY llm.example.org")
@with_output
def trust(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The variable that holds the key.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="The host that may receive the key.")],
) -> None:
    """Allow a key to be sent to a host that agentlab does not know; stored per user, outside any workspace."""
    import os

    from agentlab.config.trust import confirm
    from agentlab.runs.views import PathLine

    screen = screen_of(ctx)
    path = confirm(key, host, os.environ)  # not the workspace's `.env`, which could lead elsewhere
    screen.say(f"{key} may be sent to {host}")
    screen.answer("llm trust", PathLine(path=str(path)))


def _talk(
    screen: "Screen",
    adapters: Sequence[str],
    model: str | None,
    system: str | None,
    options: "Options",
    max_cost: float | None,
    sets: Sequence[str],
) -> "Talk":
    """The conversation that the flags mean; `--set llm=NAME` chooses the config, as in every command."""
    from agentlab.config.overrides import Override, parse
    from agentlab.llm.load import load_llm
    from agentlab.persona.talk import Talk, cast_of

    from .launch import surroundings
    from .talk import importing, typed_text

    context, name, overrides = surroundings(screen), None, []
    for override in map(parse, sets):
        if override.key != "llm":
            overrides.append(override)
        elif isinstance(override.value, str):
            name = override.value
        else:
            raise UsageError("Here, `llm` must be the name of a preset.", hint="`agentlab configs list llm` lists all.")
    if max_cost is not None:
        overrides.append(Override("budget.per_run_usd", max_cost, "--max-cost"))

    config = load_llm(name, overrides, context)
    cast = cast_of(
        config,
        [from_here(adapter) for adapter in adapters],
        None if model is None else model if model in config.models else from_here(model),
        context.workspace,
        importing(screen),
    )
    if not cast.together:
        screen.say("the models do not fit into memory together; each is loaded when its turn comes")
    return Talk(cast, context, options, None if system is None else typed_text(system), live=not screen.json_mode)
