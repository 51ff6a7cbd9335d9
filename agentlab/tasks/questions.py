"""Questions for agents that answer together or compete: what is asked, what a text answers, and what is right.

A `TaskItem` is a whole prompt with its checker. A question can be put in any words, and two answers to it compared,
whether or not anybody knows the right one. Pure, but for the reading of a file.
"""

import hashlib
import json
import math
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, get_args

from agentlab.answers import extract
from agentlab.answers.compare import normal
from agentlab.errors import DataError, UnknownNameError, UsageError
from agentlab.tasks.word_lists import BLAME, CAPITALS, MORE_BLAME, MORE_PRAISE, PRAISE, THINGS
from agentlab.train.conversations import BadLineError, is_unicode, read_lines, refuse

Kind = Literal["choice", "number", "text"]
_Means = Literal["text", "index", "either"]

MOST_QUESTIONS, MOST_CHOICES = 100_000, 100
_LONGEST = 1_000  # characters of an answer, a choice or an id
_Draft = tuple[str, str, Sequence[str]]  # a question, its answer, and wrong ones
_BLANKS = re.compile(r"[ \t]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")  # as `normal` writes one
_FORM = (
    'A line is {"question": "What is 6 x 7?", "answer": 42} or {"question": "...", "choices": ["Lima", "Quito"], '
    '"answer": "Lima"}; `id` and `checker` (choice, number or text) are optional. The answer may also be a letter '
    '(A, B) or an index from 0 (MMLU); choices may be {"text": [...], "label": [...]} with "answerKey" (ARC); the keys '
    "ctx, endings and label (HellaSwag) also work."
)
# Our keys, and what other sets of questions call them.
_ALIASES = (("prompt", "ctx"), ("choices", "endings"), ("answer", "answerKey"), ("answer", "label"))
_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class QuizQuestion:
    """What is asked."""

    id: str
    text: str  # the question itself, without the choices
    answer: str | None = None  # one of the choices, a number, or a short text; None where nobody can mark it (a topic)
    choices: tuple[str, ...] = ()  # empty unless `kind` is "choice"
    kind: Kind = "text"  # how an answer is read

    def prompt(self, rotation: int = 0) -> str:
        """The text, and under it the choices by their texts: the list begins so many places later, and goes round."""
        if not self.choices:
            return self.text
        start = rotation % len(self.choices)
        return "\n- ".join((self.text, *self.choices[start:], *self.choices[:start]))

    def read(self, text: str) -> str | None:
        """The answer that a text commits to, as equal answers share it (see `compare.normal`); None: it cannot be read.

        Digits and letters of any width are read alike. Of choices that are numbers, the text's number has to be one.
        """
        text = _plain(text[-extract.MOST_TEXT :])
        if self.kind == "text":
            return normal(extract.short_answer(text)) or None
        if self.kind == "number" or all(map(_is_number, self.choices)):
            number = extract.last_number(text)
            reading = None if number is None else normal(number)
            return reading if self.kind == "number" or reading in [*map(normal, self.choices)] else None
        chosen = extract.label(text, [_plain(choice) for choice in self.choices])
        return None if chosen is None else normal(chosen)

    def right(self, answer: str | None) -> bool:
        """Whether what `read` has returned is right; what could not be read is wrong, and so is all of a topic."""
        return answer is not None and self.answer is not None and answer == self.read(f"Answer: {self.answer}")


