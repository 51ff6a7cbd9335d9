"""Which of several answers is best, according to somebody who sees them in both orders. Pure: callers ask.

A judge prefers what it reads first (arXiv 2306.05685, section 3.3), so each match is shown twice, the second time with
its answers in reverse, and a winner is believed only if both verdicts mean it.

A judgement is a generator: it yields ballots, all of which may be asked at once, and is sent one verdict for each, in
their order; at the end it returns what came of them. `decide`, `decide_many` and `decide_async` go through it with a
way to ask.
"""

import string
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TypeVar, cast

from agentlab.answers.quote import cut_middle, wrap_in_tags

MOST_SHOWN = 6_000  # characters of the question, and of each answer
_MOST_IN_ROUND_ROBIN = 6
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JudgeBallot:
    """One question to the judge: `number` counts from 1 in a judgement, `places` are of the answers in their order."""

    number: int
    places: tuple[int, ...]
    prompt: str


# The index among the answers of a ballot that the judge finds best, or a mark; None where it named nothing of the kind.
Verdicts = Sequence[int | None]
Judging = Generator[list[JudgeBallot], Verdicts, T]


@dataclass(frozen=True, slots=True)
class JudgeCase:
    """What is to be judged. No name of an author is shown, and nothing in a text can end its quotation."""

    question: str
    answers: Sequence[str]
    task: str  # what the judge has to say: the end of each prompt
    shown: int = MOST_SHOWN  # characters of the question and of each answer; their middle is left out

    def ballots(self, orders: Iterable[tuple[int, ...]], after: int = 0) -> list[JudgeBallot]:
        return [JudgeBallot(number, order, self._prompt(order)) for number, order in enumerate(orders, after + 1)]

    def _prompt(self, order: tuple[int, ...]) -> str:
        letters = string.ascii_uppercase[: len(order)] if len(order) > 1 else [""]
        parts = [wrap_in_tags("question", cut_middle(self.question, self.shown))]
        for letter, index in zip(letters, order, strict=True):
            parts.append(wrap_in_tags("answer", cut_middle(self.answers[index], self.shown), letter))
        return "\n\n".join((*parts, self.task))


@dataclass(frozen=True, slots=True)
class Match:
    """Answers that were compared, and the better one; None for no difference. `unread` verdicts named no answer."""

    places: tuple[int, ...]
    winner: int | None
    unread: int


@dataclass(frozen=True, slots=True)
class JudgeStanding:
    """How a judgement ended: the best answer, and the points or marks of all."""

    best: int
    marks: dict[int, float]
    unread: int
    matches: tuple[Match, ...] = ()


def place_of(letter: str) -> int:
    """The index that a capital letter stands for."""
    return string.ascii_uppercase.index(letter)


def both_orders(case: JudgeCase, matches: Sequence[tuple[int, ...]], after: int = 0) -> Judging[list[Match]]:
    """Who wins each match; `after` is the number of the ballots before."""
    verdicts = yield case.ballots(chain.from_iterable((match, match[::-1]) for match in matches), after)
    pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
    return [_match(match, pair) for match, pair in zip(matches, pairs, strict=True)]


def _match(indices: tuple[int, ...], verdicts: tuple[int | None, int | None]) -> Match:
    chosen = [
        None if verdict is None or verdict >= len(indices) else order[verdict]
        for order, verdict in zip((indices, indices[::-1]), verdicts, strict=True)
    ]
    return Match(indices, chosen[0] if chosen[0] == chosen[1] else None, verdicts.count(None))


def tournament(case: JudgeCase, order: Sequence[int]) -> Judging[JudgeStanding]:
    """Pairs: up to six answers all meet, more play a knockout. No difference is half a point each.

    The earlier answer of a match without a winner goes on to the next round; of equals the earlier one is best.
    """
    knockout = len(order) > _MOST_IN_ROUND_ROBIN
    field, played = list(order), list[Match]()
    while len(field) > 1:
        pairs = list(zip(field[::2], field[1::2], strict=False)) if knockout else list(combinations(field, 2))
        matches = yield from both_orders(case, pairs, 2 * len(played))
        played += matches
        if not knockout:
            break
        advancing = [min(match.places) if match.winner is None else match.winner for match in matches]
        field = advancing + field[2 * len(pairs) :]
    marks = dict.fromkeys(order, 0.0)
    for match in played:
        for index in match.places:
            marks[index] += 0.5 if match.winner is None else float(match.winner == index)
    best = field[0] if knockout else _best(marks)
    return JudgeStanding(best, marks, sum(match.unread for match in played), tuple(played))


def mark_each(case: JudgeCase, order: Sequence[int]) -> Judging[JudgeStanding]:
    """A mark for each answer by itself; a lone one needs none."""
    verdicts = (yield case.ballots((index,) for index in order)) if len(order) > 1 else [0]
    marks: dict[int, float] = {index: mark or 0 for index, mark in zip(order, verdicts, strict=True)}
    return JudgeStanding(_best(marks), marks, verdicts.count(None))


def _best(marks: dict[int, float]) -> int:
    return min(marks, key=lambda index: (-marks[index], index))


def decide(judging: Judging[T], ask: Callable[[list[JudgeBallot]], Verdicts]) -> T:
    """The end of a judgement, with the verdicts that `ask` brings for ballots."""
    verdicts: Verdicts | None = None
    try:
        while True:
            verdicts = ask(_advance(judging, verdicts))
    except StopIteration as end:
        return cast(T, end.value)


async def decide_async(judging: Judging[T], ask: Callable[[list[JudgeBallot]], Awaitable[Verdicts]]) -> T:
    """The same with a way to ask that is awaited; how many ballots it asks at a time is its own affair."""
    verdicts: Verdicts | None = None
    try:
        while True:
            verdicts = await ask(_advance(judging, verdicts))
    except StopIteration as end:
        return cast(T, end.value)


def decide_many(
    judgings: Mapping[str, Judging[T]], ask: Callable[[list[tuple[str, JudgeBallot]]], Verdicts]
) -> dict[str, T]:
    """The ends of named judgements; `ask` gets the open ballots of all at once, each with the name of its judgement."""
    standings: dict[str, T] = {}
    verdicts: Mapping[str, Verdicts | None] = dict.fromkeys(judgings)
    while True:
        ballots: list[tuple[str, JudgeBallot]] = []
        for name, last_verdicts in verdicts.items():
            try:
                ballots += [(name, ballot) for ballot in _advance(judgings[name], last_verdicts)]
            except StopIteration as end:
                standings[name] = end.value
        pending: dict[str, list[int | None]] = {name: [] for name in verdicts if name not in standings}
        if not pending:
            return standings
        for (name, _), verdict in zip(ballots, ask(ballots), strict=True):
            pending[name].append(verdict)
        verdicts = pending


def _advance(judging: Judging[T], verdicts: Verdicts | None) -> list[JudgeBallot]:
    return next(judging) if verdicts is None else judging.send(verdicts)
