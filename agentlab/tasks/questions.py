"""Questions for agents that answer together or compete: what is asked, what a text answers, and what is right. Pure.

A `quality` item comes with its own prompt and checker; a question is asked in any words, by choice or freely, and two
answers to it can be compared, whether or not anybody knows the right one.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from agentlab.answers import extract
from agentlab.answers.compare import normal
from agentlab.errors import DataError
from agentlab.train.conversations import BadLineError, is_unicode, read_lines, refuse

Kind = Literal["choice", "number", "text"]

MOST_QUESTIONS, MOST_CHOICES = 100_000, 100
_BLANKS = re.compile(r"[ \t]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")  # as `normal` writes one
_FORM = (
    'A line is {"question": "What is 6 x 7?", "answer": 42} or {"question": "...", "choices": ["Lima", "Quito"], '
    '"answer": "Lima"}; `id` and `checker` (choice, number or text) may stand beside.'
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        id: unique in its set.
        text: the question itself, without the choices.
        answer: the right one: one of the choices, a number, or a short text; None where nobody can mark it (a topic).
        choices: the texts to choose from; empty unless `kind` is "choice".
        kind: how an answer is read.
    """

    id: str
    text: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    kind: Kind = "text"

    def prompt(self, rotation: int = 0) -> str:
        """The text, and under it the choices by their texts: the list begins so many places later, and goes round."""
        if not self.choices:
            return self.text
        start = rotation % len(self.choices)
        return "\n- ".join((self.text, *self.choices[start:], *self.choices[:start]))

    def read(self, said: str) -> str | None:
        """The answer that a text commits to, as equal answers share it (see `compare.normal`); None: it cannot be read.

        Digits and letters of any width are read alike. Of choices that are numbers, the text's number has to be one.
        """
        said = _plain(said[-extract.MOST_TEXT :])
        if self.kind == "text":
            return normal(extract.short_answer(said)) or None
        if self.kind == "number" or all(map(_is_number, self.choices)):
            number = extract.last_number(said)
            found = None if number is None else normal(number)
            return found if self.kind == "number" or any(found == normal(choice) for choice in self.choices) else None
        chosen = extract.label(said, [_plain(choice) for choice in self.choices])
        return None if chosen is None else normal(chosen)

    def right(self, answer: str | None) -> bool:
        """Whether what `read` has returned is right; what could not be read is wrong, and so is all of a topic."""
        return answer is not None and self.answer is not None and answer == self.read(f"Answer: {self.answer}")


def digest(questions: Sequence[Question]) -> str:
    """SHA-256 of all that the questions hold, in their order: of the same digest are the same questions."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", text))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(normal(text)) is not None


# -- from a file ----------------------------------------------------------------------------------------------------


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a JSONL file, in its order; keys that are not of `Question` are passed over.

    Raises:
        MissingFileError: there is no such file.
        DataError: what is wrong with it, every problem with `file:line`.
    """
    found: list[Question] = []
    problems: list[str] = []
    ids: dict[str, int] = {}
    asked: dict[object, int] = {}
    for number, value in read_lines(path, lambda _: None):
        made, wrong = _question(value, f"line-{number}")
        if made is not None:
            same = normal(made.text), frozenset(map(normal, made.choices))
            if made.id in ids:
                wrong.append(f"the id {_shown(made.id)} is that of line {ids[made.id]}")
            if same in asked:
                wrong.append(f"it asks the same as line {asked[same]}")
            ids.setdefault(made.id, number)
            asked.setdefault(same, number)
            found.append(made)
        problems += [f"{path}:{number}: {problem}" for problem in wrong]
        if len(found) > MOST_QUESTIONS:
            raise DataError(f"{path} has more than {MOST_QUESTIONS} questions.", hint="Ask a part of them.")
    refuse(problems, path, _FORM, "used")
    if not found:
        raise DataError(f"{path} holds no question.", hint=_FORM)
    return tuple(found)


def _question(value: Any, name: str) -> tuple[Question | None, list[str]]:
    """The question of a line, and all that is wrong with it."""
    if isinstance(value, BadLineError):
        return None, [f"the line {value}"]
    if not isinstance(value, dict):
        return None, ["it is no object with `question` and `answer`"]
    wrong = list(_problems(value))
    if wrong:
        return None, wrong
    answer, choices = _text(value["answer"]), tuple(str(_text(each)) for each in value.get("choices") or ())
    numeric = not isinstance(value["answer"], str) or _is_number(value["answer"])
    kind: Kind = value.get("checker") or ("choice" if choices else "number" if numeric else "text")
    text = str(value["question"] if "question" in value else value["prompt"])
    known = name if value.get("id") is None else str(_text(value["id"]))
    made = Question(known, text.strip(), answer, choices, kind)
    if kind == "number" and not numeric:
        wrong.append(f"the answer {_shown(answer)} is no number")
    elif bool(choices) != (kind == "choice"):
        wrong.append(f"the checker is {kind}, and there are {'' if choices else 'no '}choices")
    elif choices and normal(answer) not in map(normal, choices):
        wrong.append(f"the answer {_shown(answer)} is none of the choices")
    elif not made.right(made.read(f"Answer: {answer}")):
        wrong.append(f"the answer {_shown(answer)} could not be read from a text")
    return made, wrong


def _problems(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the single values of a line."""
    named = [key for key in ("question", "prompt") if key in value]
    if len(named) != 1:
        yield "there are both `question` and `prompt`" if named else "there is no `question`"
    choices = value.get("choices")
    if choices is not None and not (isinstance(choices, list) and 2 <= len(choices) <= MOST_CHOICES):
        yield f"the choices are no list of 2 to {MOST_CHOICES}"
        choices = None
    places = {f"choice {place}": each for place, each in enumerate(choices or (), 1)}
    if len({normal(each) for each in places.values() if _text(each)}) < len(places):
        yield "two choices are the same, or one is no text and no number"
    rest = {"id": value["id"]} if value.get("id") is not None else {}
    for key, each in {**{key: value[key] for key in named}, "answer": value.get("answer"), **places, **rest}.items():
        if not (text := _text(each)) or (key in named and not isinstance(each, str)):
            yield f"the {key} is {'missing' if each is None else 'empty or of the wrong type'}"
        elif not is_unicode(text):
            yield f"the {key} holds half of a character (a lone surrogate)"
    if value.get("checker") not in (None, *get_args(Kind)):
        yield f"the checker is none of {', '.join(get_args(Kind))}"


def _text(value: Any) -> str | None:
    """A text, or a number as a text; None for all else, also for one so large that it was read as infinite."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (math.inf, -math.inf):
        return None
    return str(value)


def _shown(value: Any) -> str:
    return ascii(value)[:60]
