"""What the gateway did, in Prometheus' text format (version 0.0.4). Names come from the config, so they are bounded."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Literal, get_args

from agentlab.llm.types import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OK = "ok"
STATES = ("closed", "open", "half-open", "cooling", "disabled")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # upper ends of the buckets

Endpoint = Literal["chat", "completions", "responses", "embeddings"]
_Labels = tuple[tuple[str, str], ...]


class GatewayMetrics:
    """Counts requests. Belongs to one event loop."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._requests: Counter[_Labels] = Counter()
        self._tokens: Counter[_Labels] = Counter()
        self._spend: dict[_Labels, float] = {}
        self._unpriced: Counter[_Labels] = Counter()
        self._buckets: dict[str, list[int]] = {endpoint: [0] * (len(_SECONDS) + 1) for endpoint in get_args(Endpoint)}
        self._seconds: dict[str, float] = dict.fromkeys(self._buckets, 0.0)

    def count(self, endpoint: Endpoint, model: str, outcome: str, seconds: float, usage: Usage | None = None) -> None:
        """One request that has ended. `outcome` is `OK` or the kind of the error; `usage` None if nothing was sent."""
        self._requests[("endpoint", endpoint), ("model", model), ("outcome", outcome)] += 1
        self._buckets[endpoint][bisect_left(_SECONDS, seconds)] += 1
        self._seconds[endpoint] += seconds
        if usage is None:
            return
        for direction, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            self._tokens[("model", model), ("direction", direction)] += tokens or 0
        if usage.cost_usd is None:
            self._unpriced[(("model", model),)] += 1
        else:
            self._spend[(("model", model),)] = self._spend.get((("model", model),), 0.0) + usage.cost_usd

    def text(self, states: Mapping[str, str]) -> str:
        """The page. `states` says per model how its circuit breaker stands: one of `STATES`."""
        return "".join(f"{line}\n" for line in self._lines(states))

    def _lines(self, states: Mapping[str, str]) -> Iterator[str]:
        standing: dict[_Labels, float] = {}
        for (model, now), state in product(states.items(), STATES):
            standing[("model", model), ("state", state)] = int(state == now)
        families: tuple[tuple[str, str, str, Mapping[_Labels, float]], ...] = (
            ("requests_in_flight", "gauge", "Requests in flight.", {(): self.in_flight}),
            ("requests_total", "counter", "Finished requests.", self._requests),
            ("tokens_total", "counter", "Input and output tokens, where providers report them.", self._tokens),
            ("spend_usd_total", "counter", "USD spent on answers whose cost is known.", self._spend),
            (
                "unpriced_requests_total",
                "counter",
                "Answers of unknown cost (not necessarily free).",
                self._unpriced,
            ),
            ("model_state", "gauge", "1 for the current state of a model's circuit breaker.", standing),
        )
        for name, kind, about, samples in families:
            yield from _family(f"agentlab_{name}", kind, about, samples)
        yield from self._histogram()

    def _histogram(self) -> Iterator[str]:
        name = "agentlab_request_seconds"
        yield from _head(name, "histogram", "Seconds from a request to the end of its answer.")
        for endpoint, buckets in self._buckets.items():
            below = 0
            for end, number in zip((*_SECONDS, float("inf")), buckets, strict=True):
                below += number
                upper = "+Inf" if end == float("inf") else f"{end:g}"
                yield _sample(f"{name}_bucket", (("endpoint", endpoint), ("le", upper)), below)
            yield _sample(f"{name}_sum", (("endpoint", endpoint),), self._seconds[endpoint])
            yield _sample(f"{name}_count", (("endpoint", endpoint),), below)


def _family(name: str, kind: str, about: str, samples: Mapping[_Labels, float]) -> Iterator[str]:
    yield from _head(name, kind, about)
    for labels, value in samples.items():
        yield _sample(name, labels, value)


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: _Labels, value: float) -> str:
    listed = ",".join(f'{label}="{_escape_label(text)}"' for label, text in labels)
    return f"{name}{{{listed}}} {value!r}" if listed else f"{name} {value!r}"


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
