"""Blending adapter folders: which operator, with which settings, and the card that says so."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when adapters are blended

from agentlab import __version__
from agentlab.errors import UsageError
from agentlab.lora.adapter_profile import Tell
from agentlab.lora.blend import BlendRecipe, Truncated, check_rank, kept_energy
from agentlab.lora.card import CARD_FILE, Card, content_hash, read_card
from agentlab.lora.delta import LoraDelta, zero
from agentlab.lora.operators import OPERATORS
from agentlab.lora.reading import Adapter, total_rank, union
from agentlab.lora.settings import MOST_RANK
from agentlab.lora.writing import derive
from agentlab.runs.atomic import write_json

_DENSITY = 0.5


@dataclass(frozen=True, slots=True)
class Blended:
    """The child's folder, and the share of energy that fitted into its rank, for the whole and by module."""

    path: Path
    recipe: BlendRecipe
    kept: float
    modules: dict[str, float]


def plan(
    parents: Sequence[Adapter],
    method: str,
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
    step: float | None = None,
) -> BlendRecipe:
    """Fill in what was left open, and refuse what cannot be: equal weights, the parents' largest rank, density 0.5.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: a number is out of range, or belongs to another method.
        DataError: a module has different shapes in two parents.
    """
    operator = OPERATORS.load(method)
    if operator.alone != (step is not None) or (operator.alone and len(parents) != 1):
        raise UsageError(f"{method} takes {'one adapter and a step' if operator.alone else 'no step'}.")
    if len(parents) < 2 and not operator.alone:
        raise UsageError("A blend needs at least two adapters.", hint="Pass two or more, separated by spaces.")
    shares = tuple(weights) if weights is not None else (1 / len(parents),) * len(parents)
    _check_weights(method, shares, len(parents), pair=operator.pair)
    if density is not None and not operator.thins:
        thinning = [name for name in OPERATORS.table if OPERATORS.load(name).thins]
        raise UsageError(f"{method} does not use a density.", hint=f"Only {' and '.join(thinning)} use it.")
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"A density of {density} is outside the range 0 to 1.", hint="0.5 keeps half of the entries.")
    if rank is not None and operator.adds_ranks:
        raise UsageError(
            "The rank of a concatenation is the sum of its parents' ranks.", hint="To set the rank, use --method sum."
        )
    modules = chain.from_iterable(parent.modules.values() for parent in parents)
    asked_rank = max(module.rank for module in modules) if rank is None else rank
    child_rank = total_rank(parents) if operator.adds_ranks else asked_rank
    check_rank(child_rank)
    if child_rank > MOST_RANK:
        raise UsageError(f"A rank of {child_rank} exceeds the limit of {MOST_RANK}.")
    return BlendRecipe(method, shares, child_rank, (density or _DENSITY) if operator.thins else None, seed, step)


def blend(
    parents: Sequence[Adapter],
    recipe: BlendRecipe,
    out: Path,
    tell: Tell,
    *,
    any_base: bool = False,
    extra_fields: Mapping[str, Any] | None = None,
) -> Blended:
    """Write the child of some adapters, one per weight, with its card, whole or not at all. `any_base`: as in `union`.

    Raises:
        UsageError: the parents belong to different base models, or `out` exists.
        DataError: shapes differ, or numbers overflow.
        ModelFileError: a parent is damaged.
        StorageError: the disk is full or not ours.
    """
    same = same_base(parents, any_base=any_base)
    total = len(union(parents, any_base=same))
    names, parts = list[str](), list[Truncated]()

    def operator(module: str, deltas: list[LoraDelta]) -> LoraDelta:
        tell(len(parts), total, module)
        part = combine(recipe, module, deltas)
        names.append(module)
        parts.append(replace(part, delta=zero(part.delta.shape)))  # its figures alone
        return part.delta

    def finish(folder: Path) -> None:
        settings = {key: value for key, value in asdict(recipe).items() if key != "weights" and value is not None}
        facts = {**settings, "kept": kept_energy(parts)}
        write_json(folder / CARD_FILE, card_of(out.name, parents, recipe.weights, facts, **(extra_fields or {})))

    derive(parents, out, recipe.rank, operator, any_base=same, finish=finish)
    kept_by_module = {name: part.kept_share for name, part in zip(names, parts, strict=True)}
    return Blended(out, recipe, kept_energy(parts), kept_by_module)


def combine(recipe: BlendRecipe, module: str, deltas: Sequence[LoraDelta]) -> Truncated:
    """One module of the child. Pure: the draws follow from the seed and the module's name."""
    digest = hashlib.sha256(f"{recipe.seed}:{module}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return OPERATORS.load(recipe.method).combine(deltas, recipe, generator)


def _check_weights(method: str, weights: Sequence[float], count: int, *, pair: bool) -> None:
    if len(weights) != count or not all(math.isfinite(weight) for weight in weights):
        raise UsageError(
            f"{count} adapters need {count} finite weights, got {list(weights)}.",
            hint="Pass one number per adapter, in the same order: --weights 0.6,0.4",
        )
    if not pair:
        return
    if count != 2:
        raise UsageError(
            f"{method} combines two adapters, not {count}.",
            hint="Blend two of them, then blend the result with the next.",
        )
    if min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise UsageError(
            f"The weights of {method} must be non-negative and add up to 1, got {list(weights)}.",
            hint="For example: --weights 0.6,0.4",
        )


def same_base(parents: Sequence[Adapter], *, any_base: bool) -> bool:
    """Whether names of base models may differ: asked for, or the cards prove that it is one base model.

    Raises:
        UsageError: the cards prove that it is not.
    """
    prints = [read_card(parent.path).base.fingerprint for parent in parents]
    if any_base or None in prints:
        return any_base
    for parent, print_ in zip(parents, prints, strict=True):
        if print_ != prints[0]:
            raise UsageError(
                f"According to their cards, {parents[0].path} and {parent.path} were trained on different base models.",
                hint="To combine them anyway, add --any-base; their matrices must have the same shapes.",
            )
    return True


def _one_base(cards: Sequence[Card]) -> bool:
    """Whether all cards mean the same base model: by what it holds, or where nobody says that, by where it lies."""
    prints = {card.base.fingerprint for card in cards}
    return len({card.base for card in cards}) == 1 or (len(prints) == 1 and None not in prints)


def card_of(
    name: str,
    parents: Sequence[Adapter],
    weights: Sequence[float] | None,
    blend: Mapping[str, Any],
    **extra_fields: Any,
) -> dict[str, Any]:
    """Plain data for the card of a child. `weights`: one per parent, where they have one for all modules."""
    cards = [read_card(adapter.path) for adapter in parents]
    weight_entries = [{}] * len(parents) if weights is None else [{"weight": weight} for weight in weights]
    return {
        "name": name,
        "base": cards[0].base.model_dump(exclude_none=True) if _one_base(cards) else {},
        "parents": [
            {"name": parent.path.name, "sha256": content_hash(parent.path), **weight}
            for parent, weight in zip(parents, weight_entries, strict=True)
        ],
        "blend": dict(blend),
        **extra_fields,
        "versions": {"agentlab": __version__, "torch": torch.__version__},
    }
