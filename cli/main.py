"""The application and its one error boundary: nothing but this file maps an error to an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from agentlab import __version__
from agentlab.errors import AgentlabError

from . import configs, doctor, init, models, nas, runs
from .screen import Screen

BUG = 70
_EXIT_CODES = (
    "Exit codes: 0 done · 1 failed · 2 usage or config · 3 something is missing · 4 remote service failed · "
    "5 gate or budget not met · 70 bug · 130/143 interrupted, resumable"
)

# The order of the help page: what people come for first.
_ORDER = ("nas", "runs", "configs", "init", "doctor", "models")


class _Ordered(typer.core.TyperGroup):
    """Typer lists plain commands before groups; here the order is ours."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names as the help page shows them."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="agentlab",
    cls=_Ordered,
    help="LLM agents that run model-improvement experiments, each with its own control.\n\n"
    "Start here, without key, GPU or network: [bold]agentlab nas demo[/bold]",
    epilog=_EXIT_CODES,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(nas.app, name="nas", rich_help_panel="Experiments")
app.add_typer(runs.app, name="runs", rich_help_panel="Runs and configs")
app.add_typer(configs.app, name="configs", rich_help_panel="Runs and configs")
app.command("init", rich_help_panel="Setup")(init.init)
app.add_typer(models.app, name="models", rich_help_panel="Setup")
app.command("doctor", rich_help_panel="Setup")(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"agentlab {__version__} (Python {sys.version.split()[0]})\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Never lets a traceback through without -v."""
    screen = Screen(json_mode="--json" in argv)
    name = _command_name(argv)
    try:
        code = app(args=list(argv), prog_name="agentlab", standalone_mode=False, obj=screen)
        return int(code or 0)
    except AgentlabError as error:
        screen.error(error, command=name)
        _trace(screen)
        return error.exit_code
    except typer.TyperException as error:
        return _usage(screen, error, name)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`): what is left in the buffer must not fail again when Python shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as bug:  # noqa: BLE001 - the boundary: whatever gets here is a bug, and is shown as one
        shown = AgentlabError(
            f"This is a bug in agentlab: {type(bug).__name__}: {bug}",
            hint="Repeat it with -v and report the traceback.",
        )
        shown.exit_code = BUG
        screen.error(shown, command=name)
        _trace(screen)
        return BUG


def _command_name(argv: Sequence[str]) -> str:
    words = [word for word in argv[:2] if not word.startswith("-")]
    return words[0] if words else ""


def _usage(screen: Screen, error: typer.TyperException, name: str) -> int:
    """Typer's own complaints, in our voice."""
    help_of = f"agentlab {name} --help" if name in _ORDER else "agentlab --help"
    shown = AgentlabError(error.format_message().rstrip(), hint=f"See `{help_of}`.")
    shown.exit_code = 2
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error.format_message()}\n")
        return 0
    screen.error(shown, command=name)
    return 2


def _trace(screen: Screen) -> None:
    if screen.verbose:
        import traceback

        sys.stderr.write(screen.redactor.scrub(traceback.format_exc()))