def digest(questions: Sequence[QuizQuestion]) -> str:
    """SHA-256 of all that the questions hold, in their order: of the same digest are the same questions."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", text))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(normal(text)) is not None


# -- generated ------------------------------------------------------------------------------------------------------


def generate_questions(name: str, count: int | None, seed: int) -> tuple[QuizQuestion, ...]:
    """The first questions of a set of `SETS`, or all: the same for a name and a seed, and fewer are the first of more.

    Each is a choice; the right one stands in any place equally often.

    Raises:
        UnknownNameError: there is no such set.
        UsageError: it has no more distinct questions than so many.
    """
    if name not in SETS:
        raise UnknownNameError("set of questions", name, list(SETS))
    rng = random.Random(f"{name}/{seed}")  # noqa: S311 - questions, no secrets
    drafts = SETS[name](rng)
    if count is not None and count > len(drafts):
        raise UsageError(
            f"{name} has {len(drafts)} distinct questions, but {count} were requested.", hint="Request fewer."
        )
    questions: list[QuizQuestion] = []
    for number, (text, right, wrong) in enumerate(drafts[:count], 1):
        choices = [right, *rng.sample(wrong, min(3, len(wrong)))]
        rng.shuffle(choices)
        questions.append(QuizQuestion(f"{name}-{number:04d}", text, right, tuple(choices), "choice"))
    return tuple(questions)


def capital_by_country(part: str) -> dict[str, str]:
    """Of one part of the world, as `word_lists.CAPITALS` writes it: `Algeria: Algiers, Angola: Luanda`."""
    return dict(pair.split(": ") for pair in part.split(", "))


def _capitals(rng: random.Random) -> list[_Draft]:
    """Every country once, by its name or by its capital; then every country the other way round."""
    facts: list[tuple[str, str, dict[str, str], bool]] = []
    for part in map(capital_by_country, CAPITALS):
        facts += [(country, capital, part, rng.random() < 0.5) for country, capital in part.items()]
    rng.shuffle(facts)
    drafts: list[_Draft] = []
    for turned in (False, True):
        for country, capital, part, by_name in facts:
            if by_name is not turned:
                wrong_choices = [choice for choice in part.values() if choice != capital]
                drafts.append((f"What is the capital of {country}?", capital, wrong_choices))
            else:
                wrong_choices = [choice for choice in part if choice != country]
                drafts.append((f"{capital} is the capital of which country?", country, wrong_choices))
    return drafts


def _times_table(rng: random.Random) -> list[_Draft]:
    """Beside the product those of factors that are each one off. At last come products of larger factors."""
    pairs, larger = list(product(range(2, 13), range(2, 21))), list(product(range(2, 13), range(21, 31)))
    rng.shuffle(pairs)
    copy(rng).shuffle(larger)  # a copy, so that the first questions stay as they were
    drafts: list[_Draft] = []
    for a, b in pairs + larger:
        wrong = sorted({first * second for first, second in product((a - 1, a + 1), (b - 1, b + 1))} - {a * b})
        drafts.append((f"What is {a} x {b}?", str(a * b), [str(number) for number in wrong]))
    return drafts


def _sentiment(rng: random.Random) -> list[_Draft]:
    """Every phrase once, of one thing or another; then every phrase of another thing. At last the further phrases."""
    question = "What is the mood of this text, positive or negative?"
    drafts: list[_Draft] = []
    for praise, blame in ((PRAISE, BLAME), (MORE_PRAISE, MORE_BLAME)):
        moods = (("positive", praise, "negative"), ("negative", blame, "positive"))
        phrase_rows: list[tuple[str, str, list[str], list[str]]] = []
        for mood, phrases, opposite in moods:
            phrase_rows += [(phrase, mood, [opposite], rng.sample(THINGS, len(THINGS))) for phrase in phrases]
        for index in range(len(THINGS)):
            rng.shuffle(phrase_rows)
            drafts += [(f"{question} {things[index]} {p}.", mood, wrong) for p, mood, wrong, things in phrase_rows]
        rng = copy(rng)  # so that the first questions stay as they were
    return drafts


SETS: Mapping[str, Callable[[random.Random], list[_Draft]]] = {
    "capitals": _capitals,
    "sentiment": _sentiment,
    "times_table": _times_table,
}


# -- from a file ----------------------------------------------------------------------------------------------------


def read_questions(path: Path) -> tuple[QuizQuestion, ...]:
    """The questions of a JSONL file, in its order; keys that are not of `QuizQuestion` are passed over.

    Lines of MMLU, ARC and HellaSwag are read as well, see `_own_form`.

    Raises:
        MissingFileError: there is no such file.
        DataError: what is wrong with it, every problem with `file:line`.
    """
    questions = check_questions(read_lines(path, lambda _: None), str(path))
    if not questions:
        raise DataError(f"{path} contains no questions.", hint=_FORM)
    return questions


def check_questions(lines: Iterable[tuple[int, Any]], source: str) -> tuple[QuizQuestion, ...]:
    """The questions of lines, each with its number, in their order.

    Raises:
        DataError: what is wrong with them, every problem with `source:number`.
    """
    questions: list[QuizQuestion] = []
    problems: list[str] = []
    ids: dict[str, int] = {}
    line_by_content: dict[object, int] = {}
    numbered = list(islice(lines, MOST_QUESTIONS + 1))
    if len(numbered) > MOST_QUESTIONS:
        raise DataError(f"{source} has more than {MOST_QUESTIONS} questions.", hint="Use fewer lines.")
    readings = {reading for _, value in numbered if (reading := _number_means(value)) is not None}
    certain: _Means | None = "index" if "text" not in readings else "text" if "index" not in readings else None
    for number, value in numbered:
        question, wrong = _question(value, f"line-{number}", certain if readings != {"either"} else None)
        if question is not None:
            content = normal(question.text), frozenset(map(normal, question.choices))
            if question.id in ids:
                wrong.append(f"the id {_shorten_value(question.id)} is already used in line {ids[question.id]}")
            if content in line_by_content:
                wrong.append(f"it is the same question as line {line_by_content[content]}")
            ids.setdefault(question.id, number)
            line_by_content.setdefault(content, number)
            questions.append(question)
        problems += [f"{source}:{number}: {problem}" for problem in wrong]
    refuse(problems, source, _FORM, "used")
    return tuple(questions)


def jsonl(questions: Sequence[QuizQuestion]) -> str:
    """The lines of a file that `read_questions` reads as the same questions."""
    lines = [
        {"id": q.id, "question": q.text, "choices": list(q.choices) or None, "answer": q.answer, "checker": q.kind}
        for q in questions
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _number_means(value: Any) -> _Means | None:
    """What a line's answer that is a whole number can be: the text of a choice, an index, or either of two choices."""
    line = _rename_aliases(value) if isinstance(value, dict) else {}
    choices, answer = line.get("choices"), line.get("answer")
    if type(answer) is not int or not isinstance(choices, list):
        return None
    indexed = choices[answer] if 0 <= answer < len(choices) else None
    if not _is_choice(str(answer), choices):
        return None if indexed is None else "index"
    if indexed is None:
        return "text"
    return None if _is_choice(str(answer), [indexed]) else "either"


