"""Parts of sets of questions that share nothing, so that what was learnt from one does not answer another. Pure.

Two questions are one fact if their texts are the same, or the numbers in them (6 x 7, 7 x 6), if each has the other's
answer in its text, if they name the same country with its capital, or say one phrase of two things. Praise and blame in
the same words (could not have gone better, worse) are one template. A fact that is told in other words is not noticed.
"""

import json
import random
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from agentlab.answers.compare import normal
from agentlab.errors import UsageError
from agentlab.tasks.labelled import prompt
from agentlab.tasks.questions import Question, generated
from agentlab.tasks.words import BLAME, CAPITALS, MORE_BLAME, MORE_PRAISE, PRAISE
from agentlab.train.conversations import Conversation, Turn

_SHORTEST, _LONGEST = 3, 6  # letters and words of an answer that is looked for in other texts: no A, no sentence
_LESSONS = {"capitals": 48, "sentiment": 40, "times_table": 120}  # facts that the specialists learn from
_LINES = 160  # of a specialist's conversations, at most
_WORD, _NUMBER = re.compile(r"[^\W_]+(?:'[^\W_]+)*"), re.compile(r"\d+(?:\.\d+)?")
_CAPITAL = {
    normal(country): normal(capital)
    for part in CAPITALS
    for country, capital in (pair.split(": ") for pair in part.split(", "))
}
_TEMPLATE = {
    phrase: place
    for phrases in ((*PRAISE, *MORE_PRAISE), (*BLAME, *MORE_BLAME))
    for place, phrase in enumerate(map(normal, phrases))
}


def _one_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(re.escape(each) for each in sorted(texts, key=len, reverse=True))})\b")


_PLACES, _PHRASES = _one_of([*_CAPITAL, *_CAPITAL.values()]), _one_of(_TEMPLATE)


class Exchange(NamedTuple):
    """What was asked, and what was answered."""

    asked: str
    answer: str


def exchanges(conversations: Iterable[Conversation]) -> list[Exchange]:
    """Every message of a user, with the answer to it."""
    return [
        Exchange(one.content, other.content)
        for each in conversations
        for one, other in zip(each.turns, each.turns[1:], strict=False)
        if (one.role, other.role) == ("user", "assistant")
    ]


def leaks(questions: Sequence[Question], learnt: Sequence[Exchange]) -> dict[str, str]:
    """The ids of the questions that share a fact or a template with what was learnt; and what was asked there."""
    roots = _roots([*learnt, *map(_exchange, questions)], templates=True)[len(learnt) :]
    return {
        question.id: learnt[root].asked for question, root in zip(questions, roots, strict=True) if root < len(learnt)
    }


def split(
    sets: Mapping[str, Sequence[Question]], sizes: Mapping[str, int], seed: int, learnt: Sequence[Exchange] = ()
) -> dict[str, tuple[Question, ...]]:
    """Parts of these sizes per set: none asks a fact twice, and no two share a fact or a template.

    Args:
        sets: the questions of each set, by its name; of each fact the first one is taken.
        sizes: questions of each part from each set.
        seed: of who comes where.
        learnt: what the parts are to share nothing with, either.

    Returns:
        The questions of each part, set by set.

    Raises:
        UsageError: a set has no more distinct questions.
    """
    parts: dict[str, list[Question]] = {name: [] for name in sizes}
    known = list(learnt)
    for name, questions in sets.items():
        leaking = leaks(questions, known)
        free = [each for each in questions if each.id not in leaking]
        free = [free[root] for root in dict.fromkeys(_roots(list(map(_exchange, free))))]
        if len(free) < sum(sizes.values()):
            raise _too_few(name, len(free), sum(sizes.values()))
        groups: dict[int, list[Question]] = {}
        for each, root in zip(free, _roots(list(map(_exchange, free)), templates=True), strict=True):
            groups.setdefault(root, []).append(each)
        dealt = list(groups.values())
        random.Random(f"split/{name}/{seed}").shuffle(dealt)  # noqa: S311 - questions, no secrets
        for part, size in sizes.items():
            some: list[Question] = []
            while len(some) < size and dealt:
                some += dealt.pop()[: size - len(some)]  # what is left of a template is in no part
            if len(some) < size:
                raise _too_few(name, len(free), sum(sizes.values()))
            parts[part] += some
            known += map(_exchange, some)
    return {part: tuple(some) for part, some in parts.items()}


def lessons(name: str) -> list[tuple[Turn, ...]]:
    """The conversations that the specialist of a set in `SETS` is trained on: what is asked of some facts."""
    whole = generated(name, None, 0)
    part = split({name: whole}, {"lessons": _LESSONS[name]}, 0)["lessons"]
    ours = leaks(whole, [_exchange(each) for each in part])
    drawn = random.Random(name).sample(list(ours), min(_LINES, len(ours)))  # noqa: S311 - as below
    return [(*prompt(q), Turn("assistant", str(q.answer))) for q in whole if q.id in drawn]


def lines(name: str) -> str:
    """The same as the JSONL file that ships."""
    talks = [{"messages": [asdict(turn) for turn in turns]} for turns in lessons(name)]
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in talks)


def _too_few(name: str, found: int, wanted: int) -> UsageError:
    return UsageError(
        f"{name} has {found} distinct questions that nobody was trained on, and {wanted} are asked for.",
        hint="Ask fewer for the parts; questions of one fact or one template go to the same part.",
    )


def _exchange(question: Question) -> Exchange:
    return Exchange(question.text, question.answer or "")


def _roots(asked: Sequence[Exchange], *, templates: bool = False) -> list[int]:
    """For each exchange the place of the first one of its fact; with `templates`, of its template."""
    roots = list(range(len(asked)))

    def root(place: int) -> int:
        while roots[place] != place:
            roots[place] = place = roots[roots[place]]
        return place

    known: dict[Hashable, int] = {}
    for place, marks in enumerate(_marks(asked, templates)):
        for mark in marks:
            one, other = root(known.setdefault(mark, place)), root(place)
            roots[max(one, other)] = min(one, other)
    return [root(place) for place in range(len(asked))]


def _marks(asked: Sequence[Exchange], templates: bool) -> Iterator[set[Hashable]]:
    """For each exchange what marks its fact, or its template: those of one have one in common."""
    answers = [normal(each.answer) for each in asked]
    texts = [normal(each.asked) for each in asked]
    short = {each for each in answers if len(each) >= _SHORTEST and each.count(" ") < _LONGEST}
    most = max((each.count(" ") + 1 for each in short), default=0)
    for text, answer in zip(texts, answers, strict=True):
        marks: set[Hashable] = {text}
        numbers = _NUMBER.findall(text)
        if len(numbers) > 1:
            marks.add(tuple(sorted(numbers)))
        named = {*_PLACES.findall(text), *_PLACES.findall(answer)}
        marks |= {frozenset((each, _CAPITAL[each])) for each in named if _CAPITAL.get(each) in named}
        marks |= {(_TEMPLATE[each] if templates else each, "phrase") for each in _PHRASES.findall(text)}
        words = _runs(text, most) & short
        if answer not in words:
            marks |= {frozenset((answer, each)) for each in words}
        yield marks


def _runs(text: str, most: int) -> set[str]:
    """All runs of so many words or fewer."""
    words = _WORD.findall(text)
    return {" ".join(words[i : i + size]) for size in range(1, most + 1) for i in range(len(words) - size + 1)}
