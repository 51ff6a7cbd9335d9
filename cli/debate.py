"""`agentlab debate`: agents answer, hear one another and vote; the report says whether that beat plain voting."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .debate_eval import EVAL, PING, QUESTIONS, evaluate, ping, questions
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

app = typer.Typer(cls=DefaultsToRun)

_EXAMPLES = """Examples:

  # takes a minute on the embedded model

  agentlab debate demo

  # a topic: what each agent says, who changes their mind, and the vote

  agentlab debate --topic "Should a city plant more trees?" --rounds 3

  # your own questions: one per line, {"question": ..., "choices": [...], "answer": ...}

  agentlab debate --questions quiz.jsonl --rounds 1

  # personas from train-persona, in one batch

  agentlab debate --adapter persona_a --adapter persona_b --adapter persona_c --topic "..."

  # check that everything is in place, without loading or calling a model

  agentlab debate --rounds 0

  # continue after Ctrl-C

  agentlab debate --resume last
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    topic: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The topic of the debate.", rich_help_panel=CONFIG)
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled questions, JSONL.", rich_help_panel=CONFIG)
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=0, help="Rounds after the first answers; with 0, only check and plan.", rich_help_panel=CONFIG
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="An agent: the base model with this adapter; repeatable.", rich_help_panel=CONFIG
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model's name or checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="KIND", help="none, ring, star, random or full.", rich_help_panel=CONFIG)
    ] = None,
    vote: Annotated[
        str | None, typer.Option(metavar="RULE", help="The voting rule for the verdict.", rich_help_panel=CONFIG)
    ] = None,
) -> None:
    """Let agents debate, and measure whether it was worth it.

    Each agent answers alone, then reads its peers' answers and answers again. The baselines are plain votes, the best
    agent with the same number of calls and tokens, and a self-debate; the verdict says whether debating helped.
    """
    from dataclasses import replace

    from .launch import launch

    flags: dict[str, tuple[str, Any]] = {
        "topic": ("--topic", topic),
        "questions.file": ("--questions", None if questions is None else str(Path.cwd() / questions)),
        "protocol.rounds": ("--rounds", rounds),
        "agents": ("--adapter", None if not adapter else [_agent(name) for name in adapter]),
        "base": ("--base", None if base is None else from_here(base)),
        "protocol.topology": ("--topology", topology),
        "vote.rule": ("--vote", vote),
    }
    if rounds == 0:
        common = replace(common, dry_run=True)
    launch("debate", common, common.overrides(**flags), screen_of(ctx))


@app.command(epilog="Example: agentlab debate replay last --vote borda")
@with_output
def replay(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A debate: its name, a unique prefix, or last.")],
    vote: Annotated[str | None, typer.Option(metavar="RULE", help="Use this rule instead of the run's own.")] = None,
    round_: Annotated[int | None, typer.Option("--round", min=0, help="Vote on the answers of this round.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Count the votes on a run's answers again; no model is called and nothing is written."""
    from agentlab.config.load import load_resolved
    from agentlab.config.overrides import Override
    from agentlab.debate.config import DebateConfig
    from agentlab.debate.run import replay as again
    from agentlab.runs.journal import read_events
    from agentlab.runs.store import find

    from .launch import reference, runs_folder, surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    record = find(runs_folder(context, runs_dir), run, "debate")
    flags = {"vote.rule": ("--vote", vote), "vote.round": ("--round", round_)}
    overrides = [Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None]
    own_config, config = (
        load_resolved(DebateConfig, record.path / "config.yaml", changes, env=context.env)
        for changes in ([], overrides)
    )
    answer = again(config, record.path, read_events(record.path / "events.jsonl"), own_config.vote)
    screen.answer("debate replay", answer, run=reference(record, record.status))


app.command("eval", epilog=EVAL)(evaluate)
app.command("ping", epilog=PING)(ping)
app.command("questions", epilog=QUESTIONS)(questions)


def _agent(name: str) -> dict[str, str]:
    path = from_here(name)
    return {"name": Path(path).name[:64].strip(), "adapter": path}
