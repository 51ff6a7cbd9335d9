"""A ledger that forgets when the process ends; the file's ledger uses it for what it knows right now."""

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from agentlab.llm.ledger.arm import Arm, AttemptSample, CachedAnswer, Quality, name_of

Key = tuple[str, str]  # task, model

MOST_ARMS = 4_096  # tasks and models may have names of strangers
_COSTS = 100_000  # attempts whose cost is remembered one by one
# Evidence is folded into an arm when somebody asks for it. What came before the last 2,000 calls of an arm would weigh
# less than a thousandth (half-life: 200 calls), so it need not be kept for that moment.
_WAITING = 2_000
MOST_BYTES = 256 << 10  # of one answer
_ROWS, _BYTES = 1_000, 16 << 20  # of all answers in memory

_JSON = TypeAdapter(CachedAnswer)


def encode_answer(answer: CachedAnswer) -> bytes | None:
    """An answer as JSON; None when it is not worth keeping: above 256 KiB, or not Unicode."""
    if len(answer.text) > MOST_BYTES:
        return None
    try:
        body = _JSON.dump_json(answer)
    except ValueError:
        return None
    return body if len(body) <= MOST_BYTES else None


def decode_answer(body: bytes) -> CachedAnswer | None:
    """Inverse of `encode_answer`; None when it is anything else."""
    try:
        return _JSON.validate_json(body)
    except ValueError:
        return None


class RecentAnswers:
    """The newest answers, at most 1,000 and 16 MiB."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> CachedAnswer | None:
        body = self._bodies.get(key)
        return None if body is None else decode_answer(body)

    def put(self, key: str, body: bytes) -> None:
        self._bytes += len(body) - len(self._bodies.pop(key, b""))
        self._bodies[key] = body
        while len(self._bodies) > _ROWS or self._bytes > _BYTES:
            self._bytes -= len(self._bodies.popitem(last=False)[1])


@dataclass(slots=True)
class LedgerSpending:
    """What attempts since `when` (UNIX seconds) cost, counted as they come."""

    when: float
    usd: float | None = None
    calls: int = 0

    def add(self, at: float, cost: float | None) -> None:
        if at >= self.when:
            self.calls += 1
            if cost is not None:
                self.usd = (self.usd or 0.0) + cost

    @property
    def total(self) -> float | None:
        """USD; None when there were attempts and the cost of none is known."""
        return self.usd if self.calls else 0.0


def fold_evidence(arm: Arm, evidence: Iterable[AttemptSample | Quality]) -> Arm:
    """An arm after more evidence, in its order."""
    for event in evidence:
        arm = arm.with_sample(event) if isinstance(event, AttemptSample) else arm.with_quality(event.at, event.value)
    return arm


class MemoryLedger:
    """Implements `Ledger` for one process; all of it is bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arms: OrderedDict[Key, Arm] = OrderedDict()  # the one that heard something last comes last
        self._waiting: dict[Key, deque[AttemptSample | Quality]] = {}
        self._costs: deque[tuple[float, float | None]] = deque(maxlen=_COSTS)
        self._spent = LedgerSpending(math.inf)
        self._answers = RecentAnswers()

    def record(self, sample: AttemptSample) -> None:
        if sample.is_sound():
            self.hear(sample.with_clean_names())

    def quality(self, at: float, task: str, model: str, value: float) -> None:
        verdict = Quality(at, name_of(task), name_of(model), value)
        if verdict.is_sound():
            self.hear(verdict)

    def arm(self, task: str, model: str, now: float) -> Arm:
        key = (name_of(task), name_of(model))
        with self._lock:
            arm = self._arms.get(key, Arm())
            waiting = self._waiting.pop(key, None)
            if waiting:
                arm = self._arms[key] = fold_evidence(arm, waiting)
        return arm.with_decay(now)

    def spent_since(self, when: float) -> float | None:
        """As of `Ledger`; of the last 100,000 attempts if this moment was not asked about before."""
        with self._lock:
            if when != self._spent.when:
                self._spent = LedgerSpending(when)
                for at, cost in self._costs:
                    self._spent.add(at, cost)
            return self._spent.total

    def answer(self, key: str) -> CachedAnswer | None:
        with self._lock:
            return self._answers.get(key)

    def remember(self, key: str, answer: CachedAnswer) -> None:
        """As of `Ledger`; at most 1,000 answers and 16 MiB."""
        body = encode_answer(answer)
        if body is not None:
            self.keep(key, body)

    def hear(self, event: AttemptSample | Quality) -> None:
        """`record` or `quality` of what is sound."""
        with self._lock:
            if isinstance(event, AttemptSample):
                self._costs.append((event.at, event.usage.cost_usd))
            self._add(event)

    def keep(self, key: str, body: bytes) -> None:
        with self._lock:
            self._answers.put(key, body)

    def close(self) -> None:
        """Nothing to do."""

    def rebase(
        self, arms: Mapping[Key, Arm], spending: LedgerSpending, evidence: Iterable[AttemptSample | Quality]
    ) -> None:
        """Stand on what a file knows, plus the evidence that it does not know yet."""
        with self._lock:
            self._arms = OrderedDict(sorted(arms.items(), key=lambda item: item[1].at))
            self._waiting = {}
            self._spent = spending
            for event in evidence:
                self._add(event)

    def _add(self, event: AttemptSample | Quality) -> None:
        key = (event.task, event.model)
        self._waiting.setdefault(key, deque(maxlen=_WAITING)).append(event)
        self._arms.setdefault(key, Arm())
        self._arms.move_to_end(key)
        while len(self._arms) > MOST_ARMS:
            self._waiting.pop(self._arms.popitem(last=False)[0], None)
        if isinstance(event, AttemptSample):
            self._spent.add(event.at, event.usage.cost_usd)