def _is_choice(answer: str, choices: Sequence[Any]) -> bool:
    return any(normal(answer) == normal(text) for text in map(_text, choices) if text)


def _rename_aliases(value: Mapping[str, Any]) -> dict[str, Any]:
    """A line under our own keys, where it has only those of other sets."""
    line = dict(value)
    for ours, theirs in _ALIASES:
        if line.get(ours) is None and theirs in line and not (ours == "prompt" and "question" in line):
            line[ours] = line[theirs]
    return line


def _own_form(value: Mapping[str, Any], numbers: _Means | None) -> dict[str, Any]:
    """A line with a list of choices, and with the text of one of them as the answer where it names one otherwise.

    A label that the line gives goes before a text, a text before a letter or an index from 0; beside `endings`
    (HellaSwag) there are indices alone. `numbers`: what whole numbers are in this file where they could be either.
    """
    line = _rename_aliases(value)
    choices, labels = line.get("choices"), list[str | None]()
    if isinstance(choices, dict):
        label_values, choices = choices.get("label"), choices.get("text")
        labels = [_text(label) for label in label_values] if isinstance(label_values, list) else []
        if not isinstance(choices, list) or len({*labels}) != len(choices):
            return line
        line["choices"] = choices
    answer = _text(line.get("answer"))
    if not isinstance(choices, list) or answer is None:
        return line
    if answer not in labels:
        indices = numbers == "index" if type(line["answer"]) is int else "label" in value and "endings" in value
        if _is_choice(answer, choices) and not indices:
            return line
        labels = [*(_LETTERS if answer in _LETTERS else map(str, range(len(choices))))]
    if answer in labels[: len(choices)]:
        line["answer"] = choices[labels.index(answer)]
    return line


