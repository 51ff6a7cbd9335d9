"""`agentlab llm-bench`: how fast, how available and how good language models are."""

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
    screen_of,
    with_common_options,
    with_output,
)

app = typer.Typer(cls=DefaultsToRun)

_EXAMPLES = """Examples:

  # takes seconds, against the built-in mock server

  agentlab llm-bench demo

  # the embedded model on this machine

  agentlab llm-bench

  # one model on an Ollama server, with 1, 4 and 16 concurrent requests

  agentlab llm-bench --set llm=ollama --model local --concurrency 1,4,16 --max-seconds 60

  # two requests per second, regardless of the answers, and the share whose first token arrives within 800 ms

  agentlab llm-bench --set llm=ollama --rate 2 --requests 100 --slo-ttft-ms 800

  # the highest rate at which 90 % of the requests get their first token within 500 ms

  agentlab llm-bench --set llm=ollama --mode sweep --slo-ttft-ms 500

  # does every model answer, and which role does it suit

  agentlab llm-bench check --set llm=openrouter

  # how good are the answers of a model, and of a strategy

  agentlab llm-bench quality --model local --model strategy:best_of_two --set llm=ollama

  # is the second run worse than the first

  agentlab llm-bench compare before after --gate
"""

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="A model, or strategy:NAME; repeatable.", rich_help_panel=CONFIG),
]
SavePriors = Annotated[
    bool,
    typer.Option(
        "--save-priors", help="Record the results in the ledger, for the adaptive strategy.", rich_help_panel=RUN
    ),
]
MaxSeconds = Annotated[float | None, typer.Option(min=0, help="Time limit in seconds.", rich_help_panel=CONFIG)]
Slo = Annotated[float | None, typer.Option(min=0, help="Latency objective in milliseconds.", rich_help_panel=CONFIG)]


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options("max_cost")
def run(
    ctx: typer.Context,
    common: CommonOptions,
    model: Models = None,
    mode: Annotated[
        str | None, typer.Option(help="closed, poisson, constant or sweep.", rich_help_panel=CONFIG)
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N,N", help="Concurrent requests; a stage per value.", rich_help_panel=CONFIG)
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="R,R", help="Requests per second (Poisson); a stage per value.", rich_help_panel=CONFIG),
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests per stage.", rich_help_panel=CONFIG)] = None,
    max_seconds: MaxSeconds = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=8, help="Tokens per prompt.", rich_help_panel=CONFIG)] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per answer.", rich_help_panel=CONFIG)] = None,
    slo_ttft_ms: Slo = None,
    slo_itl_ms: Slo = None,
    slo_e2e_ms: Slo = None,
    prefix_cache: Annotated[
        bool, typer.Option("--prefix-cache", help="Start all prompts with the same text.", rich_help_panel=CONFIG)
    ] = False,
    save_priors: SavePriors = False,
) -> None:
    """Measure the speed of language models under load.

    Requests are sent at a fixed concurrency, or at a fixed rate regardless of the answers. The report shows the latency
    of the first and last token, counted from the scheduled time, how many answers met the objective, and the limits of
    this client itself.
    """
    if rate is not None and mode is None and common.resume is None:
        mode = "poisson"
        common = _insert_flag(common, "rate", "mode")
    flags = {
        "load.mode": ("--mode", mode),
        "load.concurrency": ("--concurrency", _numbers("--concurrency", concurrency, int)),
        "load.rates": ("--rate", _numbers("--rate", rate, float)),
        "load.requests": ("--requests", requests),
        "load.max_seconds": ("--max-seconds", max_seconds),
        "load.prompt_tokens": ("--prompt-tokens", prompt_tokens),
        "load.output_tokens": ("--output-tokens", output_tokens),
        "load.slo.ttft_ms": ("--slo-ttft-ms", slo_ttft_ms),
        "load.slo.itl_ms": ("--slo-itl-ms", slo_itl_ms),
        "load.slo.e2e_ms": ("--slo-e2e-ms", slo_e2e_ms),
        "load.prefix_cache": ("--prefix-cache", prefix_cache or None),
    }
    _launch(ctx, common, "load", model, save_priors, flags)


@app.command("check", cls=InOrder, epilog="Example: agentlab llm-bench check --set llm=openrouter")
@with_common_options("max_cost")
def check_(
    ctx: typer.Context,
    common: CommonOptions,
    model: Models = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests to each model.", rich_help_panel=CONFIG)] = None,
) -> None:
    """Send every model a few small requests, to see whether it answers, how fast, and which role suits it."""
    _launch(ctx, common, "check", model, False, {"check.requests": ("--requests", requests)})


@app.command("quality", cls=InOrder, epilog="Example: agentlab llm-bench quality --set llm=ollama --model local")
@with_common_options("max_cost")
def quality_(ctx: typer.Context, common: CommonOptions, model: Models = None, save_priors: SavePriors = False) -> None:
    """Score each model on small tasks with checkable answers, by type of task."""
    _launch(ctx, common, "quality", model, save_priors, {})


@app.command(epilog="Example: agentlab llm-bench compare before after --gate")
@with_output
def compare(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, a unique prefix, or last.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Give it twice: a target from the first run, then one from the second."),
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with status 5 if the second run is worse.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Compare two runs: which figures are better or worse in the second, with confidence intervals."""
    from agentlab.bench.compare.runs import compare_runs
    from agentlab.runs.store import find

    from .launch import runs_folder, surroundings

    screen = screen_of(ctx)
    folder = runs_folder(surroundings(screen), runs_dir)
    if target and len(target) != 2:
        raise UsageError("--target must be given twice.", hint="Give it twice, once for each run.")
    pair = (target[0], target[1]) if target else None
    runs = (find(folder, name, "llm-bench").path for name in (first, second))
    answer = compare_runs(*runs, targets=pair)
    screen.answer("llm-bench compare", answer)
    if gate:
        screen.gate(answer.gate())


def _launch(
    ctx: typer.Context,
    common: CommonOptions,
    measure: str,
    models: list[str] | None,
    save_priors: bool,
    flags: dict[str, tuple[str, Any]],
) -> None:
    """Start a run of the capability that measures this. A run that is gone on with measures what it began with."""
    from agentlab.config.overrides import Override

    from .launch import launch

    overrides = common.overrides(
        **flags, targets=("--model", models), save_priors=("--save-priors", save_priors or None)
    )
    if common.resume is None:
        overrides.append(Override("measure", measure, f"llm-bench {measure}"))
    label = None if measure == "load" else f"llm-bench-{measure}"
    launch("llm-bench", common, overrides, screen_of(ctx), label=label)


def _insert_flag(common: CommonOptions, after: str, name: str) -> CommonOptions:
    """The options as if the flag `name` had been typed before `after`."""
    from dataclasses import replace

    position = list(common.order).index(after)
    return replace(common, order=[*common.order[:position], name, *common.order[position:]])


def _numbers(flag: str, text: str | None, kind: type[int] | type[float]) -> list[float] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a list of numbers.", hint=f"Write {flag} 1,2,4.") from None
