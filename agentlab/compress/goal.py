"""What a compression is for: one measure to improve, and bounds on others. Read from a sentence."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from agentlab.errors import UsageError

Measure = Literal["size", "speed", "loss", "kl"]
WORDS: Mapping[Measure, str] = {
    "size": "bytes of the file, as a share of the bfloat16 base",
    "speed": "tokens decoded a second, as a multiple of the source in the same runtime",
    "loss": "rise of perplexity on held-out text, in the runtime",
    "kl": "divergence from the base on held-out text, in the runtime, in nats a token",
}
_HIGHER = ("speed",)
_LONGEST = 300  # characters; the search for bounds takes the square of them
_BEYOND = 10.0  # what a recipe outside the bounds is worth at least: nothing inside them is worse
_ALIKE: Mapping[str, Measure] = {
    "size": "size", "bytes": "size", "smallest": "size", "small": "size", "edge": "size",
    "speed": "speed", "speedup": "speed", "fastest": "speed", "throughput": "speed", "latency": "speed",
    "loss": "loss", "accuracy loss": "loss", "quality loss": "loss", "perplexity": "loss",
    "kl": "kl", "divergence": "kl", "quality": "kl", "best": "kl", "accuracy": "kl",
}  # fmt: skip
_MASSES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|x|[kmg]i?b)?(?!\w|[.,]\d)"
_NAME = r"(?P<name>accuracy loss|quality loss|[a-z]+)"
_LESS, _MORE = r"<=?|less than|under|below|at most|within", r">=?|more than|over|above|at least"
_BOUND = re.compile(
    rf"(?:{_NAME}\s*)?(?P<sign>{_LESS}|{_MORE})\s*{_NUMBER}(?:\s+(?:of\s+)?{_NAME.replace('name', 'after')})?"
)
_SAYS_MORE = re.compile(rf"[\d<>=%]|\b(?:{_LESS}|{_MORE})\b")  # of a bound that was not understood
_EXAMPLES = '"smallest with loss < 2 %", "maximise speed with < 2 % loss", "minimise kl with size < 100 MB"'


@dataclass(frozen=True, slots=True)
class Bound:
    """A measure may be at most `limit`, or at least where more is better. That of size may be in bytes."""

    measure: Measure
    limit: float
    in_bytes: bool = False

    def __str__(self) -> str:
        shown = {"loss": f"{self.limit:.3g}", "kl": f"{self.limit:g}", "speed": f"{self.limit:g}x"}
        size = f"{self.limit / 1e6:g} MB" if self.in_bytes else f"{self.limit:.3g} of the bfloat16 base"
        value = f"{self.limit:.1%}" if self.measure == "loss" else shown.get(self.measure, size)
        return f"{self.measure} {'at least' if self.measure in _HIGHER else 'at most'} {value}"


@dataclass(frozen=True, slots=True)
class Goal:
    """The measure to improve, and what must hold meanwhile."""

    measure: Measure
    bounds: tuple[Bound, ...] = ()

    def __str__(self) -> str:
        verb = "most" if self.measure in _HIGHER else "least"
        return ", ".join([f"{verb} {self.measure}", *map(str, self.bounds)])

    def broken(self, measured: Mapping[Measure, float], size: int) -> list[str]:
        """Which bounds do not hold of what was measured; `size` in bytes."""
        return [str(bound) for bound in self.bounds if _excess(bound, measured, size) > 0]

    def worth(self, measured: Mapping[Measure, float], size: int) -> float:
        """One number for a recipe, lower is better: whoever breaks a bound is behind all who keep them."""
        excess = sum(max(0.0, _excess(bound, measured, size)) for bound in self.bounds)
        if excess:
            return _BEYOND + excess
        value = measured[self.measure]
        return min(_BEYOND, 1 / max(value, 1 / _BEYOND) if self.measure in _HIGHER else max(value, 0.0))


def _excess(bound: Bound, measured: Mapping[Measure, float], size: int) -> float:
    """By what share of the bound it is broken; not positive where it holds."""
    value = float(size) if bound.in_bytes else measured[bound.measure]
    share = (value - bound.limit) / max(abs(bound.limit), 1e-9)
    return -share if bound.measure in _HIGHER else share


def read_goal(text: str) -> Goal:
    """The goal that a sentence states.

    Raises:
        UsageError: no measure, or one that nobody knows.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"A goal of {len(text)} characters is too long.", hint=f"Say it like this: {_EXAMPLES}.")
    lower = " ".join(text.lower().replace("maximize", "maximise").replace("minimize", "minimise").split())
    bounds = list(_bounds(lower, text))
    rest = _BOUND.sub(lambda bound: f" {bound['name'] or ''} " if bound["unit"] in _MASSES else " ", lower)
    if _SAYS_MORE.search(rest):
        raise UsageError(f"A bound in {text!r} is not understood.", hint=f"Say it like this: {_EXAMPLES}.")
    named = [_ALIKE[word] for word in re.findall(r"[a-z]+", rest) if word in _ALIKE]
    if not named:
        raise UsageError(f"{text!r} names nothing to improve.", hint=f"Say it like this: {_EXAMPLES}.")
    return Goal(named[0], tuple(bounds))


def _bounds(lower: str, text: str) -> Iterator[Bound]:
    for match in _BOUND.finditer(lower):
        unit, value = match["unit"] or "", float(match["number"])
        names = ["size"] if unit in _MASSES else [match["after"], match["name"]]
        measure: Measure | None = next((_ALIKE[name] for name in names if name in _ALIKE), None)
        many = measure == "size" and unit not in _MASSES and value > (100 if unit == "%" else 1)  # of the bfloat16 base
        if measure is None or many or (unit == "x" and measure != "speed"):
            raise UsageError(f"{match.group(0)!r} in {text!r} is no bound.", hint=f"Say it like this: {_EXAMPLES}.")
        higher = re.fullmatch(_MORE, match["sign"]) is not None
        if higher != (measure in _HIGHER):
            raise UsageError(
                f"{match.group(0)!r} in {text!r} bounds {measure} on its good side.", hint="Turn the sign."
            )
        scale = 0.01 if unit == "%" else _MASSES.get(unit, 1.0)
        yield Bound(measure, value * scale, unit in _MASSES)
