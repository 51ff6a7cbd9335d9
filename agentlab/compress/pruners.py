"""Ways to set weights to zero. A pattern is the share of zeros, or (n, m): n of m neighbours are kept."""

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.quantizers import BLOCK, Curvature, work_through
from agentlab.errors import UsageError

Pattern = float | tuple[int, int]
PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}


def check_pattern(pattern: Pattern, inputs: int) -> None:
    """See that a layer with so many inputs can have it.

    Raises:
        UsageError: it cannot.
    """
    if isinstance(pattern, tuple):
        kept, of = pattern
        if not 0 < kept < of or BLOCK % of or inputs % of:
            raise UsageError(
                f"{kept} of {of} weights cannot be kept where a layer has {inputs} inputs.",
                hint="Use 2:4, 4:8, or a share such as 0.5.",
            )
    elif not 0 < pattern < 1:
        raise UsageError(f"{pattern} of the weights cannot be zero.", hint="Name a share such as 0.5.")


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """The matrix (outputs, inputs) without its smallest weights."""
    scores = weight.abs()
    if not isinstance(pattern, tuple):
        scores = scores.reshape(1, -1)
    return weight * kept(scores, pattern).reshape(weight.shape)


def wanda(weight: Tensor, diagonal: Tensor, pattern: Pattern) -> Tensor:
    """Without the weights that move an output least: by size, times that of the input (arXiv 2306.11695).

    Args:
        weight: float32 (outputs, inputs).
        diagonal: mean square of every input.
        pattern: of every output.
    """
    return weight * kept(weight.abs() * diagonal.sqrt(), pattern)


def sparsegpt(weight: Tensor, curvature: Curvature, pattern: Pattern) -> Tensor:
    """Without weights that others make good, which are changed for that (arXiv 2301.00774).

    Args:
        weight: float32 (outputs, inputs).
        curvature: of its inputs, in their own order where n of m are kept.
        pattern: a share counts in blocks of 128 inputs over all outputs.
    """
    left = weight.T[curvature.order].contiguous()
    result, mask = torch.empty_like(left), torch.empty_like(left, dtype=torch.bool)
    loss = curvature.factor.diagonal()[:, None]
    size = pattern[1] if isinstance(pattern, tuple) else BLOCK

    def choose(place: int, values: Tensor) -> Tensor:
        if place % size == 0:
            scores = (left[place : place + size] / loss[place : place + size]).square()
            chosen = kept(scores.T, pattern) if isinstance(pattern, tuple) else kept(scores.reshape(1, -1), pattern)
            mask[place : place + size] = chosen.T if isinstance(pattern, tuple) else chosen.reshape(scores.shape)
        result[place] = values * mask[place]
        return result[place]

    work_through(left, curvature.factor, choose)
    back = torch.empty_like(result)
    back[curvature.order] = result
    return back.T.contiguous()


def kept(scores: Tensor, pattern: Pattern) -> Tensor:
    """Where the largest scores of each row lie: bool of their shape."""
    if isinstance(pattern, tuple):
        groups = scores.reshape(-1, pattern[1])
        zeros = pattern[1] - pattern[0]
    else:
        groups, zeros = scores, round(pattern * scores.shape[1])
    mask = torch.ones_like(groups, dtype=torch.bool)
    mask.scatter_(1, groups.topk(zeros, 1, largest=False, sorted=False).indices, False)
    return mask.reshape(scores.shape)
