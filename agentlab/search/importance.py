"""Which searched parameter moved the value. Pure: a history in, shares out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentlab.search.history import finished_trials, value_of
from agentlab.search.parameters import Parameter
from agentlab.search.space import SearchSpace
from agentlab.search.types import Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MIN_TRIALS = 12  # below this a parabola explains almost anything
_CHANCE = 0.05  # at most this often a parameter stands out although none moves the value
_PULLED_IN = 20  # one value in so many is an outlier
_ALIKE = 1e-3  # columns that differ by less from those already chosen say nothing new
_SAME = 1e-9  # rounding


def importances(space: SearchSpace, history: Sequence[Trial]) -> dict[str, float]:
    """Share of each parameter that stands out in what they explain together; adds up to 1, largest first.

    Forward selection: the parameter that explains most of the value's variance comes first, then the one that
    explains most of the rest, until the next one explains no more than chance does (F test, Bonferroni). A parameter
    acts as a parabola over its scale, or as one mean per choice where the choices have no order. A conditional one is
    held at its middle value while it is inactive, as for the Gaussian process. The largest value (of each twenty) is
    pulled in to the next: one diverged trial would outweigh all others. Failed trials do not count. Parameters that
    always changed together get equal shares, as nobody can tell them apart: a few start points do that to switches.

    Empty with fewer than 12 finished trials, without variation, and when nothing stands out.

    What it cannot see: interactions; effects small beside the noise; and which of two parameters it was that mostly
    moved together, which is common where a search has settled early. The share is of these trials, not of the space.

    PED-ANOVA (arXiv 2304.10255), made for hundreds of trials, was tried first. In 20 trials over 18 parameters it
    never put a dominating switch in front, as a density over two choices can hardly diverge; shares of each parameter
    alone gave the largest of 18 about 0.4 on pure noise.
    """
    import numpy as np

    done = finished_trials(history)
    if len(done) < MIN_TRIALS:
        return {}
    points = [space.snap(trial.proposal.params, {})[0] for trial in done]
    columns = {}
    for name, spec in space.parameters.items():
        middle = spec.decode(0.5)
        columns[name] = _columns(spec, np.array([spec.encode(point.get(name, middle)) for point in points]))
    values = np.array([value_of(trial) for trial in done], dtype=np.float64)
    explained = _select(columns, _pulled_in(values))
    total = sum(explained.values())
    return {name: part / total for name, part in sorted(explained.items(), key=lambda pair: (-pair[1], pair[0]))}


def _columns(spec: Parameter, units: "Floats") -> "Floats":
    """(trials, columns), centred: indicators of unordered choices, else a line or a parabola over the unit scale."""
    import numpy as np

    seen = np.unique(units)
    if spec.type == "categorical" and not spec.is_ordered:
        columns = (units[:, None] == seen[1:]).astype(np.float64)
    else:
        columns = units[:, None] ** np.arange(1, min(len(seen), 3))
    centred: Floats = columns - columns.mean(axis=0)
    return centred


def _pulled_in(values: "Floats") -> "Floats":
    """The values around their mean, the largest of each twenty lowered to the next."""
    import numpy as np

    outliers = -(-len(values) // _PULLED_IN)
    lowered = np.minimum(values, np.sort(values)[-1 - outliers])
    centred: Floats = lowered - lowered.mean()
    return centred


@dataclass(frozen=True, slots=True, order=True)
class _Step:
    """A candidate of the selection; the smallest is the best."""

    chance: float  # of explaining as much although it moves nothing
    left: float  # variation that it does not explain
    name: str


def _select(columns: Mapping[str, "Floats"], values: "Floats") -> dict[str, float]:
    """Variation that each chosen parameter explains beyond those chosen before it; twins in these trials share it."""
    explained: dict[str, float] = {}
    residual, free = values, len(values) - 1
    while (variation := float(residual @ residual)) > 1e-12 * float(values @ values):
        bases = {name: basis for name, block in columns.items() if (basis := _basis(block)).shape[1]}
        steps = [_step(name, basis, residual, free) for name, basis in bases.items() if basis.shape[1] < free]
        best = min(steps, default=None)
        if best is None or best.chance * len(steps) > _CHANCE:
            break
        basis = bases[best.name]
        columns = {name: block - basis @ (basis.T @ block) for name, block in columns.items()}
        used_up = [step.name for step in steps if not _basis(columns[step.name]).shape[1]]
        twins = [step.name for step in steps if step.name in used_up and step.left < best.left + _SAME * variation]
        explained |= {name: (variation - best.left) / len(twins) for name in twins}
        residual, free = residual - basis @ (basis.T @ residual), free - basis.shape[1]
    return explained


def _basis(block: "Floats") -> "Floats":
    """Orthonormal columns that span the block, without directions in which it (almost) vanishes."""
    import numpy as np

    left_vectors, sizes, _ = np.linalg.svd(block, full_matrices=False)
    basis: Floats = left_vectors[:, sizes > _ALIKE]
    return basis


def _step(name: str, basis: "Floats", residual: "Floats", free: int) -> _Step:
    """What this parameter would explain, by the F test of its columns."""
    from scipy.stats import f

    used = basis.shape[1]
    variation = float(residual @ residual)
    part = min(float(((basis.T @ residual) ** 2).sum()), variation)
    ratio = (part / used) / (max(variation - part, 1e-12 * variation) / (free - used))
    return _Step(float(f.sf(ratio, used, free - used)), variation - part, name)
