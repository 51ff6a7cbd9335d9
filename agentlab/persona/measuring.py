"""How far the measuring of adapters is, and its end when somebody asks for it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from agentlab.persona.measure import Scores
from agentlab.runs.stop import StopFlag
from agentlab.train.conversations import Turn
from agentlab.train.masks import Example

T = TypeVar("T")


class Measuring:
    """Hears from a scorer what is done, tells it, and stops the scorer once that is asked for."""

    def __init__(self, tell: Callable[[str, int, int], object], stop: StopFlag) -> None:
        """`tell` is given the name of a part, how much of it is done, and how much there is to do."""
        self._tell, self._stop = tell, stop
        self._name, self._done, self._size = "", 0, 0

    def part(self, name: str, scores: Scores, measure: Callable[[Scores], T]) -> T:
        """What `measure` finds with these scores; first it is tried with those of nobody, to see how much it asks for.

        Raises:
            Interrupted: somebody asked for the end.
        """
        work = _Work()
        measure(work)
        self._name, self._done, self._size = name, 0, work.size
        self.done(0)
        return measure(scores)

    def done(self, count: int) -> None:
        """So much more of the part is done; for a `Scorer`.

        Raises:
            Interrupted: somebody asked for the end.
        """
        self._stop.check()
        self._done += count
        if self._size:
            self._tell(self._name, self._done, self._size)


class _Work:
    """Adds up what is asked for, in what a `Scorer` counts, and finds nothing."""

    def __init__(self) -> None:
        self.size = 0

    def logprobs(self, adapter: str | None, examples: Sequence[Example]) -> list[float]:  # noqa: ARG002 - of `Scores`
        self.size += len(examples)
        return [0.0] * len(examples)

    def choices(self, adapter: str | None, questions: Sequence[tuple[str, Sequence[str]]]) -> list[str]:  # noqa: ARG002 - of `Scores`
        self.size += sum(len(answers) for _, answers in questions)
        return [answers[0] for _, answers in questions]

    def answers(self, asked: Sequence[tuple[str | None, Sequence[Turn]]], max_tokens: int) -> list[str]:
        self.size += len(asked) * max_tokens
        return [""] * len(asked)
