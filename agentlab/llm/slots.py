"""How many calls run at a time: first come, first served, with a limit that may change while calls wait."""

import asyncio
from collections import OrderedDict


class Slots:
    """For one event loop. A slot is handed over by who leaves, so nobody overtakes and no wake-up is lost."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.in_use = 0

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

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
        if self.in_use < self._limit and not self._waiting:
            self.in_use += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free()  # the slot arrived together with the cancellation
            else:
                self._waiting.pop(turn, None)  # or was skipped already
            raise

    def free(self) -> None:
        """Give a taken slot back."""
        self.in_use -= 1
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting and self.in_use < self._limit:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                self.in_use += 1
                turn.set_result(None)
