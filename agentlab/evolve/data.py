"""The questions of a run: those that the search sees, and the sealed ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.evolve.config import TasksConfig
from agentlab.tasks.questions import Question, generated, read_questions

_LABELS = 'Every line needs `choices` and `answer`: {"question": "...", "choices": ["Lima", "Quito"], "answer": "Lima"}'


@dataclass(frozen=True, slots=True)
class Split:
    """Questions with choices. `sets` says of which set each question of `train` and `test` is."""

    train: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def right(self) -> tuple[int, ...]:
        """Of each question of `train`, the place of the right choice."""
        return places(self.train)


def places(questions: Sequence[Question]) -> tuple[int, ...]:
    """Of each question, the place of the right choice."""
    return tuple(
        next(place for place, choice in enumerate(q.choices) if q.right(q.read(f"Answer: {choice}"))) for q in questions
    )


def set_of(question: Question) -> str:
    """The set that a question is of: its id up to the number."""
    return question.id.rpartition("-")[0] or "file"


def split(config: TasksConfig, seed: int, workspace: Workspace) -> Split:
    """Distinct questions for both sides, in equal shares of each set.

    Raises:
        MissingFileError, DataError: the file is absent, not what it should be, or has a question without choices.
        UnknownNameError, UsageError: there is no such set, or it has no more distinct questions.
    """
    if config.file is not None:
        found = read_questions(workspace.resolve(config.file))
        if bare := [question.id for question in found if question.kind != "choice" or question.answer is None]:
            raise DataError(
                f"{config.file} has questions without choices or answer: {', '.join(bare[:5])}.", hint=_LABELS
            )
        if len(found) < config.train + config.test:
            raise DataError(
                f"{config.file} has {len(found)} questions, and {config.train} + {config.test} are to be split.",
                hint="Lower tasks.train or tasks.test.",
            )
        return Split(found[: config.train], found[config.train : config.train + config.test])
    train, test = list[Question](), list[Question]()
    for place, name in enumerate(config.generate):
        counts = [_share(whole, len(config.generate), place) for whole in (config.train, config.test)]
        some = generated(name, sum(counts), seed)
        train, test = [*train, *some[: counts[0]]], [*test, *some[counts[0] :]]
    return Split(tuple(_mixed(train)), tuple(test))


def _share(whole: int, parts: int, place: int) -> int:
    return whole // parts + (place < whole % parts)


def _mixed(questions: Sequence[Question]) -> list[Question]:
    """Sets by turns, so that whoever stops early was asked of all of them."""
    by_set: dict[str, list[Question]] = {}
    for question in questions:
        by_set.setdefault(set_of(question), []).append(question)
    order = [
        (place / len(group), number, q) for number, group in enumerate(by_set.values()) for place, q in enumerate(group)
    ]
    return [question for *_, question in sorted(order, key=lambda each: each[:2])]
