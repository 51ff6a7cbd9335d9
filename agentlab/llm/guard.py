"""Whether a model may be asked now: its breaker and cool-down, and its provider's limits. Pure in time, less `Slots`.

Every method takes `now`, seconds of a monotonic clock. Waiting is the caller's: `delay`, `enter` without an await in
between, `leave` when the stream has ended, however it ended.
"""

import asyncio
import math
from collections import OrderedDict, deque
from dataclasses import dataclass

from agentlab.errors import AgentlabError, HostBusyError, LLMConnectionError, QuotaError, RateLimitedError
from agentlab.llm import policy
from agentlab.llm.provider_config import ProviderLimits

QUOTA_COOL_DOWN = 600.0  # seconds; credit does not come back by itself, but somebody may top it up
LONGEST_COOL_DOWN = 3600.0  # seconds; what a provider says is not believed without limit
# Of a token bucket:
BURST = 10.0  # seconds of the rate that may be used at once
_ROUNDING = 1e-9  # of the capacity: who waited as long as told is not sent back for a rounding error
# Of a circuit breaker:
WINDOW = 60.0  # seconds in which results count
FEWEST = 5  # results below which no share is judged
SHARE = 0.5  # of failures
IN_A_ROW = 3  # connections that failed one after another
SHORTEST, LONGEST = 5.0, 60.0  # seconds it stays open: doubling with every probe that fails
_KEPT = 100  # newest results; bounds memory and work, and is plenty for a share
_LOOK_AGAIN = 1.0  # seconds until a caller may ask whether the probe is back


@dataclass(frozen=True, slots=True)
class Pass:
    """A call on its way: `era` is the number of openings before it, so that late news can be told from fresh ones."""

    era: int
    probe: bool


class Breaker:
    """A circuit breaker: a model that keeps failing is left alone for a while, then tried with one call.

    Closed: calls go through. Open: none should. Half-open: one may, the probe, and its end decides.
    """

    def __init__(self) -> None:
        self._results: deque[tuple[float, bool]] = deque(maxlen=_KEPT)  # (seconds, failed)
        self._unreachable = 0  # failed connections in a row
        self._until: float | None = None  # end of the pause; None: closed
        self._pause = SHORTEST
        self._era = 0
        self.probing = False

    def state(self, now: float) -> str:
        if self._until is None:
            return "closed"
        return "half-open" if self.probing or now >= self._until else "open"

    def delay(self, now: float) -> float:
        """Seconds until a call is welcome."""
        if self._until is None:
            return 0.0
        return max(self._until - now, _LOOK_AGAIN if self.probing else 0.0)

    def enter(self) -> Pass:
        """Let a call through. Unless the breaker is closed the first is the probe, even before the pause is over."""
        probe = self._until is not None and not self.probing
        self.probing = self.probing or probe
        return Pass(self._era, probe)

    def leave(self, now: float, call: Pass, failed: bool | None, *, unreachable: bool = False) -> None:
        """The end of a call. `failed` None: nothing was learnt. `unreachable`: no connection came about."""
        if call.era != self._era:
            return  # it began before the breaker opened, which its kind brought about
        if call.probe:
            self.probing = False
        if failed is None:
            return
        if call.probe:
            self._decide(now, failed)
        elif self._until is None:
            self._count(now, failed, unreachable)

    def _decide(self, now: float, failed: bool) -> None:
        if failed:
            self._open(now, min(LONGEST, 2 * self._pause))
            return
        self._until, self._pause = None, SHORTEST
        self._results.clear()
        self._unreachable = 0

    def _count(self, now: float, failed: bool, unreachable: bool) -> None:
        self._results.append((now, failed))
        self._unreachable = self._unreachable + 1 if unreachable else 0
        if failed and (self._unreachable >= IN_A_ROW or self._mostly_failed(now)):
            self._open(now, SHORTEST)

    def _mostly_failed(self, now: float) -> bool:
        recent = [failed for at, failed in self._results if at > now - WINDOW]
        return len(recent) >= FEWEST and sum(recent) >= SHARE * len(recent)

    def _open(self, now: float, pause: float) -> None:
        self._until, self._pause = now + pause, pause
        self._era += 1


