"""From files of conversations to what a training takes, and what is to be known of it before. Needs no model."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import Field

from agentlab.runs.document import AnswerDocument, Block, Plain, Table, Text
from agentlab.train.conversations import Conversation, ConversationFile, read_conversations
from agentlab.train.dataset import TrainingSplit, hold_out, normalise_text
from agentlab.train.masks import Example, examples

FEW_TURNS, LITTLE_LEARNT = 50, 0.05
_SHOWN = 10  # leaks in a table


class TokenCounts(Plain):
    """What a tokenizer makes of conversations."""

    total: int
    shortest: int = Field(description="Tokens of the shortest conversation.")
    median: float
    longest: int
    learnt: int = Field(
        description="Tokens that contribute to the loss: the assistant's, including the end of each turn."
    )
    truncated: int = Field(description="Conversations that were too long and lost their oldest turns.")
    dropped_turns: int

    @property
    def share(self) -> float:
        """Of the tokens, how many are learnt."""
        return self.learnt / self.total if self.total else 0.0


class DataSide(Plain):
    """What is trained on, or what is held out. `turns` are the assistant's, before any are dropped."""

    conversations: int
    turns: int
    duplicates: int = Field(description="Conversations identical to an earlier one.")
    tokens: TokenCounts | None = Field(description="Null before tokenization.")


class Leak(Plain):
    """A held-out conversation and the first one of the training that it shares most with; lines of their files.

    Turns are the same but for case and punctuation, whatever the system message; `exact`: all of both to the letter.
    """

    held_out: int
    train: int
    turns: int = Field(description="Number of identical turns, starting with the first question.")
    exact: bool

    @property
    def same(self) -> str:
        if self.exact:
            return "all turns"
        return "the first question" if self.turns == 1 else f"the first {self.turns} turns"


class DataReport(AnswerDocument):
    """Both sides of the data, what they share, and what to think about before training."""

    source: str
    train: DataSide
    held_out: DataSide
    leaks: tuple[Leak, ...]
    warnings: tuple[str, ...]

    @property
    def leaked_share(self) -> float:
        """Of the held-out conversations, how many the training has seen."""
        return len(self.leaks) / self.held_out.conversations if self.held_out.conversations else 0.0

    def blocks(self) -> list[Block]:
        rows = [(name, cell(self.train), cell(self.held_out)) for name, cell in _ROWS]
        trained, held_out = self.train.tokens, self.held_out.tokens
        if trained and held_out:
            rows += [(name, cell(trained), cell(held_out)) for name, cell in _TOKEN_ROWS]
        blocks: list[Block] = [Table(("", "training", "held out"), rows, caption=self.source)]
        if self.leaks:
            leak_rows = [(str(leak.held_out), str(leak.train), leak.same) for leak in self.leaks[:_SHOWN]]
            caption = f"Held-out conversations that overlap with training: {len(self.leaks)} ({self.leaked_share:.0%})"
            blocks.append(Table(("held-out line", "training line", "in common"), leak_rows, caption=caption))
        return [*blocks, *(Text(f"Warning: {warning}") for warning in self.warnings)]


_ROWS: tuple[tuple[str, Callable[[DataSide], str]], ...] = (
    ("conversations", lambda side: str(side.conversations)),
    ("assistant turns", lambda side: str(side.turns)),
    ("duplicates", lambda side: str(side.duplicates)),
)
_TOKEN_ROWS: tuple[tuple[str, Callable[[TokenCounts], str]], ...] = (
    ("tokens", lambda tokens: str(tokens.total)),
    ("tokens per conversation", lambda tokens: f"{tokens.shortest} to {tokens.longest}, median {tokens.median:g}"),
    ("trained tokens", lambda tokens: f"{tokens.learnt} ({tokens.share:.1%})"),
    ("truncated conversations", lambda tokens: str(tokens.truncated)),
    ("dropped turns", lambda tokens: str(tokens.dropped_turns)),
)


def data_report(
    source: str, train: Sequence[Conversation], held_out: Sequence[Conversation], split: TrainingSplit | None
) -> DataReport:
    """The report on conversations of the files `source` and, if they are tokenised already, their examples."""
    train_side = _side(train, None if split is None else split.train)
    held_out_side = _side(held_out, None if split is None else split.held_out)
    leaks = tuple(leakage(train, held_out))
    warnings = tuple(_warnings(train_side, held_out_side, len(leaks)))
    return DataReport(source=source, train=train_side, held_out=held_out_side, leaks=leaks, warnings=warnings)


