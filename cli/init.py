"""`agentlab init`: a workspace to begin with."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .options import screen_of, with_output


@with_output
def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The workspace; made if it is not there.")] = Path(),
) -> None:
    """Make a folder a workspace: example configs, data folders, .env.example and .gitignore. Overwrites nothing.

    [bold]Examples[/bold]: agentlab init · agentlab init my-lab
    """
    from agentlab.scaffold.init import init as make_workspace

    screen = screen_of(ctx)
    screen.answer("init", make_workspace((Path.cwd() / folder).absolute()))
    screen.hint(f"cd {quote(str(folder))} && agentlab nas demo" if folder != Path() else "agentlab nas demo")
