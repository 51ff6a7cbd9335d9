"""`agentlab init`: a workspace to begin with."""

import os
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .options import screen_of, with_output


@with_output
def init(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The workspace; created if it does not exist.")
    ] = Path(),
) -> None:
    """Make a folder a workspace: example configs, data folders, .env.example and .gitignore. Overwrites nothing.

    [bold]Examples[/bold]: agentlab init · agentlab init my-lab
    """
    from agentlab.scaffold.init import init as make_workspace

    screen = screen_of(ctx)
    answer = make_workspace((Path.cwd() / folder).absolute())
    screen.answer("init", answer)
    words = ["agentlab nas demo"]
    if "AGENTLAB_HOME" in os.environ:  # it would win over the current folder
        words = [f"AGENTLAB_HOME={quote(answer.root)}", *words] if answer.root != os.environ["AGENTLAB_HOME"] else words
    elif folder != Path():
        words = [f"cd {quote(str(folder))} &&", *words]
    screen.hint(" ".join(words))
