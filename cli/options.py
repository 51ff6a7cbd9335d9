"""The parameters every command shares, declared once (DESIGN: one command contract)."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from agentlab.config.overrides import Override

from .screen import Screen

CONFIG, RUN, OUTPUT = "Config", "Run", "Output"


def screen_of(context: typer.Context) -> Screen:
    """The process's screen."""
    screen: Screen = context.find_root().obj
    return screen


def _quiet(context: typer.Context, value: bool) -> bool:
    screen_of(context).quiet |= value
    return value


def _verbose(context: typer.Context, value: bool) -> bool:
    screen_of(context).verbose |= value
    return value


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the answer and errors.", callback=_quiet, rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="More detail; tracebacks of bugs.", callback=_verbose, rich_help_panel=OUTPUT),
]
RunsDir = Annotated[Path | None, typer.Option(help="The folder that holds run folders.", rich_help_panel=RUN)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one config value.", rich_help_panel=CONFIG),
]
Preset = Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="A preset's name or the path of a YAML file.")]


@dataclass(frozen=True, slots=True)
class Contract:
    """The shared parameters as given. `overrides` holds `--set` and the flags, in the order of precedence."""

    preset: str | None
    sets: Sequence[str]
    dry_run: bool
    resume: str | None
    run_name: str | None
    runs_dir: Path | None
    seed: int | None
    max_cost: float | None
    control: str | None

    def overrides(self, **flags: Any) -> list[Override]:
        """`--set` first, then the flags that were given. A flag is an alias of the config key it names here."""
        from agentlab.config.overrides import parse

        shared = {"seed": ("--seed", self.seed), "control": ("--control", self.control)}
        shared["llm.budget.per_run_usd"] = ("--max-cost", self.max_cost)
        given = {key: (flag, value) for key, (flag, value) in {**shared, **flags}.items() if value is not None}
        return [
            *(parse(text) for text in self.sets),
            *(Override(key=key, value=value, origin=flag) for key, (flag, value) in given.items()),
        ]


def _shared(
    ctx: typer.Context,
    config: Preset = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print the plan and its cost; write nothing.", rich_help_panel=RUN)
    ] = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run.", rich_help_panel=RUN)] = None,
    run_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name the run folder.", rich_help_panel=RUN)
    ] = None,
    runs_dir: RunsDir = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all randomness.", rich_help_panel=CONFIG)] = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="Spend at most this on models.", rich_help_panel=CONFIG)
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="How the agent is compared with its control.", rich_help_panel=CONFIG),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Contract:
    del ctx, json, quiet, verbose  # read from the command line before parsing, or by their callbacks
    return Contract(config, set_ or (), dry_run, resume, run_name, runs_dir, seed, max_cost, control)


def with_contract(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared parameters. It takes `ctx`, `contract` and parameters of its own."""
    shared, own = inspect.signature(_shared), inspect.signature(function)
    mine = [p for name, p in own.parameters.items() if name not in ("ctx", "contract")]

    @wraps(function)
    def command(**given: Any) -> None:
        contract = _shared(**{name: given.pop(name) for name in shared.parameters if name != "ctx"}, ctx=given["ctx"])
        function(contract=contract, **given)

    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in (*list(shared.parameters.values())[:2], *mine, *list(shared.parameters.values())[2:])
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    hints = {**get_type_hints(function, include_extras=True), **get_type_hints(_shared, include_extras=True)}
    command.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return command


class DefaultsToRun(typer.core.TyperGroup):
    """`agentlab nas demo` means `agentlab nas run demo`; a subcommand's name wins, and help shows both."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Prepend `run` unless the first word is a subcommand; the help of `run` is the help of the command."""
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)
