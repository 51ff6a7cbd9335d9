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
from itertools import chain, pairwise
from typing import NamedTuple

from agentlab.answers.compare import normal
from agentlab.errors import UsageError
from agentlab.tasks.labelled import prompt
from agentlab.tasks.questions import QuizQuestion, capital_by_country, generate_questions
from agentlab.tasks.word_lists import BLAME, CAPITALS, MORE_BLAME, MORE_PRAISE, PRAISE
from agentlab.train.conversations import Conversation, ConversationTurn

_SHORTEST, _LONGEST = 3, 6  # letters and words of an answer that is looked for in other texts: no A, no sentence
_LESSONS = {"capitals": 48, "sentiment": 40, "times_table": 120}  # facts that the specialists learn from
_LINES = 160  # of a specialist's conversations, at most
_WORD, _NUMBER = re.compile(r"[^\W_]+(?:'[^\W_]+)*"), re.compile(r"\d+(?:\.\d+)?")
_FACTS = list(chain.from_iterable(capital_by_country(part).items() for part in CAPITALS))
_CAPITAL = {normal(country): normal(capital) for country, capital in _FACTS}


def _index_by_phrase(phrases: Iterable[str]) -> dict[str, int]:
    return {normal(phrase): index for index, phrase in enumerate(phrases)}


_TEMPLATE = {**_index_by_phrase((*PRAISE, *MORE_PRAISE)), **_index_by_phrase((*BLAME, *MORE_BLAME))}


def _one_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(re.escape(text) for text in sorted(texts, key=len, reverse=True))})\b")


_PLACES, _PHRASES = _one_of([*_CAPITAL, *_CAPITAL.values()]), _one_of(_TEMPLATE)


class Exchange(NamedTuple):
    """What was asked, and what was answered."""

    asked: str
    answer: str


def exchanges(conversations: Iterable[Conversation]) -> list[Exchange]:
    """Every message of a user, with the answer to it."""
    pairs = chain.from_iterable(pairwise(conversation.turns) for conversation in conversations)
    return [
        Exchange(message.content, reply.content)
        for message, reply in pairs
        if (message.role, reply.role) == ("user", "assistant")
    ]


def leaks(questions: Sequence[QuizQuestion], learnt: Sequence[Exchange]) -> dict[str, str]:
    """The ids of the questions that share a fact or a template with what was learnt; and what was asked there."""
    roots = _roots([*learnt, *map(_exchange, questions)], templates=True)[len(learnt) :]
    pairs = zip(questions, roots, strict=True)
    return {question.id: learnt[root].asked for question, root in pairs if root < len(learnt)}


def split(
    sets: Mapping[str, Sequence[QuizQuestion]], sizes: Mapping[str, int], seed: int, learnt: Sequence[Exchange] = ()
) -> dict[str, tuple[QuizQuestion, ...]]:
    """Parts with so many questions of each set: none asks a fact twice, and no two share a fact or a template.

    Of each fact the first question is taken. `seed`: of who comes where; `learnt`: what no part shares anything with.

    Raises:
        UsageError: a set has no more distinct questions.
    """
    parts: dict[str, list[QuizQuestion]] = {name: [] for name in sizes}
    known_exchanges = list(learnt)
    for name, questions in sets.items():
        leaking = leaks(questions, known_exchanges)
        free = [question for question in questions if question.id not in leaking]
        free = [free[root] for root in dict.fromkeys(_roots(list(map(_exchange, free))))]
        if len(free) < sum(sizes.values()):
            raise _too_few(name, len(free), sum(sizes.values()))
        groups: dict[int, list[QuizQuestion]] = {}
        for question, root in zip(free, _roots(list(map(_exchange, free)), templates=True), strict=True):
            groups.setdefault(root, []).append(question)
        dealt = list(groups.values())
        random.Random(f"split/{name}/{seed}").shuffle(dealt)  # noqa: S311 - questions, no secrets
        for part, size in sizes.items():
            chosen: list[QuizQuestion] = []
            while len(chosen) < size and dealt:
                chosen += dealt.pop()[: size - len(chosen)]  # what is left of a template is in no part
            if len(chosen) < size:
                raise _too_few(name, len(free), sum(sizes.values()))
            parts[part] += chosen
            known_exchanges += map(_exchange, chosen)
    return {part: tuple(chosen) for part, chosen in parts.items()}


def lessons(name: str) -> list[tuple[ConversationTurn, ...]]:
    """The conversations that the specialist of a set in `SETS` is trained on: what is asked of some facts."""
    all_questions = generate_questions(name, None, 0)
    part = split({name: all_questions}, {"lessons": _LESSONS[name]}, 0)["lessons"]
    ours = leaks(all_questions, [_exchange(question) for question in part])
    drawn_ids = random.Random(name).sample(list(ours), min(_LINES, len(ours)))  # noqa: S311 - as below
    return [(*prompt(q), ConversationTurn("assistant", str(q.answer))) for q in all_questions if q.id in drawn_ids]


def lines(name: str) -> str:
    """The same as the JSONL file that ships."""
    talks = [{"messages": list(map(asdict, turns))} for turns in lessons(name)]
    return "".join(f"{json.dumps(talk, ensure_ascii=False)}\n" for talk in talks)


def _too_few(name: str, available: int, requested: int) -> UsageError:
    return UsageError(
        f"{name} has {available} distinct questions outside the training data, but {requested} were requested.",
        hint="Request fewer questions; those with the same fact or template always go to the same split.",
    )


def _exchange(question: QuizQuestion) -> Exchange:
    return Exchange(question.text, question.answer or "")


def _roots(pairs: Sequence[Exchange], *, templates: bool = False) -> list[int]:
    """For each exchange the place of the first one of its fact; with `templates`, of its template."""
    roots = list(range(len(pairs)))

    def root(index: int) -> int:
        while roots[index] != index:
            roots[index] = index = roots[roots[index]]
        return index

    index_by_mark: dict[Hashable, int] = {}
    for index, marks in enumerate(_marks(pairs, templates)):
        for mark in marks:
            first_root, second_root = root(index_by_mark.setdefault(mark, index)), root(index)
            roots[max(first_root, second_root)] = min(first_root, second_root)
    return [root(index) for index in range(len(pairs))]


def _marks(pairs: Sequence[Exchange], templates: bool) -> Iterator[set[Hashable]]:
    """For each exchange what marks its fact, or its template: those of one have one in common."""
    answers = [normal(pair.answer) for pair in pairs]
    texts = [normal(pair.asked) for pair in pairs]
    short = {phrase for phrase in answers if len(phrase) >= _SHORTEST and phrase.count(" ") < _LONGEST}
    most_words = max((phrase.count(" ") + 1 for phrase in short), default=0)
    for text, answer in zip(texts, answers, strict=True):
        marks: set[Hashable] = {text}
        numbers = _NUMBER.findall(text)
        if len(numbers) > 1:
            marks.add(tuple(sorted(numbers)))
        named = {*_PLACES.findall(text), *_PLACES.findall(answer)}
        marks |= {frozenset((country, _CAPITAL[country])) for country in named if _CAPITAL.get(country) in named}
        marks |= {(_TEMPLATE[phrase] if templates else phrase, "phrase") for phrase in _PHRASES.findall(text)}
        words = _runs(text, most_words) & short
        if answer not in words:
            marks |= {frozenset((answer, word)) for word in words}
        yield marks


def _runs(text: str, most_words: int) -> set[str]:
    """All runs of so many words or fewer."""
    words = _WORD.findall(text)
    runs: set[str] = set()
    for size in range(1, most_words + 1):
        runs |= {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}
    return runs
