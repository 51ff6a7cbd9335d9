"""What an adapter does where, and how two of them differ: figures of whole adapters from those of their modules."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from agentlab.lora import geometry
from agentlab.lora.catalogue import module_type
from agentlab.lora.reading import Adapter, each_module, union
from agentlab.lora.spectrum import singular_values

FIRST = (1, 4, 8)  # so many directions

Tell = Callable[[int, int, str], None]  # modules done, modules in all, the module at hand


@dataclass(frozen=True, slots=True)
class AdapterPart:
    """Modules of one type, or all of them; norms are Frobenius norms."""

    name: str
    count: int
    mean: float
    least: float
    most: float
    energy: tuple[float, ...]  # share of the squared norm in the strongest `FIRST` directions of every module
    directions: int  # the largest rank


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two adapters, or parts of them, as vectors."""

    name: str
    count: int
    first: float
    second: float
    cosine: float
    distance: float  # over the root mean square of both norms: of one norm, sqrt(2) is unrelated, 2 opposite


def anatomy(adapter: Adapter, tell: Tell) -> tuple[AdapterPart, ...]:
    """One part per module type, in the adapter's order, and last the whole, named `all`.

    Raises:
        ModelFileError: a number is infinite or none.
    """
    spectra: dict[str, list[Sequence[float]]] = defaultdict(list)
    for done, name in enumerate(adapter.modules):
        tell(done, len(adapter.modules), name)
        spectra[module_type(name)].append(singular_values(adapter.delta(name)).tolist())
    parts = [_part(name, values) for name, values in spectra.items()]
    return (*parts, _part("all", list(chain.from_iterable(spectra.values()))))


def likenesses(first: Adapter, second: Adapter, tell: Tell) -> tuple[tuple[Likeness, ...], tuple[Likeness, ...]]:
    """(one per module type and last `all`, one per module). Modules that only one of them changes count as well.

    Raises:
        DataError: a module has different shapes in both.
        ModelFileError: a number is infinite or none.
    """
    total = len(union((first, second), any_base=True))
    modules, types = [], defaultdict(list)
    for done, (name, (a, b)) in enumerate(each_module((first, second), any_base=True)):
        tell(done, total, name)
        figures = (geometry.norm(a), geometry.norm(b), geometry.inner(a, b), geometry.distance(a, b))
        modules.append(_likeness(name, [figures]))
        types[module_type(name)].append(figures)
    by_type = [_likeness(name, type_figures) for name, type_figures in types.items()]
    return (*by_type, _likeness("all", list(chain.from_iterable(types.values())))), tuple(modules)


def _part(name: str, spectra: Sequence[Sequence[float]]) -> AdapterPart:
    norms = [_length(values) for values in spectra]
    total = math.fsum(norm**2 for norm in norms)
    energy = tuple(_leading_energy(spectra, count) / total if total > 0 else 0.0 for count in FIRST)
    mean = math.fsum(norms) / len(norms)
    return AdapterPart(name, len(norms), mean, min(norms), max(norms), energy, max(len(values) for values in spectra))


def _leading_energy(spectra: Sequence[Sequence[float]], count: int) -> float:
    return math.fsum(value**2 for value in chain.from_iterable(values[:count] for values in spectra))


def _likeness(name: str, figures: Sequence[tuple[float, float, float, float]]) -> Likeness:
    firsts, seconds, inners, distances = zip(*figures, strict=True)
    first, second = _length(firsts), _length(seconds)
    both, middle = first * second, math.sqrt((first**2 + second**2) / 2)
    cosine = math.fsum(inners) / both if both > 0 else 0.0
    distance = _length(distances) / middle if middle > 0 else 0.0
    return Likeness(name, len(figures), first, second, cosine, distance)


def _length(values: Iterable[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values))
