"""What `agentlab adapters list`, `show` and `diff` answer."""

import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain

from agentlab.lora.adapter_profile import FIRST, AdapterPart, Likeness
from agentlab.lora.card import Card
from agentlab.lora.catalogue import AdapterEntry, AdapterShape, shape_of
from agentlab.lora.exporting import ServePlan
from agentlab.lora.reading import Adapter
from agentlab.runs.document import AnswerDocument, Block, Code, Heading, Table, Text, number, table

_MOST_MODULES = 5  # the most different ones that are shown
_SHOWN = 80  # characters of a value beside another one


class AdapterLine(AnswerDocument):
    """A row of the list. A damaged adapter has its problem and no shape."""

    name: str
    path: str
    bytes: int
    made: str | None
    shape: AdapterShape | None
    base: str | None
    eval_loss: float | None
    problem: str | None

    @classmethod
    def of(cls, entry: AdapterEntry) -> "AdapterLine":
        return cls(
            name=entry.name,
            path=str(entry.path),
            bytes=entry.bytes,
            made=_when(entry.made),
            shape=entry.shape,
            base=entry.card.base.path or (entry.shape.base if entry.shape else None) or None,  # the card knows better
            eval_loss=entry.card.metrics.eval_loss,
            problem=entry.problem,
        )


class AdapterList(AnswerDocument):
    """All adapters of the workspace."""

    adapters: list[AdapterLine]

    @classmethod
    def of(cls, entries: Sequence[AdapterEntry]) -> "AdapterList":
        return cls(adapters=[AdapterLine.of(entry) for entry in entries])

    def blocks(self) -> list[Block]:
        if not self.adapters:
            return [Text("There are no adapters yet; train one with: agentlab train-persona")]
        rows = table(
            self.adapters,
            {
                "adapter": lambda line: line.name,
                "rank": lambda line: _range(line.shape.ranks) if line.shape else "damaged",
                "scale": lambda line: _range(line.shape.scales) if line.shape else None,
                "modules": lambda line: _count_and_targets(line.shape) if line.shape else None,
                "base": lambda line: line.base or None,
                "size": lambda line: f"{line.bytes / 1e6:.1f} MB",
                "held-out loss": lambda line: number(line.eval_loss, 3),
                "made": lambda line: line.made and line.made[:16].replace("T", " "),
            },
        )
        return [rows, *(Text(f"{line.name} is damaged: {line.problem}") for line in self.adapters if line.problem)]


class AdapterView(AnswerDocument):
    """One adapter: its settings, what it does where, where it comes from, and how it is served."""

    name: str
    path: str
    settings: dict[str, str]
    parts: list[AdapterPart]
    card: Card
    serve: list[str]
    remarks: list[str]

    @classmethod
    def of(cls, adapter: Adapter, parts: Sequence[AdapterPart], card: Card, plan: ServePlan) -> "AdapterView":
        return cls(
            name=adapter.path.name,
            path=str(adapter.path),
            settings=settings_of(adapter),
            parts=list(parts),
            card=card,
            serve=list(plan.flags),
            remarks=list(plan.problems),
        )

    def blocks(self) -> list[Block]:
        firsts = [f"first {count}" if count > 1 else "first" for count in FIRST]
        columns = ("module", "count", "mean norm", "least", "most", *firsts, "directions")
        rows = []
        for part in self.parts:
            norms, shares = map(number, (part.mean, part.least, part.most)), map("{:.1%}".format, part.energy)
            rows.append((part.name, f"{part.count}", *norms, *shares, f"{part.directions}"))
        caption = (
            "Frobenius norms of the change, and the share of its energy in the strongest directions of each module"
        )
        blocks: list[Block] = [
            Table(("setting", "value"), list(self.settings.items())),
            Heading("Change"),
            Table(columns, rows, caption=caption),
        ]
        if facts := self.card.facts():
            blocks += [Heading("Card"), Table(("key", "value"), list(facts.items()))]
        blocks += [Heading("Serving with vLLM"), Code(shlex.join(("vllm", "serve", "BASE", *self.serve)))]
        return [*blocks, *(Text(f"Warning: {remark}") for remark in self.remarks)]


class AdapterDiff(AnswerDocument):
    """Two adapters compared as what they do, and as how they were made."""

    first: str
    second: str
    types: list[Likeness]
    modules: list[Likeness]
    settings: dict[str, tuple[str, str]]
    card: dict[str, tuple[str, str]]

    @classmethod
    def of(
        cls,
        first: tuple[Adapter, Card],
        second: tuple[Adapter, Card],
        types: Sequence[Likeness],
        modules: Sequence[Likeness],
    ) -> "AdapterDiff":
        return cls(
            first=str(first[0].path),
            second=str(second[0].path),
            types=list(types),
            modules=sorted(modules, key=lambda likeness: -likeness.distance),
            settings=_differences(settings_of(first[0]), settings_of(second[0])),
            card=_differences(first[1].facts(), second[1].facts()),
        )

    def blocks(self) -> list[Block]:
        caption = (
            f"Distance: 0 for identical changes, {math.sqrt(2):.2f} for unrelated ones of equal norm, 2 "
            "for opposite ones"
        )
        blocks: list[Block] = [
            _likenesses(self.types, caption),
            Heading("Most different modules"),
            _likenesses(self.modules[:_MOST_MODULES], ""),
        ]
        for title, rows in (("Settings", self.settings), ("Cards", self.card)):
            if rows:
                cells = [(key, first[:_SHOWN], second[:_SHOWN]) for key, (first, second) in rows.items()]
                blocks += [Heading(title), Table(("key", "first", "second"), cells)]
        return blocks


def settings_of(adapter: Adapter) -> dict[str, str]:
    """The settings of an adapter for a reader."""
    settings, shape = adapter.settings, shape_of(adapter)
    name, revision = settings.base
    return {
        "base": f"{name or '–'}{f' at {revision}' if revision else ''}",
        "rank": _range(shape.ranks),
        "alpha": f"{settings.lora_alpha:g}{', with patterns' if settings.alpha_pattern else ''}",
        "scale": _range(shape.scales),
        "rank-stabilised": "yes" if settings.use_rslora else "no",
        "modules": _count_and_targets(shape),
        "parameters": str(sum(module.rank * (module.inputs + module.outputs) for module in adapter.modules.values())),
    }


def _when(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds is not None else None


def _range(bounds: tuple[float, float]) -> str:
    lowest, highest = bounds
    return f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"


def _count_and_targets(shape: AdapterShape) -> str:
    return f"{sum(shape.targets.values())}: {', '.join(shape.targets)}"


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {key: (first.get(key, "–"), second.get(key, "–")) for key in chain(first, second)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _likenesses(rows: Sequence[Likeness], caption: str) -> Table:
    return table(
        rows,
        {
            "module": lambda likeness: likeness.name,
            "count": lambda likeness: likeness.count,
            "norm (first)": lambda likeness: likeness.first,
            "norm (second)": lambda likeness: likeness.second,
            "cosine": lambda likeness: f"{likeness.cosine:.4f}",
            "distance": lambda likeness: f"{likeness.distance:.4f}",
        },
        caption,
    )
