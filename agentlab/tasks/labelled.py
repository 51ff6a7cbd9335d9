"""Labelled questions: how a model is asked to choose, who is right by which normalisation, and where these disagree.

`debate`, `evolve` and `train-persona` ask alike, so an adapter is right on the same questions in all of them. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Self

import numpy as np

from agentlab.answers.choices import DECIDES, NORMALISATIONS, Normalisation, Scored
from agentlab.answers.compare import normal
from agentlab.runs.document import Block, BoundedDifference, BoundedShare, Plain, Table, Text
from agentlab.stats.paired_tests import compare_family
from agentlab.stats.proportions import wilson_interval
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.conversations import ConversationTurn

SYSTEM = "Answer briefly."
BESIDE: Normalisation = "sum"  # what stands beside the one that decides
FORM = (
    f"Each choice is scored by its text alone, after the system message {SYSTEM!r} and the question; the {DECIDES} "
    "log-probability of its tokens decides, and their sum is shown for comparison"
)


def prompt(question: QuizQuestion) -> tuple[ConversationTurn, ...]:
    """What a model is shown before its choices are scored, each by its bare text where the answer begins.

    Choices are not shown: a small model takes what it sees first. The system message is the specialists'; it is shorter
    than the one that the embedded model's template puts in where there is none.
    """
    return ConversationTurn("system", SYSTEM), ConversationTurn("user", question.text)


def prompts_and_choices(
    questions: Sequence[QuizQuestion],
) -> list[tuple[tuple[ConversationTurn, ...], tuple[str, ...]]]:
    """Prompts and choices, for `train.scoring`."""
    return [(prompt(question), question.choices) for question in questions]


@cache
def right_place(question: QuizQuestion) -> int:
    """Where the right choice stands among the choices."""
    return [*map(normal, question.choices)].index(normal(question.answer or ""))


def mark_answers(
    scored: Sequence[Scored], questions: Sequence[QuizQuestion], by: Normalisation = DECIDES
) -> list[bool]:
    """Which of the first questions are answered right."""
    pairs = zip(scored, questions, strict=False)
    return [likelihoods.likeliest_index(by) == right_place(question) for likelihoods, question in pairs]


class Labelled(Plain):
    """Shares of labelled questions that are right, by name and normalisation, and where these disagree on a rival."""

    right: dict[str, dict[Normalisation, BoundedShare]]
    remarks: list[str]

    @classmethod
    def of(cls, scored: Mapping[str, Sequence[Scored]], questions: Sequence[QuizQuestion], rival: str) -> Self:
        """Everybody on the same questions. The comparisons with the rival are one family."""
        right: dict[str, dict[Normalisation, BoundedShare]] = {name: {} for name in scored}
        differences = {}
        for by in NORMALISATIONS:
            marks = {name: mark_answers(likelihoods, questions, by) for name, likelihoods in scored.items()}
            for name, model_marks in marks.items():
                right[name][by] = share_of(model_marks)
            pairs = {f"{name} against {rival}": (marks[name], marks[rival]) for name in scored if name != rival}
            family = compare_family(pairs, np.random.default_rng(0))  # truth values draw nothing
            differences[by] = {claim: BoundedDifference.of(evidence) for claim, evidence in family.items()}
        return cls(right=right, remarks=list(disagreements(differences[DECIDES], differences[BESIDE])))

    def blocks(self) -> list[Block]:
        rows = []
        for name, share_by_normalisation in self.right.items():
            rows.append((name, *(str(share_by_normalisation[by]) for by in NORMALISATIONS)))
        return [Table(("accuracy, choices scored by", *NORMALISATIONS), rows, FORM), *map(Text, self.remarks)]


def share_of(marks: Sequence[bool]) -> BoundedShare:
    """The share that is right, with its interval."""
    return BoundedShare.of(wilson_interval(sum(marks), len(marks)), count=len(marks))


def disagreements(
    decides: Mapping[str, BoundedDifference], alternative: Mapping[str, BoundedDifference]
) -> Iterator[str]:
    """Remarks where it depends on the normalisation who is better, or shown to be. Keys say who against whom."""
    for claim in (claim for claim in decides if claim in alternative):
        by_rule, by_other = decides[claim], alternative[claim]
        figures = f"{claim}: {by_rule} points by {DECIDES}, {by_other} by {BESIDE}."
        if by_rule.value * by_other.value < 0:
            neither = "" if by_rule.is_shown or by_other.is_shown else ", and neither difference is significant"
            yield f"{figures} The sign depends on how choices are scored{neither}."
        elif by_rule.is_shown != by_other.is_shown:
            names = (DECIDES, BESIDE) if by_rule.is_shown else (BESIDE, DECIDES)
            yield f"{figures} The difference is significant by {names[0]} but not by {names[1]}."