class Bucket:
    """A token bucket: so many units a minute, with a burst of ten seconds' worth.

    In any span of T seconds at most `capacity` + `rate` x T, and one larger request."""

    def __init__(self, per_minute: int) -> None:
        self.rate = per_minute / 60  # units a second
        self.capacity = max(1.0, self.rate * BURST)
        self._level = self.capacity
        self._at: float | None = None  # seconds; None until it is first looked at

    def delay(self, now: float, units: float) -> float:
        """Seconds until `units` may be used. More than the capacity may be used as soon as the bucket is full."""
        lacking = min(units, self.capacity) - self._refill(now)
        return lacking / self.rate if lacking > self.capacity * _ROUNDING else 0.0

    def take(self, now: float, units: float) -> None:
        """Use units; a debt is paid off before anyone else's turn. Negative: give back what was not used after all."""
        self._level = min(self.capacity, self._refill(now) - units)

    def _refill(self, now: float) -> float:
        if self._at is not None and now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now if self._at is None else max(now, self._at)
        return self._level


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call on its way: what was set aside for it."""

    entered: float
    tokens: int
    passed: Pass


class ProviderGuard:
    """What all models of a provider share: requests and tokens a minute, and how many calls may run at a time.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): a 429 halves `concurrency`, and a host that takes
    no more connections lowers it to those that it holds; as many answers in a row as are allowed at a time add one. A
    call that began before the last decrease does neither, or one burst would lower it many times over.
    """

    def __init__(self, limits: ProviderLimits) -> None:
        self._most = limits.concurrency
        self._requests = None if limits.rpm is None else Bucket(limits.rpm)
        self._tokens = None if limits.tpm is None else Bucket(limits.tpm)
        self._clean = 0  # answers since the limit last changed
        self._lowered = -math.inf
        self.concurrency = limits.concurrency

    def delay(self, now: float, tokens: int) -> float:
        """Seconds until a request of about `tokens` tokens, prompt and answer, fits into the limits."""
        requests = 0.0 if self._requests is None else self._requests.delay(now, 1)
        return requests if self._tokens is None else max(requests, self._tokens.delay(now, tokens))

    def enter(self, now: float, tokens: int) -> None:
        """Set a request and its tokens aside."""
        if self._requests is not None:
            self._requests.take(now, 1)
        if self._tokens is not None:
            self._tokens.take(now, tokens)

    def leave(self, now: float, ticket: Ticket, error: AgentlabError | None, tokens: int | None) -> None:
        """Correct the tokens by what was used (None: unknown, the estimate stays), and adapt the concurrency."""
        if self._tokens is not None and tokens is not None:
            self._tokens.take(now, tokens - ticket.tokens)
        if ticket.entered < self._lowered:
            return
        if isinstance(error, RateLimitedError | HostBusyError):
            connections = error.connections if isinstance(error, HostBusyError) else 0
            lower = min(self.concurrency - 1, connections or self.concurrency // 2)
            self.concurrency, self._clean, self._lowered = max(1, lower), 0, now
        elif error is None:
            self._clean += 1
            if self._clean >= self.concurrency:
                self.concurrency, self._clean = min(self._most, self.concurrency + 1), 0


class ModelGuard:
    """One per model and process.

    `probing_helps`: the latest `delay` came from an open breaker alone, and no probe is on its way.
    """

    def __init__(self, provider: ProviderGuard) -> None:
        self.provider = provider
        self.probing_helps = False
        self._breaker = Breaker()
        self._cool_until = -math.inf
        self._refusals = 0  # rate limits in a row
        self._disabled = False

    def delay(self, now: float, tokens: int) -> float:
        """Seconds until the model may be asked for about `tokens` tokens; infinite: not before a reload."""
        self.probing_helps = False
        if self._disabled:
            return math.inf
        limit_delay = max(0.0, self._cool_until - now, self.provider.delay(now, tokens))
        breaker_delay = self._breaker.delay(now)
        self.probing_helps = breaker_delay > 0 and limit_delay == 0 and not self._breaker.probing
        return max(limit_delay, breaker_delay)

    def enter(self, now: float, tokens: int) -> Ticket:
        """Set aside what the call needs; never refused, so that an open breaker can be probed early."""
        self.provider.enter(now, tokens)
        return Ticket(now, tokens, self._breaker.enter())

    def leave(self, now: float, ticket: Ticket, error: AgentlabError | None, tokens: int | None) -> None:
        """The end of the stream: what it says of the model. Each ticket leaves once.

        `error` is None for an answer; LLMCancelledError, of a caller that gave up, says nothing of the model. `tokens`
        are those of prompt and answer; None is unknown.
        """
        self.provider.leave(now, ticket, error, tokens)
        if error is None:
            self._refusals = 0
            self._breaker.leave(now, ticket.passed, False)
            return
        rule = policy.rule_for(error)
        unreachable = isinstance(error, LLMConnectionError)
        self._breaker.leave(now, ticket.passed, True if rule.trips else None, unreachable=unreachable)
        self._disabled = self._disabled or rule.disables
        if rule.cools:
            self._cool_until = max(self._cool_until, now + self._cool_down(error))

    def state(self, now: float) -> str:
        """closed, open, half-open, cooling or disabled."""
        if self._disabled:
            return "disabled"
        state = self._breaker.state(now)
        return "cooling" if state == "closed" and now < self._cool_until else state

    def _cool_down(self, error: AgentlabError) -> float:
        if isinstance(error, QuotaError):
            return QUOTA_COOL_DOWN
        self._refusals += 1
        retry_after = error.retry_after if isinstance(error, RateLimitedError) else None
        if retry_after is None or math.isnan(retry_after):
            return policy.backoff(self._refusals, 1.0)
        return min(max(0.0, retry_after), LONGEST_COOL_DOWN)


class Slots:
    """Calls at a time in one event loop. A slot is handed over by who leaves: nobody overtakes, no wake-up is lost."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # calls in the queue
        self.in_use = 0

    @property
    def limit(self) -> int:
        """Calls at a time. A lower one takes no slot back: it holds as soon as enough calls have left."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._hand_over()

    async def take(self) -> None:
        """Wait for a slot. Cancelling gives up the place in the queue."""
        if self.in_use < self._limit and not self.waiting:
            self.in_use += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free()  # the slot arrived together with the cancellation
            else:
                self.waiting.pop(turn, None)  # or was skipped already
            raise

    def free(self) -> None:
        self.in_use -= 1
        self._hand_over()

    def _hand_over(self) -> None:
        while self.waiting and self.in_use < self._limit:
            turn, _ = self.waiting.popitem(last=False)
            if not turn.done():
                self.in_use += 1
                turn.set_result(None)
