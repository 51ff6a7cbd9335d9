"""The application and its one error boundary: nothing but this file maps an error to an exit code."""

import errno
import io
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any

import typer

from agentlab import __version__
from agentlab.errors import (
    AgentlabError,
    DataError,
    Interrupted,
    MissingError,
    StorageError,
    UntrustedHostError,
    UsageError,
)
from agentlab.runs.redact import Redactor

from .screen import Screen

BUG, INTERRUPTED, CLOSED_PIPE = 70, 130, 141
# How the system, its loader and torch say that memory is short.
_NO_MEMORY = (
    "cannot allocate memory",
    "failed to map segment",
    "can't allocate memory",
    "can't start new thread",
    "bad_alloc",
)
_EXIT_CODES = (
    "Exit codes: 0 done · 1 failed · 2 usage or config · 3 something is missing · 4 remote service failed · "
    "5 gate or budget not met · 70 bug · 129/130/143 interrupted, resumable"
)

# In the order of the help page: what people come for first. The panel of each, and what it does.
_COMMANDS = {
    "nas": ("Experiments", "Search for an Informer forecaster architecture on your time series."),
    "train-persona": ("Experiments", "Train personas: LoRA adapters of one base model."),
    "debate": ("Experiments", "Let agents debate: they answer, read each other's answers, and vote."),
    "evolve": ("Experiments", "Evolve adapters, with random search and the parents as baselines."),
    "compress": ("Experiments", "Compress a model within an energy budget, and measure every file."),
    "pipeline": ("Experiments", "Run chains of local GGUF and remote models."),
    "llm-bench": ("Experiments", "Measure language models: speed under load, availability, quality."),
    "llm": ("Language models", "Talk to models and personas; show routing and usage."),
    "serve": ("Language models", "Serve models and strategies to any program that speaks OpenAI's protocol."),
    "adapters": ("Setup", "List, inspect, compare, blend, merge and export LoRA adapters."),
    "runs": ("Runs and configs", "List, show, compare, resume, export and remove runs."),
    "configs": ("Runs and configs", "List, show and validate configs; print their schema."),
    "init": (
        "Setup",
        "Make a folder a workspace: example configs, data folders, .env.example and .gitignore. Overwrites nothing.",
    ),
    "doctor": ("Setup", "Check Python, libraries, GPU, memory, disk, keys and the embedded model, and suggest fixes."),
    "models": ("Setup", "List, fetch, import, locate and remove model files."),
}
_COMPLETING = "_AGENTLAB_COMPLETE"  # set by the shell, as Typer names it
_MAY_BE_EMPTY = ("--system",)  # no system message, where a persona was trained with one
_GROUPS = ("llm", "runs", "configs", "models", "adapters")  # their subcommands are part of a command's name


class _Ordered(typer.core.TyperGroup):
    """Typer lists plain commands before groups; here the order is ours."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=[*_COMMANDS].index)


def build_app(names: Collection[str] = tuple(_COMMANDS)) -> typer.Typer:
    """The application. Commands other than `names` are listed only: their modules, a third of a start, are not loaded.

    A module `cli.NAME` has an `app`, or a function of its own name and maybe `EXAMPLES`.
    """
    app = typer.Typer(
        name="agentlab",
        cls=_Ordered,
        help="LLM agents that run model-improvement experiments, each with its own control.\n\n"
        "Start here (no key, GPU or network needed): [bold]agentlab nas demo[/bold]",
        epilog=_EXIT_CODES,
        rich_markup_mode="rich",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, (panel, text) in _COMMANDS.items():
        word = name.replace("-", "_")
        module = import_module(f"{__package__}.{word}") if name in names else None
        if module is not None and not hasattr(module, "app"):
            app.command(name, epilog=getattr(module, "EXAMPLES", None), rich_help_panel=panel)(getattr(module, word))
        else:
            group = typer.Typer() if module is None else module.app
            app.add_typer(group, name=name, help=text, rich_help_panel=panel)
    return app


def _list_named(argv: Sequence[str]) -> Collection[str]:
    """The command that is named; all where a shell asks what there is."""
    if _COMPLETING in os.environ:
        return tuple(_COMMANDS)
    return [word for word in argv if not word.startswith("-")][:1]


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"agentlab {__version__} (Python {sys.version.split()[0]})\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Never lets a traceback through without -v."""
    _open_streams()
    screen = Screen(json_mode="--json" in argv)
    screen.redactor = Redactor.of(os.environ)
    try:
        code = _run(argv, screen)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone (`| head`)
        _discard_answer()
        return CLOSED_PIPE
    except OSError as error:
        _discard_answer()
        screen.error(StorageError(f"The answer cannot be written: {error.strerror}."), command=_command_name(argv))
        return StorageError.exit_code
    return code


