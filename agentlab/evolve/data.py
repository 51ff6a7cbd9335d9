"""The questions of a run: those that the search sees, and the sealed ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.evolve.config import TasksConfig
from agentlab.lora.card import read_card
from agentlab.tasks.labelled import right_place
from agentlab.tasks.questions import QuizQuestion, generate_questions, read_questions
from agentlab.tasks.splits import Exchange, exchanges
from agentlab.tasks.splits import split as distinct
from agentlab.train.conversations import read_conversations

_LABELS = 'Every line needs `choices` and `answer`: {"question": "...", "choices": ["Lima", "Quito"], "answer": "Lima"}'


@dataclass(frozen=True, slots=True)
class QuestionSplit:
    """Questions with choices. `unknown` are the parents of which nobody knows what they were trained on."""

    train: tuple[QuizQuestion, ...]
    test: tuple[QuizQuestion, ...]
    unknown: tuple[str, ...] = ()

    @property
    def right(self) -> tuple[int, ...]:
        return tuple(map(right_place, self.train))


def set_of(question: QuizQuestion) -> str:
    """The set that a question is of: its id up to the number."""
    return question.id.rpartition("-")[0] or "file"


def split(config: TasksConfig, seed: int, workspace: Workspace, learnt: Sequence[Exchange]) -> QuestionSplit:
    """Distinct questions for both sides, in equal shares of each set; no two of different sides share a fact.

    `seed`: of who comes where; `learnt`: what the parents were trained on; no question shares a fact with it.

    Raises:
        MissingFileError, DataError: the file is absent, not what it should be, or has a question without choices.
        UnknownNameError, UsageError: there is no such set, or it has no more distinct questions.
    """
    parts: dict[str, list[QuizQuestion]] = {"train": [], "test": []}
    sets = {"file": _read_labelled(config.file, workspace)} if config.file is not None else None
    names = list(config.generate) if sets is None else list(sets)
    for index, name in enumerate(names):
        questions = generate_questions(name, None, seed) if sets is None else sets[name]
        sizes = {part: _share(getattr(config, part), len(names), index) for part in parts}
        for part, chosen in distinct({name: questions}, sizes, seed, learnt).items():
            parts[part] += chosen
    return QuestionSplit(tuple(_interleave(parts["train"])), tuple(parts["test"]))


def _read_labelled(file: str, workspace: Workspace) -> tuple[QuizQuestion, ...]:
    questions = read_questions(workspace.resolve(file))
    if bare := [question.id for question in questions if question.kind != "choice" or question.answer is None]:
        raise DataError(
            f"{file} has questions without choices or without an answer: {', '.join(bare[:5])}.", hint=_LABELS
        )
    return questions


def lessons(parents: Mapping[str, Path], workspace: Workspace) -> tuple[list[Exchange], list[str]]:
    """What parents were trained on, as far as the files are there that their cards name; and the other parents."""
    learnt, unknown = list[Exchange](), list[str]()
    for name, folder in parents.items():
        data = read_card(folder).data
        path = None if data.path is None else workspace.resolve(data.path)
        if path is None or not path.is_file():
            unknown.append(name)
        else:
            learnt += exchanges(read_conversations(path).conversations)
    return learnt, unknown


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)


def _interleave(questions: Sequence[QuizQuestion]) -> list[QuizQuestion]:
    """Sets by turns, so that whoever stops early was asked of all of them."""
    by_set: dict[str, list[QuizQuestion]] = {}
    for question in questions:
        by_set.setdefault(set_of(question), []).append(question)
    placed: list[tuple[float, int, QuizQuestion]] = []
    for number, group in enumerate(by_set.values()):
        placed += [(position / len(group), number, question) for position, question in enumerate(group)]
    return [question for *_, question in sorted(placed, key=lambda entry: entry[:2])]
