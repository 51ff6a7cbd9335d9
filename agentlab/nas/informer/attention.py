"""ProbSparse and full attention, and the projections around them.

ProbSparse (arXiv 2012.07436, section 3.1) finds the queries whose attention is far from uniform by looking at a few
sampled keys, gives full attention to those, and lets all others take the average they would have come close to.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch  # noqa: TID253 - network modules are only imported to build a network
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody uses
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.nas.informer.operations import Dropout

_BLOCK = 2**19  # scores a CPU computes at once: they stay in its cache, and scoring 512 long windows stays small
_BLOCK_ON_DEVICE = 2**28
_EVAL_SEED = 2012_07436  # scoring samples the same keys in every pass


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How an attention picks its queries; `factor` None is full attention. `dropout` drops weights of the full kind."""

    factor: int | None
    dropout: float


def sample_size(factor: int, length: int) -> int:
    """Sampled keys, or selected queries, for a length: factor * ceil(ln length), between 1 and the length."""
    return max(1, min(length, factor * math.ceil(math.log(length))))


def sparsity_scores(queries: Tensor, keys: Tensor, sample: Tensor) -> Tensor:
    """How far each query's attention is from uniform: largest sampled score minus (sum of them / number of keys).

    All scores are computed and the sampled ones picked, a block of windows at a time: at these lengths that is 2 to 14
    times faster than gathering a copy of the sampled keys per query, and nothing of it is kept for the gradient.
    `queries`: [batch, heads, queries, depth]; `keys`: [batch, heads, keys, depth]. `sample`: [queries, sampled keys],
    the key numbers each query looks at.
    """
    block_scores = []
    for some_queries, some_keys in _blocks(queries, keys):
        scores = torch.matmul(some_queries, some_keys.transpose(-2, -1))
        scores = scores.gather(-1, sample.expand(*scores.shape[:2], -1, -1))
        block_scores.append(scores.amax(-1) - scores.sum(-1) / keys.shape[-2])
    return torch.cat(block_scores)


def attend_sparsely(queries: Tensor, keys: Tensor, values: Tensor, top: Tensor, *, causal: bool) -> Tensor:
    """Full attention for the queries numbered `top` [batch, heads, u]; all others get the fill.

    The fill is the mean of all values, or with `causal` (self-attention of the decoder) their sum up to the query.
    Shapes as in `sparsity_scores`; the result is [batch, heads, queries, depth].
    """
    index = top.unsqueeze(-1).expand(-1, -1, -1, queries.shape[-1])
    picked = queries.gather(2, index) / math.sqrt(queries.shape[-1])
    if causal:
        future = torch.full((queries.shape[-2], keys.shape[-2]), -torch.inf, device=keys.device).triu(1)
        scores = torch.baddbmm(future[top].flatten(0, 1), picked.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
        scores = scores.view(*top.shape, -1)
        fill = values.cumsum(dim=-2)
    else:
        scores = torch.matmul(picked, keys.transpose(-2, -1))
        fill = values.mean(dim=-2, keepdim=True).expand(-1, -1, queries.shape[-2], -1)
    return fill.scatter(2, index, torch.matmul(scores.softmax(dim=-1), values))


def attend_fully(queries: Tensor, keys: Tensor, values: Tensor, dropout: Dropout, *, causal: bool) -> Tensor:
    """Softmax attention, with `causal` not to later steps. Shapes as in `sparsity_scores`.

    Torch's own kernel is the faster one unless it has to drop weights on a CPU.
    """
    rate = dropout.p if dropout.training else 0.0
    if rate == 0.0 or queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=rate, is_causal=causal)
    queries = queries / math.sqrt(queries.shape[-1])
    outputs = []
    for some_queries, some_keys, some_values in _blocks(queries, keys, values):
        scores = torch.matmul(some_queries, some_keys.transpose(-2, -1))
        if causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        outputs.append(torch.matmul(dropout(scores.softmax(dim=-1)), some_values))
    return torch.cat(outputs)


def _blocks(queries: Tensor, keys: Tensor, *further_tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same tensors cut into windows whose scores fit into a block."""
    limit = _BLOCK if queries.device.type == "cpu" else _BLOCK_ON_DEVICE
    windows = max(1, limit // (queries.shape[1] * queries.shape[2] * keys.shape[2]))
    return zip(*(torch.split(tensor, windows) for tensor in (queries, keys, *further_tensors)), strict=True)


class Attention(nn.Module):
    """Multi-head attention. `mix` flattens heads before steps, the order the published decoder was trained with."""

    def __init__(self, width: int, heads: int, sparsity: Sparsity, *, causal: bool = False, mix: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.sparsity = sparsity
        self.dropout = Dropout(sparsity.dropout)
        self.causal = causal
        self.mix = mix
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self._eval_samples: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Steps of x [batch, queries, width] look at memory [batch, keys, width]."""
        if x is memory:
            queries, keys, values = self._project(x, self.query, self.key, self.value)
        else:
            queries, (keys, values) = self._project(x, self.query)[0], self._project(memory, self.key, self.value)
        context = self._attend(queries, keys, values)
        if not self.mix:
            context = context.transpose(1, 2)
        result: Tensor = self.out(context.reshape(x.shape))
        return result

    def _project(self, source: Tensor, *maps: nn.Linear) -> tuple[Tensor, ...]:
        """All these maps of the source in one product, each as [batch, heads, steps, depth]."""
        weight, bias = torch.cat([linear.weight for linear in maps]), torch.cat([linear.bias for linear in maps])
        projected = F.linear(source, weight, bias).view(*source.shape[:2], len(maps), self.heads, -1)
        return torch.unbind(projected.permute(2, 0, 3, 1, 4).contiguous())

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        length, factor = queries.shape[-2], self.sparsity.factor
        picked = length if factor is None else sample_size(factor, length)
        if factor is None or picked >= length:
            return attend_fully(queries, keys, values, self.dropout, causal=self.causal)
        with torch.no_grad():
            sample = self._sample(length, keys.shape[-2], sample_size(factor, keys.shape[-2]), keys.device)
            top = sparsity_scores(queries, keys, sample).topk(picked, sorted=False).indices
        return attend_sparsely(queries, keys, values, top, causal=self.causal)

    def _sample(self, queries: int, keys: int, size: int, device: torch.device) -> Tensor:
        """Key numbers to look at, drawn on the CPU so that devices agree: fresh while training, fixed for scoring."""
        if self.training:
            return torch.randint(keys, (queries, size)).to(device)
        sample = self._eval_samples.get((queries, keys))
        if sample is None or sample.device != device:
            generator = torch.Generator().manual_seed(_EVAL_SEED)
            sample = torch.randint(keys, (queries, size), generator=generator).to(device)
            self._eval_samples[queries, keys] = sample
        return sample
