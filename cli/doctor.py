"""`agentlab doctor`: is everything here that a command may need?"""

from typing import Annotated

import typer

from .options import screen_of, with_output


@with_output
def doctor(
    ctx: typer.Context,
    require: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Exit with status 3 unless the status of these checks is ok."),
    ] = None,
) -> None:
    """Check Python, libraries, GPU, memory, disk, keys and the embedded model, and suggest fixes.

    [bold]Examples[/bold]: agentlab doctor · agentlab doctor --require model,llama.cpp · agentlab doctor --json
    """
    from agentlab.doctor.examine import examine

    from .launch import surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    if not screen.json_mode:
        screen.say("checking; this takes a few seconds, because heavy libraries are loaded as a test")
    with screen.progress():
        report = examine(context.workspace, context.env)
    if require:
        report.require([name.strip() for name in require.split(",") if name.strip()])
    screen.answer("doctor", report)
