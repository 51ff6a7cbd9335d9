"""The report of a compression: the winner, the front, every recipe, what it cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentlab.compress.result import TERMS, CompressModelResult, CompressResult, RecipeRow, row_table
from agentlab.runs.document import Block, Code, Figure, Heading, Report, Text, figure_or_dash, mebibytes, table
from agentlab.runs.figures import COLOURS, MARKERS, SMALL, legend_below, new_figure, svg
from agentlab.runs.run import OpenRun
from agentlab.search.types import legend
from agentlab.study.control import pair_table

_LEAST = 1e-5  # what a logarithmic axis shows of no divergence at all


def compress_report(run: OpenRun, result: CompressResult) -> Report:
    """Draw the fronts into the run folder, and say what they show."""
    bases, several = ", ".join(model.base for model in result.models), len(result.models) > 1
    blocks: list[Block] = []
    caveats = list(result.remarks)
    for number, model in enumerate(result.models):
        blocks += [Heading(model.base)] if several else []
        caveats += [f"{model.base}: {remark}" if several else remark for remark in model.remarks]
        blocks.append(row_table(model.best, model, result.goal))
        blocks += _details(run, model, result.goal, f"plots/front-{number}.svg" if number else "plots/front.svg")
    return Report(
        title=f"Compress {bases}: {result.goal}",
        verdict=[model.sentence for model in result.models] if several else [result.sentence],
        facts={"model": bases, "energy": f"{result.joules / 1e3:.1f} kJ, {result.grams:.2g} g of CO2"},
        body=[*blocks, Heading("Energy"), *_energy(result)],
        next_step=f"agentlab compress deploy {run.id}" if any(model.winner for model in result.models) else "",
        caveats=caveats,
    )


def _details(run: OpenRun, model: CompressModelResult, goal: str, plot: str) -> list[Block]:
    blocks: list[Block] = []
    other_title = "Other programs that read this format (not tested here):"
    for text, commands in (("Load the winner with:", model.loads[:1]), (other_title, model.loads[1:])):
        blocks += [Text(text), Code("\n".join(commands), command=True)] if commands else []
    if any(row.kl is not None for row in model.rows):
        run.write_text(plot, front_plot(model))
        blocks.append(
            Figure(plot, "Size and KL of every recipe, by family; the line is the Pareto front, labelled with speeds")
        )
    blocks += [_runtime(model), Heading("All recipes"), row_table(model.rows, model, goal)]
    if any(row.source not in ("portfolio", "memory") for row in model.rows):
        blocks.append(_proposals(model))
    if model.pairs:
        blocks += [Heading("With and without the agent"), pair_table(model.pairs, TERMS, "Hypervolume", "joules")]
    for title, advice in (("The agent's plan", model.plan), ("The agent's conclusions", model.reflection)):
        if advice is not None:
            blocks += [Heading(title), *advice.blocks()]
    return blocks


def _proposals(model: CompressModelResult) -> Block:
    columns: dict[str, Callable[[RecipeRow], str | float | None]] = {
        "": lambda row: row.id,
        "recipe": lambda row: row.recipe,
        "proposed by": lambda row: row.source,
        "reason": lambda row: row.why,
    }
    return table(model.rows, columns, f"Sources of the recipes: {legend(row.source for row in model.rows)}")


def _runtime(model: CompressModelResult) -> Block:
    columns: dict[str, Callable[[RecipeRow], str | float | None]] = {
        "": lambda row: row.id,
        "recipe": lambda row: row.recipe,
        "load, s": lambda row: figure_or_dash(row.load, ".2f"),
        "prefill, tokens/s": lambda row: figure_or_dash(row.prefill, ".0f"),
        "decode, tokens/s": lambda row: figure_or_dash(row.decode, ".1f"),
        "peak memory, MiB": lambda row: mebibytes(row.peak),
    }
    if any(row.gpu for row in model.best):
        columns["GPU busy"] = lambda row: figure_or_dash(row.gpu.get("busy"), ".0%")
        columns["watts"] = lambda row: figure_or_dash(row.gpu.get("watts"), ".0f")
    return table(model.best, columns, "The best recipes in their runtimes, each in its own process")


def _energy(result: CompressResult) -> list[Block]:
    cost = f"{result.joules / 1e3:.1f} kJ, {result.grams:.2g} g of CO2. Energy is {result.energy}."
    stages = sorted(result.stages.items(), key=lambda stage: -stage[1]["joules"])
    recipes = list[tuple[str, dict[str, Any]]]()
    for model in result.models:
        prefix = f"{model.base} " if len(result.models) > 1 else ""
        recipes += [(f"{prefix}{row.id}: {row.recipe}", row.model_dump()) for row in model.rows if row.seconds]
    return [
        Text(f"{result.seconds:.0f} s of work, {cost}"),
        _costs("stage", stages, "By stage; work shared by several recipes is counted once"),
        _costs("recipe", recipes, "By recipe, including measurement"),
    ]


def _costs(label: str, costs: Sequence[tuple[str, Mapping[str, Any]]], caption: str) -> Block:
    columns = {
        label: lambda cost: cost[0],
        "seconds": lambda cost: f"{cost[1]['seconds']:.1f}",
        "kJ": lambda cost: f"{cost[1]['joules'] / 1e3:.2f}",
        "g of CO2": lambda cost: f"{cost[1]['grams']:.2g}",
    }
    return table(costs, columns, caption)


def front_plot(model: CompressModelResult) -> str:
    """Bytes against KL in the runtime, by family, with the speed of what is on the front."""
    figure, axes = new_figure(4.4)
    points = {
        row.id: (row.share, max(row.kl, _LEAST)) for row in model.rows if row.share is not None and row.kl is not None
    }
    rows = [row for row in model.rows if row.id in points]
    for number, family in enumerate(dict.fromkeys(row.family for row in rows)):
        sizes, kls = zip(*(points[row.id] for row in rows if row.family == family), strict=True)
        axes.plot(sizes, kls, color=COLOURS[number], marker=MARKERS[number], ls="", label=family)
    if line := sorted(points[row.id] for row in rows if row.front):
        axes.step(*zip(*line, strict=True), where="post", color="0.6", lw=1, zorder=0)
    for row in rows:
        if row.front and row.speed is not None:
            axes.annotate(f"{row.speed:.2f}x", points[row.id], (5, 5), textcoords="offset points", fontsize=SMALL)
    if model.winner is not None:
        axes.plot(*points[model.winner], "o", ms=13, mfc="none", mec="black", ls="", label="winner")
    axes.axvline(model.source / model.dense, color="0.8", lw=1, ls="--", label="source file")
    axes.set(xlabel="size relative to the bfloat16 base", ylabel="KL from the base, nats per token", yscale="log")
    legend_below(figure)
    return svg(figure)