def _run(argv: Sequence[str], screen: Screen) -> int:
    name = _command_name(argv)
    try:
        _refuse_empty(argv)
        code = int(
            build_app(_list_named(argv))(args=list(argv), prog_name="agentlab", standalone_mode=False, obj=screen) or 0
        )
        if code == INTERRUPTED:  # Typer's answer to a Ctrl-C that no run has caught
            raise Interrupted("Stopped on request.")
    except UntrustedHostError as error:
        if not _trusts(error, screen):
            return _report_failure(screen, error, name)
        return _run(argv, screen)  # nothing has begun: keys are looked at first
    except AgentlabError as error:
        if isinstance(error, DataError) and error.settings and error.hint:
            from agentlab.config.overrides import format_set_options

            typed_settings = format_set_options(error.settings)  # a hint is typed as a whole
            error.hint = error.hint.replace(typed_settings, f"{shlex.join(['agentlab', *argv])} {typed_settings}")
        return _report_failure(screen, error, name)
    except typer.TyperException as error:
        return _usage(screen, error, name)
    except (KeyboardInterrupt, typer.Abort):
        return _report_failure(screen, Interrupted("Stopped on request."), name)
    except SystemExit as left:  # Typer's answer to a closed pipe
        raise left.__context__ or left from None
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno == errno.ENOSPC:  # files say so by a StorageError
            raise
        return _report_failure(screen, _storage(error) if error.filename else _surroundings(error) or _bug(error), name)
    except Exception as bug:  # noqa: BLE001 - the boundary: whatever gets here is a bug, and is shown as one
        return _report_failure(screen, _surroundings(bug) or _bug(bug), name)
    return code


def _trusts(error: UntrustedHostError, screen: Screen) -> bool:
    """Ask whether a key may go to a host, where somebody is there to answer; remember a yes."""
    if screen.json_mode or sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    screen.prompt(f"{error.message}\nSend {error.variable} to {error.host} from now on? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    from agentlab.config.trust import confirm

    try:
        confirm(error.variable, error.host, os.environ)
    except StorageError as failure:
        screen.warn(failure.message)
        return False
    return True


def _refuse_empty(argv: Sequence[str]) -> None:
    """An empty argument is most often a variable of the shell that is not set: the default must not run for it.

    Raises:
        UsageError: there is one.
    """
    for before, word in zip(["", *argv], argv, strict=False):
        flag, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value.strip() and flag not in _MAY_BE_EMPTY:
            where = flag if flag.startswith("-") and flag != "--" else "the command" if not flag else repr(flag)
            raise UsageError(
                f"The argument after {where} is empty.",
                hint="Is a shell variable unset? Give a value, or leave the argument out.",
            )


def _report_failure(screen: Screen, error: AgentlabError, name: str) -> int:
    screen.error(error, command=name)
    if screen.verbose:
        import traceback

        sys.stderr.write(screen.redactor.scrub(traceback.format_exc()))
    return error.exit_code


def _bug(bug: Exception) -> AgentlabError:
    error = AgentlabError(
        f"This is a bug in agentlab: {type(bug).__name__}: {bug}",
        hint="Run it again with -v and report the traceback.",
    )
    error.exit_code = BUG
    return error


def _surroundings(error: Exception) -> AgentlabError | None:
    """An error that every part of a program may meet, and that no part of this one has made; None for any other."""
    message = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in message for sign in _NO_MEMORY):
        return MissingError(
            f"There is not enough memory: {str(error)[:200] or 'a request was refused'}.",
            hint="Close other programs, or raise the memory limit of this process (`ulimit -v` shows it).",
        )
    if isinstance(error, RuntimeError) and message.startswith("symlink loop"):  # of Path.resolve, up to Python 3.12
        return StorageError(f"{error}.", hint="Remove the link that points to itself, or use another path.")
    if isinstance(error, FileNotFoundError) and not error.filename:
        return UsageError("The current folder no longer exists.", hint="Change to another one: cd ~")
    return None


def _storage(error: OSError) -> StorageError:
    """A file that the system refuses and nobody has spoken for: no permission, a name that is too long."""
    return StorageError(
        f"Cannot use {str(error.filename)[:200]}: {error.strerror}.", hint="Check the path and its permissions."
    )


class _Unfailing(io.FileIO):
    """For what is said beside the answer: a full disk or a terminal that has gone must not end the work."""

    def write(self, data: Any) -> int:
        """Write what can be written, and take the rest as said."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _open_streams() -> None:
    """Let nothing that is shown fail: a stream the caller has closed, a character the terminal does not know."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    real_stderr = sys.__stderr__
    if real_stderr is not None and sys.stderr is real_stderr:
        raw = io.BufferedWriter(_Unfailing(real_stderr.fileno(), "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, real_stderr.encoding, errors="backslashreplace", line_buffering=True)


def _discard_answer() -> None:
    """What is left in stdout's buffer must not fail again when Python shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command_name(argv: Sequence[str]) -> str:
    """The name that a JSON document gives the command: `nas`, `runs show`."""
    words = list(takewhile(lambda word: not word.startswith("-"), argv))
    return " ".join(words[:2] if words[:1] and words[0] in _GROUPS else words[:1])


def _usage(screen: Screen, error: typer.TyperException, name: str) -> int:
    """Typer's own complaints, in our voice."""
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error.format_message()}\n")
        return 0
    group = name.partition(" ")[0]
    help_of = f"agentlab {group} --help" if group in _COMMANDS else "agentlab --help"
    screen.error(UsageError(error.format_message().rstrip(), hint=f"See `{help_of}`."), command=name)
    return UsageError.exit_code
