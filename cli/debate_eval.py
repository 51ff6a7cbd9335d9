"""`agentlab debate eval` and `agentlab debate ping`: what adapters score, and whether they can be told apart."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentlab.errors import AgentlabError, UsageError

from .options import from_here, screen_of, with_output

if TYPE_CHECKING:
    from agentlab.integrations.evaluation import Evaluated

    from .screen import LiveProgress, Screen

EVAL = """Examples:

  # two personas and their base model, loaded once, offline

  agentlab debate eval --adapter persona_a --adapter persona_b --include-path mytasks --tasks mytask

  # the first 100 questions of a public task; its data set is downloaded once

  agentlab debate eval --adapter persona_a --tasks arc_easy --limit 100

  # a generation task, on a server with several adapters

  agentlab debate eval --adapter persona_a --tasks gsm8k --base-url http://127.0.0.1:8000/v1 --model Qwen3-4B
"""
PING = """Examples:

  agentlab debate ping --persona persona_a --persona persona_b --prompt "2, 4, 8, 16: what is the general term?"

  # adapters served by vLLM

  agentlab debate ping --persona persona_a --persona persona_b --prompt "..." --base-url http://127.0.0.1:8000/v1
"""

QUESTIONS = """Examples:

  agentlab debate questions arc_easy --limit 300 --out quiz.jsonl

  agentlab debate --questions quiz.jsonl
"""

Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME", help="An adapter, by name or path; on a server, its name there."),
]


@with_output
def evaluate(
    ctx: typer.Context,
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tasks, groups or tags from the harness.")],
    adapter: Adapters = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="The base model; the adapters' own by default.")
    ] = None,
    include_path: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder with your own tasks, as YAML; for lighteval, a Python file."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N items of each task.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME_eval.json is written.")] = Path("out"),
    backend: Annotated[Literal["lm-eval", "lighteval"], typer.Option(help="The harness.")] = "lm-eval",
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of a chat server to use instead, ending in /v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The server's name for the base model.")] = None,
) -> None:
    """Score adapters and their base model on tasks from a harness: one table, and NAME_eval.json for each model.

    In process, the base model is loaded once and the adapters share its batches. Differences from the base are paired,
    item by item.
    """
    from agentlab.integrations import evaluation
    from agentlab.persona.ping import cast_of_server

    from .launch import surroundings

    screen = screen_of(ctx)
    names = [name for name in tasks.split(",") if name]
    if (base_url is None) != (model is None) or (base_url is not None and base is not None):
        raise UsageError(
            "--base-url and --model must be used together, without --base.",
            hint="Leave both out to run in this process.",
        )
    if not names or (base_url is None and base is None and not adapter):
        raise UsageError("There is nothing to evaluate.", hint="Add --tasks, and --adapter or --base.")
    with screen.progress() as bar:
        if base_url is None or model is None:
            if backend == "lighteval":
                raise UsageError("lighteval needs a server.", hint="Add --base-url URL --model NAME.")
            label, evaluations = _in_process(screen, bar, names, include_path or (), adapter or (), base, limit)
        else:
            adapter_names, env, label, evaluations = (
                evaluation.unique_names(adapter or ()),
                surroundings(screen).env,
                model,
                {},
            )
            cast_of_server(base_url, [model, *adapter_names], env)
            harness: Any = importlib.import_module(f"agentlab.integrations.{backend.replace('-', '_')}")
            score = harness.scorer(names, include_path or (), base_url, limit, env)
            for name, served_name in {
                evaluation.BASE: model,
                **{adapter_name: adapter_name for adapter_name in adapter_names},
            }.items():
                bar.update(name)
                evaluations[name] = score(served_name)
    files = evaluation.write(out, label, evaluations)
    screen.answer("debate eval", evaluation.Evaluation.of(label, backend, evaluations, files))


@with_output
def questions(
    ctx: typer.Context,
    tasks: Annotated[str, typer.Argument(metavar="A,B", help="lm-eval tasks: multiple-choice or short-answer.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The JSONL file to write the questions to.")],
    include_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder with your own tasks, as YAML.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N items of each task.")] = None,
) -> None:
    """Convert lm-evaluation-harness tasks to questions for a debate; the debate itself does not need the harness."""
    from agentlab.integrations.lm_eval import Tasks
    from agentlab.runs.atomic import write_text
    from agentlab.runs.views import PathLine
    from agentlab.tasks.questions import jsonl

    screen = screen_of(ctx)
    with screen.progress() as bar:
        bar.update("loading tasks and data sets")
        task_questions = Tasks([name for name in tasks.split(",") if name], include_path or ()).questions(limit)
    write_text(out, jsonl(task_questions))
    screen.answer("debate questions", PathLine(path=str(out)))


def _in_process(
    screen: "Screen",
    bar: "LiveProgress",
    tasks: Sequence[str],
    folders: Sequence[Path],
    adapters: Sequence[str],
    base: str | None,
    limit: int | None,
) -> "tuple[str, dict[str, Evaluated]]":
    """The base's name, and what it and the adapters score."""
    from agentlab.integrations import evaluation, lm_eval

    from .launch import surroundings
    from .talk import importing

    base_path = None if base is None else from_here(base)
    path, adapter_folders = evaluation.local(
        [from_here(name) for name in adapters], base_path, surroundings(screen).workspace, importing(screen)
    )
    bar.update("loading tasks and data sets")
    loaded, count = lm_eval.Tasks(tasks, folders), 0

    def done(added: int) -> None:
        nonlocal count
        count += added
        bar.update("texts and tokens", done=count)

    return path.name, lm_eval.in_process(loaded, path, adapter_folders, limit, done)


@with_output
def ping(
    ctx: typer.Context,
    persona: Annotated[
        list[str], typer.Option("--persona", metavar="NAME", help="An adapter, by name or path; repeatable.")
    ],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The prompt for all personas.")],
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="The base model; the adapters' own by default.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of a server to use instead, ending in /v1.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=131_072, help="Maximum tokens per answer.")] = 64,
) -> None:
    """Ask all personas the same question twice: show the answers side by side, and which personas answer alike.

    Exits with status 5 if all give the same answer, and with 4 if one gives none; the table shows why.
    """
    import asyncio

    from agentlab.llm.load import load_llm
    from agentlab.llm.options import Options
    from agentlab.persona import ping as personas
    from agentlab.persona.talk import Talk, cast_of

    from .launch import surroundings
    from .talk import importing
    from .talk import prompt as question

    screen = screen_of(ctx)
    context, text = surroundings(screen), question(prompt)
    if base_url is not None and base is not None:
        raise UsageError(
            "--base runs in this process, --base-url on a server; they cannot be combined.", hint="Use one of them."
        )
    refused: dict[str, AgentlabError] = {}
    if base_url is not None:
        cast = personas.cast_of_server(base_url, persona, context.env)
    else:
        base_path = None if base is None else from_here(base)
        names = [from_here(name) for name in persona]
        cast = cast_of(load_llm(None, [], context), names, base_path, context.workspace, importing(screen), refused)
    options = Options(temperature=0, max_tokens=max_tokens, cache=False)
    with screen.progress() as bar, Talk(cast, context, options, None, live=False) as talk:
        bar.update(f"asking {len(talk.speakers)} personas twice")
        answers = asyncio.run(personas.ping(talk, text, refused))
    screen.answer("debate ping", answers)
    screen.gate(answers.gate())