def _side(conversations: Sequence[Conversation], examples: Sequence[Example] | None) -> DataSide:
    turns = chain.from_iterable(conversation.turns for conversation in conversations)
    return DataSide(
        conversations=len(conversations),
        turns=sum(turn.role == "assistant" for turn in turns),
        duplicates=len(conversations) - len({conversation.turns for conversation in conversations}),
        tokens=None if examples is None else tokens_of(examples),
    )


def tokens_of(examples: Sequence[Example]) -> TokenCounts:
    """The counts of one side of the data."""
    lengths = [len(example.input_ids) for example in examples] or [0]
    return TokenCounts(
        total=sum(lengths),
        shortest=min(lengths),
        median=median(lengths),
        longest=max(lengths),
        learnt=sum(example.learnt for example in examples),
        truncated=sum(example.dropped_turns > 0 for example in examples),
        dropped_turns=sum(example.dropped_turns for example in examples),
    )


def _warnings(train: DataSide, held_out: DataSide, leaks: int) -> Iterator[str]:
    if train.turns < FEW_TURNS:
        yield f"only {train.turns} assistant turns for training; an adapter learns little from fewer than {FEW_TURNS}."
    if train.tokens and train.tokens.share < LITTLE_LEARNT:
        yield (
            f"only {train.tokens.share:.1%} of the tokens are trained on; most of the time is spent on "
            "prompts. Shorten system messages and questions, or remove turns whose answers teach nothing."
        )
    if not held_out.conversations:
        yield "nothing is held out, so overfitting would go unnoticed."
    for name, side in (("for training", train), ("held out", held_out)):
        if side.duplicates:
            yield f"duplicate conversations {name}: {side.duplicates}; each copy counts."
        if side.tokens and side.tokens.truncated:
            yield (
                f"conversations {name} that exceed training.max_length: {side.tokens.truncated}; "
                f"turns dropped, oldest first: {side.tokens.dropped_turns}."
            )
    if leaks:
        yield (
            f"{leaks} of {held_out.conversations} held-out conversations overlap with training, so the "
            "held-out loss partly measures memorisation."
        )


def leakage(train: Sequence[Conversation], held_out: Sequence[Conversation]) -> list[Leak]:
    """One for each held-out conversation of which a question was learnt in its context, exact ones first.

    The context of a question is all that was said before it: "And then?" is asked in many conversations.
    """
    exact_lines, seen = dict[object, int](), dict[bytes, int]()
    for conversation in train:
        exact_lines.setdefault(conversation.turns, conversation.line)
        for beginning in _beginnings(conversation):
            seen.setdefault(beginning, conversation.line)
    leaks = list[Leak]()
    for conversation in held_out:
        turns, line = 0, 0
        for count, beginning in enumerate(_beginnings(conversation), 1):
            if beginning not in seen:
                break
            turns, line = count, seen[beginning]
        exact = exact_lines.get(conversation.turns)
        if turns:
            leaks.append(Leak(held_out=conversation.line, train=exact or line, turns=turns, exact=exact is not None))
    return sorted(leaks, key=lambda leak: not leak.exact)


def _beginnings(conversation: Conversation) -> Iterator[bytes]:
    """A digest of the first question, of it and its answer, of these and the next question, and so on."""
    digest = hashlib.sha256()
    for turn in conversation.turns:
        if turn.role != "system":
            digest.update(hashlib.sha256(normalise_text(turn.content).encode()).digest())
            yield digest.digest()


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
        learnt = str(self.learnt.path)
        return learnt if self.held_out is None else f"{learnt}, held out: {self.held_out.path}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is trained on; the conversations that are held out, in the order of `split.held_out`; and the report."""

    split: TrainingSplit
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
    split = TrainingSplit(
        examples(train, tokenizer, max_length, data.learnt.path, pause),
        examples(held_out, tokenizer, max_length, (data.held_out or data.learnt).path, pause),
    )
    return Prepared(split, held_out, data_report(str(data), train, held_out, split))


def survey(data: Data, *, eval_fraction: float, seed: int) -> DataReport:
    """The report as far as it goes without a tokenizer: all but the tokens."""
    return data_report(str(data), *data.halves(eval_fraction, seed), None)
