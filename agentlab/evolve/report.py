"""The report of an evolution: the verdict, the sealed split, generations, children."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agentlab.evolve.result import NAMES, ChildRow, EvolveResult, GenerationRow, standing_table
from agentlab.runs.document import Block, Figure, Heading, Report, Table, Text, columns_of, table
from agentlab.runs.figures import COLOURS, MARKERS, SMALL, legend_below, new_figure, new_panels, svg, whole_numbers
from agentlab.runs.run import OpenRun
from agentlab.search.types import legend
from agentlab.study.calls import model_table
from agentlab.study.control import Pair
from agentlab.tasks.labelled import BESIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEST, _FITNESS, _LINEAGE = "plots/test.svg", "plots/fitness.svg", "plots/lineage.svg"


def evolve_report(run: OpenRun, result: EvolveResult, facts: Mapping[str, str]) -> Report:
    """Draw the figures into the run folder, and say what they show. `facts` name the model, the adapters, the data."""
    run.write_text(_TEST, test_bars(result))
    run.write_text(_FITNESS, fitness_by_generation(result))
    blocks: list[Block] = [
        standing_table(result),
        Figure(_TEST, "Accuracy on the sealed split, with 95% intervals, and on the train split"),
        Heading("Generations"),
        Figure(_FITNESS, "The best child and the mean of each generation, by fitness and by each of its terms"),
        generation_table(result),
    ]
    if result.pairs:
        blocks += [Heading("Pairs of searches"), pairs_table(result)]
    blocks.append(Heading("Children"))
    if any(child.parents for child in result.trials):
        run.write_text(_LINEAGE, lineage(result))
        blocks.append(Figure(_LINEAGE, "Lineage by generation and task term; the winner's ancestry is marked"))
    else:
        blocks.append(
            Text("The children were sampled from a fitted distribution or at random, so they have no lineage.")
        )
    starts, children = result.trials[: result.starts], result.trials[result.starts :]
    blocks += [child_table(result, rows) for rows in (starts, children) if rows]
    if result.models:
        blocks += [Heading("Language models"), model_table(result.models)]
    return Report(
        title=f"Evolve {facts['adapters']} of {facts['model']}",
        verdict=result.verdict,
        facts=facts,
        body=blocks,
        next_step=f"agentlab evolve export {run.id} --out adapters/evolved",
        caveats=result.remarks,
    )


def generation_table(result: EvolveResult) -> Table:
    """Each generation."""
    return table(
        result.generations,
        columns_of(GenerationRow, *GenerationRow.model_fields),
        "Means over the children that answered every train question: probability of the right answer, accuracy, "
        "Shapley value in the generation's vote, and distance from the answers of the nearest children. Fitness "
        "combines them in units of the first. Stopped: clearly worse than the best of parents, blend and base. "
        "Answers: cumulative",
    )


def pairs_table(result: EvolveResult) -> Table:
    """What each pair of searches came to."""
    pair_by_seed = {pair.seed: pair for pair in result.pairs_by.get(BESIDE, [])}
    return table(
        [p for p in result.pairs if p.agent is not None and p.control is not None],
        {
            "seed": lambda p: str(p.seed),
            "evolved": lambda p: f"{1 - (p.agent or 0.0):.1%}",
            "random search": lambda p: f"{1 - (p.control or 0.0):.1%}",
            "answers (both)": lambda p: "–" if p.spent is None else f"{p.spent[0]:,} / {p.spent[1]:,}",
            "difference": _better,
            f"difference, by {BESIDE}": lambda p: _better(pair_by_seed[p.seed]) if p.seed in pair_by_seed else "–",
        },
        "Accuracy of both winners on the sealed questions, by seed; differences in points",
    )


def _better(pair: Pair) -> str:
    return f"{100 * ((pair.control or 0.0) - (pair.agent or 0.0)):+.1f}"


def child_table(result: EvolveResult, rows: Sequence[ChildRow]) -> Table:
    """What was there before the search, or what it found, in their order."""
    before = "Starting points, shared by all searches. " if rows[0].id == result.trials[0].id else ""
    return table(
        rows,
        {
            **columns_of(ChildRow, "id", "generation"),
            "source": lambda c: c.source + (" (winner)" if c.id == result.winner else ""),
            **columns_of(ChildRow, "remark", "items", "task", "accuracy", "cooperation", "novelty", "fitness"),
        },
        f"{before}Columns as above. Source (how the child was made): {legend(c.source for c in rows)}",
    )


def test_bars(result: EvolveResult) -> str:
    """Each candidate's share of right answers."""
    standings = list(reversed(result.standings))
    figure, axes = new_figure(1.3 + 0.5 * len(standings))
    for position, standing in enumerate(standings):
        low, high = standing.test.value - standing.test.low, standing.test.high - standing.test.value
        colour = COLOURS[0] if standing is result.standings[0] else "0.45"
        axes.errorbar(standing.test.value, position, xerr=[[low], [high]], color=colour, marker="o", capsize=3, ls="")
        axes.plot(standing.train, position + 0.22, color=colour, marker="|", ms=9, ls="")
    axes.plot([], [], color="0.45", marker="o", ls="", label="sealed split")
    axes.plot([], [], color="0.45", marker="|", ms=9, ls="", label="train split")
    axes.set_yticks(range(len(standings)), [NAMES[standing.name] for standing in standings], fontsize=SMALL)
    axes.set(xlabel="accuracy", ylim=(-0.6, len(standings) - 0.4))
    legend_below(figure)
    return svg(figure)


