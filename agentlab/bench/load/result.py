"""What was measured under load, as data. `tables` turns it into what a reader sees."""

from typing import Annotated, Literal

from agentlab.bench.load.config import Mode
from agentlab.bench.load.schedule import Arrivals, load_label
from agentlab.runs.document import AnswerDocument, Column, dollars

_UNITS = {"rate": "requests per second", "concurrency": "concurrent requests"}
Counted = Literal["exact", "reported", "estimated"]
# As a whole, by the time limit, with too many requests open, with a queue that kept growing, or out of budget.
Ended = Literal["whole", "time", "full", "saturated", "budget"]


class Spread(AnswerDocument):
    """Milliseconds of `n` requests (of `itl`: gaps). Percentiles interpolate linearly between order statistics.

    That is type 7 of Hyndman and Fan (1996), numpy's default. `low` and `high` bound them by a percentile bootstrap
    over requests, at 95 %; None where the requests are too few: 5 for p50, 100 for p99.
    """

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    p50_low: float | None = None
    p50_high: float | None = None
    p99_low: float | None = None
    p99_high: float | None = None


class StageRow(AnswerDocument):
    """One load on one target. Latencies are those of whole answers alone; a failed request counts in the shares."""

    id: str
    target: Annotated[str, Column("target")]
    arrivals: Arrivals
    value: float  # requests at a time (arrivals closed), or per second
    requests: int  # that were sent
    answered: int  # as a whole
    failed: int
    cut: int  # still open when the stage was over
    seconds: float  # from the first send to the last end
    request_rate: Annotated[float, Column("answers/s", ".4g", "Complete answers per second.")]
    token_rate: Annotated[float, Column("tokens/s", ".4g", "Tokens of complete answers per second.")]
    good: int  # answers that met the objective; without one, all of them
    good_share: Annotated[float, Column("good", ".0%")]
    goodput: float  # good answers per second
    ttft: Spread | None  # from the scheduled send (in a closed loop, the send) to the first piece of content
    output: Spread | None  # the same to the first piece that is no reasoning; None where nothing was reasoned
    ttft_sent: Spread | None  # from the send
    tpot: Spread | None  # (last piece - first piece) / (tokens - 1) of each request
    itl: Spread | None  # gaps between pieces of content
    e2e: Spread | None  # as `ttft`, to the last piece of content
    e2e_sent: Spread | None  # from the send
    slip: Spread  # how late the client sent
    in_flight: Annotated[float, Column("open", ".1f", "Mean number of concurrent requests.")]
    input_tokens: Annotated[float | None, Column("tokens in", ".1f", "Mean per request.")]
    output_tokens: Annotated[float | None, Column("tokens out", ".1f", "Mean per request.")]
    counted: Annotated[Counted, Column("counted")]
    tokens_per_piece: Annotated[float | None, Column("tokens per chunk", ".2f")]
    cost_usd: Annotated[float | None, Column("cost", dollars, missing="unknown")]
    errors: dict[str, int]  # requests by kind of error
    together: float | None = None  # share of the gaps that are next to nothing: their pieces arrived together
    client_cpu: Annotated[float, Column("client CPU", ".0%", "Share of one core that this process used.")]
    client_lag: float | None = None  # ms by which this process came late to its work, at the 99 % quantile
    ended: Ended
    file: str  # in the run folder: one JSON line per request
    marks: list[str]  # why the figures may not be those of the target

    @property
    def label(self) -> Annotated[str, Column("load")]:
        return load_label(self.arrivals, self.value)


class CeilingRow(AnswerDocument):
    """How fast this client is on this machine: requests per second against a mock server that answers at once.

    `short` with answers of one token, `long` with answers of `tokens`, as many as this run asks for. The server runs
    beside the client, so the client alone is faster.
    """

    short: float
    long: float
    tokens: int
    concurrency: int


class Capacity(AnswerDocument):
    """The end of a sweep: the highest load that met the objective (None: none did), and the lowest that did not."""

    target: Annotated[str, Column("target")]
    over: Annotated[Literal["rate", "concurrency"], Column("load in", _UNITS.__getitem__)]
    highest_good: Annotated[float | None, Column("highest load met", ".4g", missing="none")]
    lowest_bad: Annotated[float | None, Column("lowest load missed", ".4g", missing="none")]
    finished: Annotated[bool, Column("", lambda finished: "" if finished else "not finished")]


class LoadResult(AnswerDocument):
    """All stages, in the order in which they ran."""

    mode: Mode
    objective: str
    stages: list[StageRow]
    capacities: list[Capacity]
    ceiling: CeilingRow | None
    notes: list[str]
