"""`agentlab adapters`: the LoRA adapters of the workspace."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentlab.errors import UnknownNameError, UsageError
from agentlab.lora.operators import MUTATIONS, OPERATORS

from .options import from_here, screen_of, with_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from .screen import LiveProgress, Screen

app = typer.Typer(no_args_is_help=True)

_NAME = "A name from `agentlab adapters list`, or a path with a slash."
_FORMATS = ("gguf", "peft")
_METHODS = f"{', '.join(name for name in OPERATORS.table if name not in MUTATIONS)}, or one from an installed package."

Name = Annotated[str, typer.Argument(metavar="NAME", help=_NAME)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to create; it must not exist.")]
Base = Annotated[
    str | None,
    typer.Option("--base", metavar="NAME", help="The base model, by name or path; the adapter's own by default."),
]
AnyBase = Annotated[bool, typer.Option("--any-base", help="Allow different base models.")]

_BLEND = """Examples:

  # two personas, weighted 60 to 40, truncated to the larger rank

  agentlab adapters blend analyst poet --weights 0.6,0.4 --out adapters/both

  # exact: the ranks add up

  agentlab adapters blend analyst poet critic --method concat --out adapters/council

  # takes each singular direction from one parent or the other, at random (seeded)

  agentlab adapters blend analyst poet --method svd-cross --seed 7 --out adapters/child
"""
_MERGE = """Examples:

  agentlab adapters merge analyst --out models/smollm2-analyst

  agentlab adapters merge analyst --base smollm2-135m-float32 --dtype bfloat16 --out models/smollm2-analyst
"""
_EXPORT = """Examples:

  agentlab adapters export analyst --format gguf --out analyst.gguf

  agentlab adapters export analyst --format gguf --base smollm2-135m --out analyst.gguf

  agentlab adapters export analyst --format peft --dtype bfloat16 --out served/analyst
