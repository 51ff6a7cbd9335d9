"""The parameters that commands share, declared once."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import typer

from agentlab.errors import UnknownNameError, UsageError

from .screen import Screen

if TYPE_CHECKING:
    from agentlab.config.overrides import Override

CONFIG, RUN, OUTPUT = "Config", "Run", "Output"
Also = Literal["max_cost", "control"]  # shared options that not every command takes
_ORDER = "agentlab.order"

RunsDir = Annotated[Path | None, typer.Option(help="The folder with all runs.", rich_help_panel=RUN)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one config value.", rich_help_panel=CONFIG),
]

Approve = Annotated[
    bool, typer.Option("--approve", help="Ask before every trial: yes, no or edit.", rich_help_panel=RUN)
]


def from_here(name: str) -> str:
    """A path on the command line starts at the current folder; a name stays one."""
    from agentlab.files import written_path

    return str(Path.cwd() / written_path(name)) if "/" in name else name


def screen_of(context: typer.Context) -> Screen:
    """The process's screen."""
    screen: Screen = context.find_root().obj
    return screen


def _output(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=OUTPUT)] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the answer and errors.", rich_help_panel=OUTPUT)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print more, and the traceback of an error.", rich_help_panel=OUTPUT)
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Log prompts, answers and config differences.", rich_help_panel=OUTPUT),
    ] = False,
) -> dict[str, Any]:
    Path.cwd()  # one that is gone is told before a library is loaded that ends the process for it (MKL)
    screen = screen_of(ctx)
    screen.json_mode |= json
    screen.quiet |= quiet
    screen.verbose |= verbose or debug
    screen.debug |= debug
    return {}


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every capability is told, as typed."""

    preset: str | None
    sets: Sequence[str]
    dry_run: bool
    resume: str | None
    run_name: str | None
    runs_dir: Path | None
    seed: int | None
    max_cost: float | None
    control: str | None
    order: Sequence[str]  # names of all options given, as often and in the order in which they were typed

    def overrides(self, **flags: tuple[str, Any]) -> "list[Override]":
        """`--set` and the flags that were given, config key = (flag, value), as typed from left to right.

        `--max-cost` comes last: a limit on spending must not fall to a `--set llm=...` behind it.
        """
        from agentlab.config.overrides import Override, parse

        shared = {
            "seed": ("--seed", self.seed),
            "control": ("--control", self.control),
            "llm.budget.per_run_usd": ("--max-cost", self.max_cost),
        }
        given_flags = {flag: (key, value) for key, (flag, value) in {**shared, **flags}.items() if value is not None}
        sets = iter(self.sets)
        placed: dict[object, Override] = {}
        for position, name in enumerate(self.order):
            flag = f"--{name.rstrip('_').replace('_', '-')}"
            if name == "set_":
                placed[position] = parse(next(sets))
            elif flag in given_flags:
                key, value = given_flags[flag]
                placed.pop(flag, None)  # given twice: the last one counts, where it stands
                placed[flag] = Override(key=key, value=value, origin=flag)
        limit = placed.pop("--max-cost", None)
        return [*placed.values(), *([limit] if limit else [])]


def _presets(command: str) -> list[str]:
    """Names of a command's presets."""
    from agentlab.config.presets import preset_names
    from agentlab.config.workspace import Workspace

    return preset_names(command, Workspace.locate(os.environ, Path.cwd()))


def _configs(ctx: typer.Context, incomplete: str) -> list[str]:
    """What the shell may complete where CONFIG stands: presets, and subcommands when it is the first word."""
    group: Any = ctx.parent
    return [name for name in (*_presets(group.info_name), *group.command.commands) if name.startswith(incomplete)]


def _common_options(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A preset's name or the path of a YAML file.", autocompletion=_configs),
    ] = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost; run and write nothing.", rich_help_panel=RUN)
    ] = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Continue a run.", rich_help_panel=RUN)] = None,
    run_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name the run folder.", rich_help_panel=RUN)
    ] = None,
    runs_dir: RunsDir = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for all randomness.", rich_help_panel=CONFIG)] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", min=0, help="Spend at most this much on models.", rich_help_panel=CONFIG),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="How the agent is compared with a baseline.", rich_help_panel=CONFIG),
    ] = None,
) -> dict[str, Any]:
    order = ctx.meta[_ORDER]
    common = CommonOptions(config, set_ or (), dry_run, resume, run_name, runs_dir, seed, max_cost, control, order)
    return {"common": common}