def _question(value: Any, name: str, numbers: _Means | None) -> tuple[QuizQuestion | None, list[str]]:
    """The question of a line, and all that is wrong with it."""
    if isinstance(value, BadLineError):
        return None, [f"the line {value}"]
    if not isinstance(value, dict):
        return None, ["it is not an object with `question` and `answer`"]
    ambiguous = numbers is None and _number_means(value) == "either"
    contradictory = "answer" in value and "answerKey" in value and value["answer"] != value["answerKey"]
    value = _own_form(value, numbers)
    wrong = list(_problems(value))
    if ambiguous:
        wrong.append(
            f"the answer {value['answer']} is both a choice and the index of another: write the choice as text"
        )
    if contradictory:
        wrong.append("`answer` and `answerKey` differ")
    if wrong:
        return None, wrong
    answer, choices = str(_text(value["answer"])), tuple(str(_text(choice)) for choice in value.get("choices") or ())
    kind: Kind = value.get("checker") or ("choice" if choices else "number" if _is_number(answer) else "text")
    text = str(value["question"] if "question" in value else value["prompt"])
    question_id = name if value.get("id") is None else str(_text(value["id"]))
    question = QuizQuestion(question_id, text.strip(), answer, choices, kind)
    read = question.read(f"Answer: {answer}")
    if kind == "number" and not _is_number(answer):
        wrong.append(f"the answer {_shorten_value(answer)} is not a number")
    elif bool(choices) != (kind == "choice"):
        wrong.append(f"the checker {kind} does not fit: there are {'' if choices else 'no '}choices")
    elif choices and normal(answer) not in map(normal, choices):
        wrong.append(f"the answer {_shorten_value(answer)} is neither a choice nor the letter or index of one")
    elif read is None or (kind != "text" and read != normal(answer)):
        wrong.append(f"the answer {_shorten_value(answer)} could not be recognized in a reply")
    return question, wrong


def _problems(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the single values of a line."""
    question_keys = [key for key in ("question", "prompt") if key in value]
    if len(question_keys) != 1:
        yield "it has both `question` and `prompt`" if question_keys else "it has no `question`"
    choices = value.get("choices")
    if choices is not None and not (isinstance(choices, list) and 2 <= len(choices) <= MOST_CHOICES):
        yield f"the choices must be a list of 2 to {MOST_CHOICES} items, or equally long lists of texts and labels"
        choices = None
    choice_by_key = {f"choice {number}": choice for number, choice in enumerate(choices or (), 1)}
    if len({normal(choice) for choice in choice_by_key.values() if _text(choice)}) < len(choice_by_key):
        yield "two choices are equal, or one is neither text nor a number"
    id_field = {"id": value["id"]} if value.get("id") is not None else {}
    contents = {key: value[key] for key in question_keys} | {"answer": value.get("answer")} | choice_by_key | id_field
    for key, content in contents.items():
        if not (text := _text(content)) or (key in question_keys and not isinstance(content, str)):
            yield f"the {key} is {'missing' if content is None else 'empty or of the wrong type'}"
        elif not is_unicode(text):
            yield f"the {key} contains a lone surrogate (half a character)"
        elif key not in question_keys and len(text) > _LONGEST:
            yield f"the {key} is longer than {_LONGEST} characters"
    if value.get("checker") not in (None, *get_args(Kind)):
        yield f"the checker must be one of {', '.join(get_args(Kind))}"


def _text(value: Any) -> str | None:
    """A text, or a number as a text; None for all else, also for one so large that it was read as infinite."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (math.inf, -math.inf):
        return None
    return str(value)


def _shorten_value(value: Any) -> str:
    return ascii(value)[:60]
