"""`agentlab configs`: the presets, what they resolve to, and whether a file is right."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Set, screen_of, with_output

app = typer.Typer(no_args_is_help=True)

Kind = Annotated[str, typer.Argument(metavar="COMMAND", help="A command such as nas, or llm for model setups.")]


@app.command("list", epilog="Example: agentlab configs list nas")
@with_output
def list_(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Argument(metavar="COMMAND", help="Only presets for this command or llm.")] = None,
) -> None:
    """List the presets: yours in configs/, then the shipped ones."""
    from agentlab.scaffold import configs

    from .launch import surroundings

    screen = screen_of(ctx)
    screen.answer("configs list", configs.list_presets(kind, surroundings(screen)))


@app.command(epilog="Example: agentlab configs show nas demo --set training.epochs=3")
@with_output
def show(
    ctx: typer.Context,
    kind: Kind,
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A preset's name or a path.")] = None,
    set_: Set = None,
) -> None:
    """Print a config with every value and its source."""
    from agentlab.config.overrides import parse
    from agentlab.scaffold import configs

    from .launch import surroundings

    screen = screen_of(ctx)
    overrides = [parse(text) for text in set_ or ()]
    screen.answer("configs show", configs.show(kind, config, overrides, surroundings(screen), Path.cwd()))


@app.command(epilog="Example: agentlab configs validate configs/nas/mine.yaml")
@with_output
def validate(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="The files to check; all presets by default.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--command", metavar="COMMAND", help="The command the files are for, if not clear from their folder."
        ),
    ] = None,
) -> None:
    """Check configs and list everything that is wrong with them."""
    from agentlab.scaffold import configs

    from .launch import surroundings

    screen = screen_of(ctx)
    screen.answer("configs validate", configs.validate(paths or (), kind, surroundings(screen), Path.cwd()))


@app.command(epilog="Example: agentlab configs schema nas > nas.schema.json")
@with_output
def schema(
    ctx: typer.Context,
    kind: Kind,
    of_result: Annotated[bool, typer.Option("--result", help="Print the schema of the --json result instead.")] = False,
) -> None:
    """Print the JSON schema of a command's config files, for use in an editor, or of its result."""
    from agentlab.scaffold import configs

    screen_of(ctx).answer("configs schema", configs.result_schema(kind) if of_result else configs.schema(kind))