def lineage(result: EvolveResult) -> str:
    """Children by generation and task, with lines to those they were bred from."""
    figure, axes = new_figure(4.4)
    rows = {c.id: c for c in result.trials if c.error is not None}
    x_positions: dict[str, float] = {}
    for generation in result.generations:
        members = [c.id for c in result.trials if c.generation == generation.number]
        x_positions |= {name: generation.number + 0.6 * n / len(members) - 0.3 for n, name in enumerate(members)}
    ancestors = _ancestors(rows, result.winner)
    for child in rows.values():
        for parent in (rows[name] for name in child.parents if name in rows):
            mine = child.id in ancestors and parent.id in ancestors
            ends = (x_positions[parent.id], x_positions[child.id]), (_task(parent), _task(child))
            axes.plot(*ends, color=COLOURS[1] if mine else "0.85", lw=1.8 if mine else 0.7, zorder=2 if mine else 1)
    for number, source in enumerate(dict.fromkeys(c.source for c in rows.values())):
        some = [c for c in rows.values() if c.source == source]
        look = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "ls": "", "ms": 5, "zorder": 3}
        axes.plot([x_positions[c.id] for c in some], [_task(c) for c in some], label=source, **look)  # type: ignore[arg-type] # as matplotlib takes them
    best = rows[result.winner]
    axes.plot(x_positions[best.id], _task(best), "o", ms=12, mfc="none", mec="black", ls="", label="winner", zorder=4)
    axes.set(xlabel="generation", ylabel="probability of the right answer")
    whole_numbers(axes)
    legend_below(figure)
    return svg(figure)


def _ancestors(rows: Mapping[str, ChildRow], name: str) -> set[str]:
    """The child and all that it comes from."""
    ancestors, waiting = set[str](), [name]
    while waiting:
        child_id = waiting.pop()
        if child_id in rows and child_id not in ancestors:
            ancestors.add(child_id)
            waiting += rows[child_id].parents
    return ancestors


def _task(child: ChildRow) -> float:
    return 1 - (child.error or 0.0)


def fitness_by_generation(result: EvolveResult) -> str:
    """A panel for fitness and one for each term: every child, the mean, the best."""
    figure, panels = new_panels(4, 9.6)
    for axes, name in zip(panels, ("fitness", "task", "cooperation", "novelty"), strict=True):
        _term(axes, result, name)
        axes.set(xlabel="generation", ylabel=name)
        whole_numbers(axes)
    legend_below(figure, panels[0])
    return svg(figure)


def _term(axes: "Axes", result: EvolveResult, name: str) -> None:
    points = [(c.generation, value) for c in result.trials if (value := _value(c, name)) is not None]
    if not points:
        return
    by_generation: dict[int, list[float]] = {}
    for generation, value in points:
        by_generation.setdefault(generation, []).append(value)
    axes.plot(*zip(*points, strict=True), ".", color="0.7", label="a child", ls="")
    means = sorted((n, sum(values) / len(values)) for n, values in by_generation.items())
    axes.plot(*zip(*means, strict=True), color=COLOURS[1], marker=MARKERS[1], ms=4, label="mean")
    best = sorted((n, max(values)) for n, values in by_generation.items())
    axes.plot(*zip(*best, strict=True), color=COLOURS[0], marker=MARKERS[0], ms=4, label="best")


def _value(child: ChildRow, name: str) -> float | None:
    value: float | None = _task(child) if name == "task" else getattr(child, name)
    return None if child.cooperation is None else value
