"""How the choices of a labelled question stand, by the likelihood of their texts. Pure."""

import math
from typing import Literal, NamedTuple, get_args

Normalisation = Literal["mean", "sum", "byte"]  # of a text's log-probability: per token, as it is, per byte
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
DECIDES: Normalisation = "mean"  # whom fitness and votes go by; others stand beside it
_NEVER = -1e30  # a text that cannot be


class Scored(NamedTuple):
    """Of each choice: the log-probability (natural) of its text in sum, its tokens, and its bytes in UTF-8."""

    totals: tuple[float, ...]
    tokens: tuple[int, ...]
    bytes: tuple[int, ...]

    @property
    def finite(self) -> "Scored":
        """As JSON can hold it."""
        return self._replace(totals=tuple(total if math.isfinite(total) else _NEVER for total in self.totals))

    def scores(self, by: Normalisation = DECIDES) -> list[float]:
        """Normalised log-probabilities."""
        sizes = {"mean": self.tokens, "sum": (1,) * len(self.totals), "byte": self.bytes}[by]
        return [total / size for total, size in zip(self.totals, sizes, strict=True)]

    def shares(self, by: Normalisation = DECIDES) -> list[float]:
        scores = self.scores(by)
        weights = [math.exp(score - max(scores)) for score in scores]
        return [weight / sum(weights) for weight in weights]

    def likeliest_index(self, by: Normalisation = DECIDES) -> int:
        scores = self.scores(by)
        return scores.index(max(scores))
