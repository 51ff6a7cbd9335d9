"""From files of conversations to what a training takes, and the report on it. Needs a tokenizer, and no model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.train.conversations import Conversation, ConversationFile, read_conversations
from agentlab.train.data_report import DataReport, data_report
from agentlab.train.dataset import Split, hold_out
from agentlab.train.masks import examples


@dataclass(frozen=True, slots=True)
class Data:
    """Conversations as they were read; `held_out` where those have a file of their own."""

    learnt: ConversationFile
    held_out: ConversationFile | None

    def halves(self, fraction: float, seed: int) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
        """(training, held out). The fraction is that of a single file, and nothing where there are two."""
        if self.held_out is not None:
            return self.learnt.conversations, self.held_out.conversations
        return hold_out(self.learnt.conversations, fraction, seed)

    def __str__(self) -> str:
        """The files."""
        learnt = str(self.learnt.path)
        return learnt if self.held_out is None else f"{learnt}, held out: {self.held_out.path}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is trained on; the conversations that are held out, in the order of `split.held_out`; and the report."""

    split: Split
    held_out: tuple[Conversation, ...]
    report: DataReport


def read_data(path: Path, eval_path: Path | None = None) -> Data:
    """The conversations of a file, and those of another to score on.

    Raises:
        MissingFileError: a file is absent.
        DataError: what is wrong with one, every problem with `file:line`.
    """
    return Data(read_conversations(path), None if eval_path is None else read_conversations(eval_path))


def prepare(
    data: Data,
    tokenizer: Any,
    *,
    max_length: int,
    eval_fraction: float,
    seed: int,
    pause: Callable[[], object] = lambda: None,
) -> Prepared:
    """Split, tokenise and examine; `pause` as in `masks.examples`.

    Raises:
        DataError: conversations of which nothing can be learnt, every one with `file:line`.
        ModelFileError: the tokenizer's template cannot be used for training.
    """
    train, held_out = data.halves(eval_fraction, seed)
    split = Split(
        examples(train, tokenizer, max_length, data.learnt.path, pause),
        examples(held_out, tokenizer, max_length, (data.held_out or data.learnt).path, pause),
    )
    return Prepared(split, held_out, data_report(str(data), train, held_out, split))


def survey(data: Data, *, eval_fraction: float, seed: int) -> DataReport:
    """The report as far as it goes without a tokenizer: all but the tokens."""
    return data_report(str(data), *data.halves(eval_fraction, seed), None)
