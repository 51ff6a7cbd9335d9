"""How many retries an outage may cause: at most a fifth more calls than were asked for, lest retries make it worse."""

_PRICE = 5  # first requests that pay for one retry
_FIRST, _MOST = 3, 20  # retries that are free at the start, and that can be saved up


class RetryBudget:
    """One per process. Counts in fifths of a retry."""

    def __init__(self) -> None:
        self._saved = _FIRST * _PRICE

    def deposit(self) -> None:
        """A first request was sent."""
        self._saved = min(_MOST * _PRICE, self._saved + 1)

    def allows(self) -> bool:
        """Whether a retry may be sent now; if so, it is paid."""
        if self._saved < _PRICE:
            return False
        self._saved -= _PRICE
        return True
