"""Children as adapter folders: one of a search, and one that is made at once of two parents."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import torch  # noqa: TID253 - reached lazily, when an adapter is written

from agentlab.errors import UsageError
from agentlab.evolve.children import Children
from agentlab.evolve.genome import Child, Coefficients
from agentlab.lora.adapter_profile import Tell
from agentlab.lora.blend import Truncated, concatenate, kept_energy
from agentlab.lora.card import CARD_FILE, read_card
from agentlab.lora.delta import LoraDelta
from agentlab.lora.mutation import rotate
from agentlab.lora.reading import Adapter, total_rank, union
from agentlab.lora.recipe import card_of, combine, plan, same_base
from agentlab.lora.writing import derive
from agentlab.runs.atomic import write_json
from agentlab.runs.document import AnswerDocument, Block, Text
from agentlab.search.types import Params
from agentlab.study.state import trial_id


class ExportedChild(AnswerDocument):
    """A child of a run as an adapter."""

    path: str
    child: str
    rank: int
    kept: float  # share of its energy that fitted into its rank
    start: str = ""  # what it is if it was there before the search; else empty

    def blocks(self) -> list[Block]:
        start = f"It is {self.start}, a starting point of the search" if self.start else ""
        remark = start or f"This rank keeps {self.kept:.2%} of its energy"
        return [Text(f"{self.child} was written to {self.path} as an adapter of rank {self.rank}. {remark}.")]


def export(
    genome: Coefficients,
    folders: Mapping[str, Path],
    child: str,
    params: Params,
    out: Path,
    tell: Tell,
    card_extra: Mapping[str, Any],
) -> ExportedChild:
    """Write a child of weights as the adapter that it is, exactly: ranks add. Its card says `card_extra` besides.

    Raises:
        UsageError: `out` is there.
        StorageError: the disk is full or not ours.
    """
    weights = genome.weights(params)
    with ExitStack() as stack:
        parents = [stack.enter_context(Adapter(folders[name])) for name in genome.parents]
        rank, names = total_rank(parents), list(weights)

        def operator(module: str, deltas: list[LoraDelta]) -> LoraDelta:
            tell(names.index(module), len(names), module)
            return concatenate(deltas, weights[module])

        blend = {"method": "coefficients", "rank": rank, "kept": 1.0, "weights": dict(params)}

        def finish(folder: Path) -> None:
            write_json(folder / CARD_FILE, {**card_of(out.name, parents, None, blend), **card_extra})

        derive(parents, out, rank, operator, any_base=True, finish=finish)
    return ExportedChild(path=str(out), child=child, rank=rank, kept=1.0)


def export_recipe(children: Children, child: Child, out: Path, card_extra: Mapping[str, Any]) -> ExportedChild:
    """Make a child of a recipe where it is to lie. Arguments and errors: see `export` and `Children.folder`."""
    children.make(child, out, card_extra)
    with Adapter(out) as adapter:
        rank = max(module.rank for module in adapter.modules.values())
    return ExportedChild(path=str(out), child=trial_id(child.number), rank=rank, kept=read_card(out).blend.kept or 0.0)


class Crossed(AnswerDocument):
    """A child that was made at once."""

    path: str
    parents: list[str]
    weights: list[float]
    rank: int
    kept: float
    modules: int
    mutated: int
    change: float  # of the modules that mutated, as a share of the norm of each, on average

    def blocks(self) -> list[Block]:
        shares_text = " and ".join(f"{w:.0%} of {name}" for name, w in zip(self.parents, self.weights, strict=True))
        mutated = f"{self.mutated} of {self.modules} modules mutated"
        change_text = f", each by {self.change:.2%} of its norm" if self.mutated else ""
        kept_text = f"rank {self.rank} keeps {self.kept:.2%} of their sum's energy"
        return [Text(f"{self.path}: {shares_text}; {kept_text}; {mutated}{change_text}.")]


def cross(folders: Sequence[Path], out: Path, alpha: float, rate: float, step: float, seed: int, tell: Tell) -> Crossed:
    """One crossover and mutation of two adapters, as the changes they make, and not as their factors.

    The child is the best approximation of the weighted sum at the larger rank of the two. A module mutates with a
    chance of `rate`: its singular vectors turn, so that it changes by `step` of its norm.

    Raises:
        UsageError: the parents belong to different bases, a number is out of range, or `out` is there.
        DataError: shapes differ.
    """
    if not 0 <= alpha <= 1 or not 0 <= rate <= 1 or not 0 < step <= 1:
        message = (
            f"--alpha and --mut must be 0 to 1, and --mut-std above 0 and at most 1; got {alpha:g}, {rate:g}, {step:g}."
        )
        raise UsageError(message, hint="For example --alpha 0.6 --mut 0.03 --mut-std 0.01.")
    parts, changes = list[Truncated](), list[float]()
    with ExitStack() as stack:
        parents = [stack.enter_context(Adapter(folder)) for folder in folders]
        one_base = same_base(parents, any_base=False)
        recipe = plan(parents, "sum", weights=(alpha, 1 - alpha), seed=seed)
        count = len(union(parents, any_base=one_base))

        def operator(module: str, deltas: list[LoraDelta]) -> LoraDelta:
            tell(len(parts), count, module)
            part = combine(recipe, module, deltas)
            digest = hashlib.sha256(f"mutation:{seed}:{module}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            parts.append(part)
            if part.delta.rank == 0 or float(torch.rand(1, generator=generator)) >= rate:
                return part.delta
            mutated = rotate(part.delta, step, generator)
            changes.append(mutated.change)
            return mutated.delta

        def finish(folder: Path) -> None:
            blend = {"method": "sum", "rank": recipe.rank, "seed": seed, "kept": kept_energy(parts)}
            mutation = {"rate": rate, "step": step, "modules": len(changes)}
            write_json(folder / CARD_FILE, card_of(out.name, parents, recipe.weights, blend, mutation=mutation))

        derive(parents, out, recipe.rank, operator, any_base=one_base, finish=finish)
    return Crossed(
        path=str(out),
        parents=[folder.name for folder in folders],
        weights=list(recipe.weights),
        rank=recipe.rank,
        kept=kept_energy(parts),
        modules=len(parts),
        mutated=len(changes),
        change=fmean(changes) if changes else 0.0,
    )
