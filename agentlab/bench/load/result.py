"""What was measured under load, as data. `tables` turns it into what a reader sees."""

from typing import Literal

from agentlab.bench.load.config import Mode
from agentlab.bench.load.schedule import Arrivals, load_label
from agentlab.runs.document import AnswerDocument

Counted = Literal["exact", "reported", "estimated"]
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
    """One load on one target. Latencies are those of whole answers alone; a failed request counts in the shares.

    Attributes:
        value: requests at a time (arrivals closed), or per second.
        requests: sent; `answered` of them whole, `failed` in an error, `cut` still open when the stage was over.
        seconds: from the first send to the last end.
        request_rate, token_rate: whole answers, and their tokens, per second.
        good: answers that met the objective; goodput of them per second. Without objective every answer is good.
        ttft, e2e: from the scheduled send to the first and to the last piece of content; in a closed loop, which has no
            schedule, from the sending.
        ttft_sent, e2e_sent: the same from the moment of sending.
        output: from the scheduled send to the first piece that is no reasoning; None where nothing was reasoned.
        tpot: (last piece - first piece) / (tokens - 1) of each request.
        itl: gaps between pieces of content; a piece holds `tokens_per_piece` tokens.
        slip: how late the client sent.
        in_flight: mean number of open requests.
        together: share of the gaps that are next to nothing: their pieces arrived with the one before.
        client_cpu: share of one core that this process used.
        client_lag: ms by which this process came late to its work, at the 99 % quantile; None: not measured.
        errors: requests by kind of error.
        ended: whole, by the time limit, with too many requests open, with a queue that kept growing, or out of budget.
        file: one JSON line per request, in the run folder.
        marks: why the figures may not be those of the target.
    """

    id: str
    target: str
    arrivals: Arrivals
    value: float
    requests: int
    answered: int
    failed: int
    cut: int
    seconds: float
    request_rate: float
    token_rate: float
    good: int
    good_share: float
    goodput: float
    ttft: Spread | None
    output: Spread | None
    ttft_sent: Spread | None
    tpot: Spread | None
    itl: Spread | None
    e2e: Spread | None
    e2e_sent: Spread | None
    slip: Spread
    in_flight: float
    input_tokens: float | None
    output_tokens: float | None
    counted: Counted
    tokens_per_piece: float | None
    cost_usd: float | None
    errors: dict[str, int]
    together: float | None = None
    client_cpu: float
    client_lag: float | None = None
    ended: Ended
    file: str
    marks: list[str]

    @property
    def label(self) -> str:
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

    target: str
    over: Literal["rate", "concurrency"]
    highest_good: float | None
    lowest_bad: float | None
    finished: bool


class LoadResult(AnswerDocument):
    """All stages, in the order in which they ran."""

    mode: Mode
    objective: str
    stages: list[StageRow]
    capacities: list[Capacity]
    ceiling: CeilingRow | None
    notes: list[str]
