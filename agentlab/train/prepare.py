"""From files of conversations to what a training takes, and the report on it. Needs a tokenizer, and no model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.train.conversations import Conversation, read_conversations
from agentlab.train.data_report import DataReport, data_report
from agentlab.train.dataset import Split, hold_out
from agentlab.train.masks import examples


@dataclass(frozen=True, slots=True)
class Data:
    """Conversations as they were read; `held_out` where those have a file of their own, `eval_path`."""

    path: Path
    conversations: tuple[Conversation, ...]
    eval_path: Path | None
    held_out: tuple[Conversation, ...]

    def halves(self, fraction: float, seed: int) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
        """(training, held out). The fraction is that of a single file, and nothing where there are two."""
        if self.eval_path is not None:
            return self.conversations, self.held_out
        return hold_out(self.conversations, fraction, seed)

    def __str__(self) -> str:
        """The files."""
        return str(self.path) if self.eval_path is None else f"{self.path}, held out: {self.eval_path}"


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
    return Data(path, read_conversations(path), eval_path, () if eval_path is None else read_conversations(eval_path))


def prepare(data: Data, tokenizer: Any, *, max_length: int, eval_fraction: float, seed: int) -> Prepared:
    """Split, tokenise and examine.

    Raises:
        DataError: conversations of which nothing can be learnt, every one with `file:line`.
        ModelFileError: the tokenizer's template cannot be used for training.
    """
    train, held_out = data.halves(eval_fraction, seed)
    split = Split(
        examples(train, tokenizer, max_length, data.path),
        examples(held_out, tokenizer, max_length, data.eval_path or data.path),
    )
    return Prepared(split, held_out, data_report(str(data), train, held_out, split))


def survey(data: Data, *, eval_fraction: float, seed: int) -> DataReport:
    """The report as far as it goes without a tokenizer: all but the tokens."""
    return data_report(str(data), *data.halves(eval_fraction, seed), None)