def _from_home(value: Any) -> Any:
    """A path as it is meant: the shell leaves `~` as it stands in quotes and behind `--out=`."""
    from agentlab.files import written_path

    if isinstance(value, list):
        return [_from_home(item) for item in value]
    return written_path(value) if isinstance(value, Path) else value


def with_output(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json`, `-q` and `-v`, which speak to the screen."""
    return _merge_parameters(function, _output)


def with_common_options(*also: Also) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a capability's command the shared parameters; it receives them as `common`.

    Args:
        also: of the options that not every command takes, those of this one: `max_cost` where a paid model can be
            called, `control` where there is an agent to compare.
    """
    absent = frozenset(get_args(Also)) - frozenset(also)
    return lambda function: _merge_parameters(_merge_parameters(function, _common_options, absent), _output)


def _merge_parameters(
    function: Callable[..., None], shared: Callable[..., dict[str, Any]], absent: frozenset[str] = frozenset()
) -> Callable[..., None]:
    """`function` with the parameters of `shared`, which turns their values into arguments for it.

    Typer reads a command's signature, so the two signatures are merged: context, arguments, own options, shared ones
    without those that are `absent`.
    """
    theirs, mine = inspect.signature(shared).parameters, inspect.signature(function).parameters
    shared_names = {name for name in theirs if name != "ctx"} - absent
    produced = {"common"} if shared is _common_options else set()

    @wraps(function)
    def command(ctx: typer.Context, **typed: Any) -> None:
        arguments = {name: _from_home(value) for name, value in typed.items()}
        values = {name: arguments.pop(name) for name in shared_names}
        extra = shared(ctx, **values) if "ctx" in theirs else shared(**values)
        function(ctx=ctx, **arguments, **extra)

    parameters = [
        *(p for name, p in mine.items() if name not in produced),
        *(p for name, p in theirs.items() if name in shared_names),
    ]
    hints = {**_hints(function), **_hints(shared)}
    merged = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in parameters]
    command.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined] # what Typer reads
    command.__annotations__ = {p.name: p.annotation for p in merged}
    return command


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return (
        function.__annotations__
        if hasattr(function, "__signature__")
        else get_type_hints(function, include_extras=True)
    )


class InOrder(typer.core.TyperCommand):
    """A command that remembers the order of its options, which decides between `--set` and a flag for the same key."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the options as typed; Typer itself only keeps their values."""
        _, _, typed_options = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [option.name for option in typed_options]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """A word that names no preset may have been meant for a subcommand, and is compared with both."""
        try:
            return super().invoke(ctx)
        except UnknownNameError as error:
            from agentlab.config.presets import is_path

            word, group = ctx.params.get("config"), ctx.parent
            presets = _presets(group.info_name)
            if word is None or word in presets or is_path(word):  # it is another name that is unknown
                raise
            if word in group.command.commands:
                raise UsageError(
                    f"{word!r} is a subcommand and must come first.", hint=f"See `{group.command_path} {word} --help`."
                ) from error
            raise UnknownNameError(
                f"{group.info_name} preset or subcommand",
                word,
                [*group.command.commands, *presets],
                hint=f"See `{group.command_path} --help` and `agentlab configs list`.",
            ) from error


class DefaultsToRun(typer.core.TyperGroup):
    """`agentlab nas demo` means `agentlab nas run demo`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """One page: what `run` takes, the subcommands, and the examples of `run`."""
        run = self.commands["run"]
        typer.core.TyperGroup(
            name=self.name,
            commands=dict(self.commands),
            params=run.params,
            help=run.help,
            epilog=run.epilog,
            rich_markup_mode=self.rich_markup_mode,
            subcommand_metavar="| COMMAND ...",
        ).format_help(ctx, formatter)
