"""A token bucket: so many units a minute, with a burst of ten seconds' worth. Pure in time."""

BURST = 10.0  # seconds of the rate that may be used at once
_ROUNDING = 1e-9  # of the capacity: who waited as long as told is not sent back for a rounding error


class Bucket:
    """What may be used now. In any span of T seconds at most `capacity` + `rate` x T, and one larger request."""

    def __init__(self, per_minute: int) -> None:
        self.rate = per_minute / 60  # units a second
        self.capacity = max(1.0, self.rate * BURST)
        self._level = self.capacity
        self._at: float | None = None  # seconds; None until it is first looked at

    def delay(self, now: float, units: float) -> float:
        """Seconds until `units` may be used. More than the capacity may be used as soon as the bucket is full."""
        lacking = min(units, self.capacity) - self._filled(now)
        return lacking / self.rate if lacking > self.capacity * _ROUNDING else 0.0

    def take(self, now: float, units: float) -> None:
        """Use units; a debt is paid off before anyone else's turn. Negative: give back what was not used after all."""
        self._level = min(self.capacity, self._filled(now) - units)

    def _filled(self, now: float) -> float:
        if self._at is not None and now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now if self._at is None else max(now, self._at)
        return self._level
