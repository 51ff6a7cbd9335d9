"""A circuit breaker: a model that keeps failing is left alone for a while, then tried with one call. Pure in time."""

from collections import deque
from dataclasses import dataclass

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
    """Closed: calls go through. Open: none should. Half-open: one may, the probe, and its end decides."""

    def __init__(self) -> None:
        self._results: deque[tuple[float, bool]] = deque(maxlen=_KEPT)  # (seconds, failed)
        self._unreachable = 0  # failed connections in a row
        self._until: float | None = None  # end of the pause; None: closed
        self._pause = SHORTEST
        self._era = 0
        self.probing = False

    def state(self, now: float) -> str:
        """closed, open or half-open."""
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
