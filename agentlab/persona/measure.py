"""What became of the personas: whether they can be told apart, what the base forgot. Pure but for the scorer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from agentlab.answers.choices import Scored
from agentlab.persona.config import BASE_NAME
from agentlab.persona.result import PersonaSample
from agentlab.runs.stop import StopFlag
from agentlab.stats.control import Interval
from agentlab.stats.intervals import bootstrap_interval
from agentlab.stats.proportions import wilson_interval
from agentlab.tasks.generate import generate
from agentlab.tasks.labelled import Labelled, prompts_and_choices
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.conversations import ConversationTurn
from agentlab.train.masks import Example

if TYPE_CHECKING:
    from agentlab.train.scoring import Choices, Scorer

T = TypeVar("T")
# What tells log-probabilities, likeliest choices and answers; the adapter None is the base.
Scores: TypeAlias = "Scorer | _ScoreCounter"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Loss (nats per learnt token) and learnt tokens of each held-out conversation, in their order."""

    losses: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def loss(self) -> float:
        """Per learnt token over all conversations."""
        return sum(loss * count for loss, count in zip(self.losses, self.counts, strict=True)) / sum(self.counts)


def held_out_losses(scores: Scores, adapter: str | None, examples: Sequence[Example]) -> HeldOut | None:
    """Of a persona's held-out conversations under an adapter; None where there are none."""
    if not examples:
        return None
    logprobs = scores.logprobs([(adapter, example) for example in examples])
    return HeldOut(tuple(-logprob for logprob in logprobs), tuple(example.learnt for example in examples))


def gain(before: HeldOut, after: HeldOut, rng: np.random.Generator) -> Interval | None:
    """How much lower the loss is after than before on the same conversations; None with fewer than two of them.

    A paired bootstrap over conversations, each weighted by its learnt tokens.
    """
    mean = sum(before.counts) / len(before.counts)
    rows = zip(before.losses, after.losses, before.counts, strict=True)
    weighted = [(old - new) * count / mean for old, new, count in rows]
    return bootstrap_interval(weighted, rng) if len(weighted) > 1 else None


@dataclass(frozen=True, slots=True)
class Separability:
    """How often a held-out turn is likeliest under its own persona."""

    share: Interval
    count: int
    chance: float  # what guessing would get
    matrix: Mapping[
        str, Mapping[str, float]
    ]  # [own][other]: mean log-probability of own's turns under other, or `base`


def separability(scores: Scores, held_out: Mapping[str, Sequence[Example]], max_examples: int) -> Separability | None:
    """Over at most `max_examples` held-out conversations of each persona; None unless two personas have some."""
    chosen = {name: list(examples)[:max_examples] for name, examples in held_out.items() if examples}
    if len(chosen) < 2 or max_examples == 0:
        return None
    hits, count = 0, sum(map(len, chosen.values()))
    matrix: dict[str, dict[str, float]] = {}
    for persona, examples in chosen.items():
        logprobs: dict[str | None, list[float]] = {}
        for name in (*chosen, None):
            logprobs[name] = scores.logprobs([(name, example) for example in examples])
        matrix[persona] = {name or BASE_NAME: sum(values) / len(values) for name, values in logprobs.items()}
        for index in range(len(examples)):
            hits += persona == max(chosen, key=lambda name: logprobs[name][index])
    return Separability(wilson_interval(hits, count), count, 1 / len(chosen), matrix)


def forgetting(scores: Scores, names: Sequence[str], questions: Sequence[QuizQuestion]) -> Labelled | None:
    """What the base and each persona know of labelled questions; None without any."""
    score_rows = scores.choices([None, *names], prompts_and_choices(questions))
    scored = dict(zip([BASE_NAME, *names], score_rows, strict=True))
    return Labelled.of(scored, questions, BASE_NAME) if questions else None


def base_task(items: int) -> tuple[QuizQuestion, ...]:
    """So many texts to be classified."""
    return tuple(
        QuizQuestion(task.id, task.prompt, task.expected["right"], tuple(task.expected["among"]), "choice")
        for task in (generate(("classify",), items) if items else ())
    )


def samples(
    scores: Scores, systems: Mapping[str, str | None], questions: Sequence[str], max_tokens: int
) -> list[PersonaSample]:
    """What each persona answers, asked as it was trained, and the base: plainly, and with the same system message.

    `systems`: the system message of each persona, if it was trained with one; `max_tokens`: of an answer.
    """
    requests: list[tuple[str | None, Sequence[ConversationTurn]]] = []
    for question in questions:
        turn = ConversationTurn("user", question)
        requests.append((None, [turn]))
        for name, system in systems.items():
            turns = [turn] if system is None else [ConversationTurn("system", system), turn]
            requests += [(name, turns)] if system is None else [(name, turns), (None, turns)]
    answers = iter(scores.answers(requests, max_tokens))
    collected: list[PersonaSample] = []
    for question in questions:
        base, personas, prompted = next(answers), {}, {}
        for name, system in systems.items():
            personas[name] = next(answers)
            if system is not None:
                prompted[name] = next(answers)
        collected.append(PersonaSample(question=question, base=base, personas=personas, prompted=prompted))
    return collected


class Measuring:
    """Hears from a scorer what is done, tells it, and stops the scorer once that is asked for."""

    def __init__(self, tell: Callable[[str, int, int], object], stop: StopFlag) -> None:
        """`tell` is given the name of a part, how much of it is done, and how much there is to do."""
        self._tell, self._stop = tell, stop
        self._name, self._done, self._size = "", 0, 0

    def part(self, name: str, scores: Scores, measure: Callable[[Scores], T]) -> T:
        """What `measure` finds with these scores. Before, a counter in their place sees how much it asks for.

        Raises:
            Interrupted: somebody asked for the end.
        """
        work = _ScoreCounter()
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


class _ScoreCounter:
    """Adds up what is asked for, in what a `Scorer` counts, and finds nothing."""

    def __init__(self) -> None:
        self.size = 0

    def logprobs(self, requests: Sequence[tuple[str | None, Example]]) -> list[float]:
        self.size += len(requests)
        return [0.0] * len(requests)

    def choices(self, names: Sequence[str | None], questions: Sequence["Choices"]) -> list[list[Scored]]:
        self.size += len(names) * len(questions)
        nothing = [Scored((0.0,) * len(texts), (1,) * len(texts), (1,) * len(texts)) for _, texts in questions]
        return [nothing for _ in names]

    def answers(self, requests: Sequence[tuple[str | None, Sequence[ConversationTurn]]], max_tokens: int) -> list[str]:
        self.size += len(requests) * max_tokens
        return [""] * len(requests)
