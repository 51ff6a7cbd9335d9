"""`agentlab train-persona`: LoRA adapters that speak like somebody."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentlab.errors import UsageError

from .options import CONFIG, RUN, CommonOptions, DefaultsToRun, InOrder, from_here, screen_of, with_common_options

app = typer.Typer(cls=DefaultsToRun)

_EXAMPLES = """Examples:

  # takes minutes on the embedded model

  agentlab train-persona demo

  # your own conversations: one per line, {"messages": [...]}

  agentlab train-persona --data talks.jsonl --out adapters/mine --r 32 --epochs 2 --bsz 4 --grad-accum 4

  # check the conversations, without loading or training anything

  agentlab train-persona --data talks.jsonl --check

  # three personas in the same steps; on a GPU their rows share one batch

  agentlab train-persona --set together=true

  # a larger base in 4 bits, on a GPU

  agentlab train-persona qwen3-4b-qlora --set base=models/Qwen3-4B-Instruct-2507

  # continue after Ctrl-C

  agentlab train-persona --resume last
"""


@app.command("run", cls=InOrder, epilog=_EXAMPLES)
@with_common_options()
def run(
    ctx: typer.Context,
    common: CommonOptions,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Conversations of one persona (JSONL).", rich_help_panel=CONFIG)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder for the adapter.", rich_help_panel=CONFIG)
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model's name or checkpoint folder.", rich_help_panel=CONFIG)
    ] = None,
    r: Annotated[int | None, typer.Option(min=1, help="Rank of the adapter.", rich_help_panel=CONFIG)] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="Passes over the data.", rich_help_panel=CONFIG)] = None,
    bsz: Annotated[int | None, typer.Option(min=1, help="Conversations per step.", rich_help_panel=CONFIG)] = None,
    grad_accum: Annotated[
        int | None,
        typer.Option(
            "--grad-accum", "--grad_accum", min=1, help="Batches accumulated per step.", rich_help_panel=CONFIG
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the conversations and stop.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Train LoRA adapters on conversations, on a CPU or a GPU, and compare them with the base and each other.

    The loss covers only the assistant's turns, whatever the chat template. The adapter with the best held-out loss
    is saved in adapters/NAME, with a card that records how it was made.
    """
    from dataclasses import replace

    from .launch import launch

    if out is not None and data is None and common.resume is None and common.preset is None:
        raise UsageError(
            "--out is the folder of one adapter, but the default config trains three.", hint="Add --data FILE."
        )
    flags: dict[str, tuple[str, Any]] = {
        "personas": ("--data", None if data is None else [_persona(data, out)]),
        "out": ("--out", None if out is None else str(Path.cwd() / out)),
        "base": ("--base", None if base is None else from_here(base)),
        "lora.r": ("--r", r),
        "training.epochs": ("--epochs", epochs),
        "training.batch_size": ("--bsz", bsz),
        "training.grad_accum": ("--grad-accum", grad_accum),
    }
    if check:
        common = replace(common, dry_run=True)
    launch("train-persona", common, common.overrides(**flags), screen_of(ctx))


def _persona(data: Path, out: Path | None) -> dict[str, str]:
    """The one persona that flags describe: called like its folder, or else like its file."""
    name = out.name if out is not None and out.name else data.stem
    return {"name": name, "data": str(Path.cwd() / data)}
