"""What is remembered of calls between processes, and what the router asks of it."""

from typing import Protocol

from agentlab.llm.ledger.arm import Arm, AttemptSample, CachedAnswer


class Ledger(Protocol):
    """Remembers attempts, what is known of the models, spend, and answers; never a prompt.

    It never raises: a call must not fail because nobody could take notes.
    """

    def record(self, sample: AttemptSample) -> None:
        """Take note of an attempt; returns at once. One that is not sound (`AttemptSample.is_sound`) is ignored."""

    def quality(self, at: float, task: str, model: str, value: float) -> None:
        """Take note that an answer was `value` good, 0 to 1, as judged at `at` in UNIX seconds."""

    def arm(self, task: str, model: str, now: float) -> Arm:
        """The evidence as it weighs at `now` in UNIX seconds: this process's at once, others' after a second."""

    def spent_since(self, when: float) -> float | None:
        """USD of all attempts since `when` in UNIX seconds, this process's at once. None: no cost is known.

        Unknown costs beside known ones count as nothing; without any attempt it is zero.
        """

    def answer(self, key: str) -> CachedAnswer | None:
        """What was remembered under the key, a SHA-256 of all that shapes the answer."""

    def remember(self, key: str, answer: CachedAnswer) -> None:
        """Keep an answer; one above 256 KiB is not kept, and old ones make room."""

    def close(self) -> None:
        """Write what waits, within two seconds. What is recorded later stays in memory."""
