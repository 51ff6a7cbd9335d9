"""`agentlab serve`: the router for any program that speaks OpenAI's protocol."""

import logging
import sys
from typing import Annotated

import typer

from .options import CONFIG, Set, screen_of, with_output
from .screen import Screen

EXAMPLES = """Examples:

  # the embedded model, at http://127.0.0.1:8484/v1

  agentlab serve

  # hosted models, for at most 2 USD

  agentlab serve openrouter --max-cost 2

  # the models a client can request

  curl http://127.0.0.1:8484/v1/models

  # from another program: the model name selects the strategy

  OPENAI_BASE_URL=http://127.0.0.1:8484/v1 OPENAI_MODEL=agentlab/best-of-two your-program

  # for other machines: with a token, which clients send as their API key

  AGENTLAB_SERVE_TOKEN=... agentlab serve prod --host 0.0.0.0
"""
_LISTEN = "Listen"


class _ScreenLogHandler(logging.Handler):
    """Shows what the router and the gateway have to say; with --debug that is every prompt and every answer."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.DEBUG if screen.debug else logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        show = self._screen.warn if record.levelno >= logging.WARNING else self._screen.say
        show(record.getMessage())


def _setups(incomplete: str) -> list[str]:
    """What the shell may complete where CONFIG stands."""
    import os
    from pathlib import Path

    from agentlab.config.presets import preset_names
    from agentlab.config.workspace import Workspace

    return [
        name for name in preset_names("llm", Workspace.locate(os.environ, Path.cwd())) if name.startswith(incomplete)
    ]


@with_output
def serve(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="A name in configs/llm/ or the path of a YAML file; the embedded model by default.",
            autocompletion=_setups,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; an address that other machines can reach needs a token.",
            rich_help_panel=_LISTEN,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.", rich_help_panel=_LISTEN)
    ] = 8484,
    token_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The variable with the token that clients must send; by default AGENTLAB_SERVE_TOKEN, if set.",
            rich_help_panel=_LISTEN,
        ),
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, max=1024, help="Maximum number of requests in flight.", rich_help_panel=_LISTEN)
    ] = 64,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", min=0, help="Spend at most this much on models in total.", rich_help_panel=CONFIG),
    ] = None,
    set_: Set = None,
) -> None:
    """Serve models and strategies to any program that speaks OpenAI's protocol.

    A client names a model of CONFIG, or a strategy over its models: agentlab/single, agentlab/fallback,
    agentlab/fastest, agentlab/best-of-two, agentlab/best-of-n, agentlab/adaptive; agentlab uses the strategy of CONFIG.
    Ctrl-C stops it after the requests in flight are answered.
    """
    from agentlab.config.overrides import Override, parse
    from agentlab.llm.load import load_llm
    from agentlab.llm.provider_config import is_loopback
    from agentlab.llm.serve.run import GatewaySettings, Served
    from agentlab.llm.serve.run import serve as run

    from .launch import surroundings

    screen = screen_of(ctx)
    context = surroundings(screen)
    overrides = [parse(text) for text in set_ or ()]
    if max_cost is not None:
        overrides.append(Override("budget.per_run_usd", max_cost, "--max-cost"))
    setup = load_llm(config, overrides, context)

    log = logging.getLogger("agentlab.llm")
    log.addHandler(_ScreenLogHandler(screen))
    if screen.debug:
        log.setLevel(logging.DEBUG)

    def ready(url: str) -> None:
        screen.answer("serve", Served.of(url, setup))
        sys.stdout.flush()  # who started this waits for the address
        if not is_loopback(url):
            screen.warn("questions, answers and the token travel unencrypted; put a TLS proxy in front")
        screen.hint("Ctrl-C stops the server")

    run(setup, GatewaySettings(host, port, token_env, at_once), context, ready=ready, say=screen.say)