"""


def _progress_callback(bar: "LiveProgress", action: str) -> "Callable[[int, int, str], None]":
    return lambda done, total, at: bar.update(f"{action} · {at}", done=done, total=total)


@app.command("list", epilog="Example: agentlab adapters list --json")
@with_output
def list_(ctx: typer.Context) -> None:
    """List the adapters in the workspace, and what is wrong with damaged ones."""
    from agentlab.lora.catalogue import list_adapters
    from agentlab.lora.views import AdapterList

    from .launch import surroundings

    screen = screen_of(ctx)
    screen.answer("adapters list", AdapterList.of(list_adapters(surroundings(screen).workspace)))


@app.command(epilog="Example: agentlab adapters show analyst")
@with_output
def show(ctx: typer.Context, name: Name) -> None:
    """Show an adapter: settings, norms and spectrum of its weight update, card, and vLLM options."""
    from agentlab.lora.adapter_profile import anatomy
    from agentlab.lora.card import read_card
    from agentlab.lora.catalogue import find
    from agentlab.lora.exporting import plan_serving
    from agentlab.lora.reading import Adapter
    from agentlab.lora.views import AdapterView

    from .launch import surroundings

    screen = screen_of(ctx)
    path = find(from_here(name), surroundings(screen).workspace)
    card = read_card(path)
    with Adapter(path) as adapter, screen.progress() as bar:
        parts = anatomy(adapter, _progress_callback(bar, "modules"))
        view = AdapterView.of(adapter, parts, card, plan_serving({path.name: adapter}))
    screen.answer("adapters show", view)


@app.command(epilog="Example: agentlab adapters diff analyst poet")
@with_output
def diff(
    ctx: typer.Context,
    first: Name,
    second: Annotated[str, typer.Argument(metavar="NAME", help="The adapter to compare it with.")],
) -> None:
    """Compare two adapters: their weight updates, module by module, and how each was made."""
    from agentlab.lora.adapter_profile import likenesses
    from agentlab.lora.card import read_card
    from agentlab.lora.catalogue import find
    from agentlab.lora.reading import Adapter
    from agentlab.lora.views import AdapterDiff

    from .launch import surroundings

    screen = screen_of(ctx)
    workspace = surroundings(screen).workspace
    paths = [find(from_here(name), workspace) for name in (first, second)]
    cards = [read_card(path) for path in paths]
    with Adapter(paths[0]) as a, Adapter(paths[1]) as b, screen.progress() as bar:
        types, modules = likenesses(a, b, _progress_callback(bar, "modules"))
        view = AdapterDiff.of((a, cards[0]), (b, cards[1]), types, modules)
    screen.answer("adapters diff", view)


@app.command(epilog=_BLEND)
@with_output
def blend(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help=_NAME)],
    out: Out,
    weights: Annotated[
        str | None,
        typer.Option(metavar="W,W...", help="One weight per adapter; by default, equal weights that add up to 1."),
    ] = None,
    method: Annotated[str, typer.Option(metavar="KIND", help=_METHODS)] = "sum",
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of the new adapter; by default, the parents' largest.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries to keep, for methods that drop some; 0.5 by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the method's random choices.")] = 0,
    any_base: AnyBase = False,
) -> None:
    """Combine adapters of one base model into a new one by blending weight updates, not LoRA factors."""
    from agentlab.lora.catalogue import find
    from agentlab.lora.products import BlendResult
    from agentlab.lora.reading import Adapter
    from agentlab.lora.recipe import blend as combined
    from agentlab.lora.recipe import plan

    from .launch import surroundings

    screen = screen_of(ctx)
    workspace = surroundings(screen).workspace
    paths = [find(from_here(name), workspace) for name in names]
    with ExitStack() as stack:
        parents = [stack.enter_context(Adapter(path)) for path in paths]
        recipe = plan(parents, method, weights=_numbers(weights), rank=rank, density=density, seed=seed)
        bar = stack.enter_context(screen.progress())
        child = combined(parents, recipe, Path.cwd() / out, _progress_callback(bar, "modules"), any_base=any_base)
        result = BlendResult.of(parents, child)
    screen.answer("adapters blend", result)


@app.command(epilog=_MERGE)
@with_output
def merge(
    ctx: typer.Context,
    name: Name,
    out: Out,
    base: Base = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="KIND", help="float32 or bfloat16; the base model's own by default.")
    ] = None,
    any_base: AnyBase = False,
) -> None:
    """Merge an adapter into its base model: a new checkpoint, compared with the base plus the adapter."""
    from agentlab.lora.catalogue import find
    from agentlab.lora.reading import Adapter
    from agentlab.models.importer import as_dtype
    from agentlab.train.adapter_base import base_of
    from agentlab.train.merge import merge as merged

    from .launch import surroundings

    screen = screen_of(ctx)
    workspace, kind = surroundings(screen).workspace, as_dtype(dtype) if dtype else None
    path = find(from_here(name), workspace)
    model = base_of(path, from_here(base) if base else None, workspace)
    screen.say(f"merging {path.name} into {model}")
    with Adapter(path) as adapter, screen.progress() as bar:
        result = merged(adapter, model, Path.cwd() / out, kind, _progress_callback(bar, "merging"), any_base=any_base)
    screen.answer("adapters merge", result)


@app.command(epilog=_EXPORT)
@with_output
def export(
    ctx: typer.Context,
    name: Name,
    format_: Annotated[str, typer.Option("--format", metavar="KIND", help="gguf (llama.cpp) or peft.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="The file or folder to create; it must not exist.")],
    base: Base = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="KIND", help="peft: float32 (default), bfloat16 or float16.")
    ] = None,
    any_base: AnyBase = False,
) -> None:
    """Export an adapter for llama.cpp, or as a plain PEFT folder with one rank and scale for all modules."""
    from agentlab.lora.catalogue import find

    from .launch import surroundings

    screen = screen_of(ctx)
    workspace = surroundings(screen).workspace
    if format_ not in _FORMATS:
        raise UnknownNameError("format", format_, _FORMATS)
    for flag, is_given, owner in (
        ("--dtype", dtype is not None, "peft"),
        ("--base", base is not None, "gguf"),
        ("--any-base", any_base, "gguf"),
    ):
        if is_given and format_ != owner:
            raise UsageError(f"{flag} works only with --format {owner}.", hint=f"Remove {flag}.")
    path, target = find(from_here(name), workspace), Path.cwd() / out
    if format_ == "peft":
        _export_peft(screen, path, target, dtype or "float32")
    else:
        from agentlab.train.adapter_base import base_of

        model = base_of(path, from_here(base) if base else None, workspace)
        _export_gguf(screen, path, target, model, any_base=any_base)


def _export_peft(screen: "Screen", path: Path, target: Path, dtype: str) -> None:
    from agentlab.lora.exporting import export_peft
    from agentlab.lora.products import ExportResult
    from agentlab.lora.reading import Adapter

    with Adapter(path) as adapter, screen.progress() as bar:
        export_peft(adapter, target, dtype, _progress_callback(bar, "modules"))
    with Adapter(target) as copy:
        screen.answer("adapters export", ExportResult.of_peft(copy))


def _export_gguf(screen: "Screen", path: Path, target: Path, base: Path, *, any_base: bool) -> None:
    from agentlab.lora.exporting import gguf_base
    from agentlab.lora.gguf_export import export_gguf
    from agentlab.lora.products import ExportResult
    from agentlab.lora.reading import Adapter
    from agentlab.train.adapter_base import same_base

    with Adapter(path) as adapter, screen.progress():
        shape = gguf_base(base)
        if base.is_dir():  # a GGUF file has no fingerprint that cards know
            same_base(path, base, any_base=any_base)
        export_gguf(adapter, target, shape)
    screen.answer("adapters export", ExportResult.of_gguf(target))


def _numbers(text: str | None) -> list[float] | None:
    """`0.6,0.4` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of numbers.", hint="Write --weights 0.6,0.4") from error
