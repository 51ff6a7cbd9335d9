"""Many answers at a time, each under an adapter of its own: rows enter and leave between steps."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch  # noqa: TID253 - reached lazily, where a model answers

from agentlab.errors import UsageError
from agentlab.hf.cache import CacheTable, SeparateCaches
from agentlab.hf.prefill import CachedPast, Prompt, Read, piece_of, read_all, unmergeable
from agentlab.lora.rowwise import Rowwise

_ADMITTED = 8  # a share of the rows that one admission changes at least: reading a prompt takes as long as a step
_LIKELY = 2048  # tokens that are put in order first


@dataclass(eq=False, slots=True)
class AnswerRow:
    """An answer in the making; the object itself is its key.

    `keep`: whether `past` is wanted when the row is finished: what was read of the prompt and of the answer, which is
    all but its last token. Not where the model is `slow`.
    """

    adapter: int  # its place, or BASE
    prompt: Sequence[int]  # tokens, at least one
    max_tokens: int  # of the answer, at least 1; the caller sees to it that prompt and answer fit the context
    temperature: float = 0.0  # 0 for the likeliest token; see `pick`
    top_p: float | None = None  # see `pick`
    generator: torch.Generator | None = None  # draws the tokens, unless the temperature is 0; on the model's device
    logprob: bool = False  # whether `Token.logprob` is wanted
    past: CachedPast | None = None  # see `Prompt`
    known: int = 0  # see `Prompt`
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of a row."""

    row: AnswerRow
    token: int  # with finish "stop", the one that ends the answer and is no part of it
    count: int  # tokens of the answer by now, this one included
    logprob: float | None = None  # natural, under the raw logits, before temperature and top_p; None unless asked for
    finish: Literal["stop", "length"] | None = None  # why the row has left: an end came, or `max_tokens` are there


class AnswerBatch:
    """A table of rows that are answered side by side. Not thread-safe.

    What a row's numbers are depends in the last bits on which rows share its steps: the same rows admitted in the same
    order between the same steps give the same bits, on the same machine with as many threads, and nothing else does.
    A caller that promises an exact resume asks `run` for waves: no row enters before the last one has left, so that
    an answer depends on its wave alone, and each wave can be done again. A caller that serves several people lets
    rows `enter`, and asks by turns for a `step` and to `read`: a long prompt is read in pieces, and nobody waits for
    more than one of them.

    Whatever fails, the table is right afterwards: rows whose prompts could not be read have left, and the others go on;
    if a step fails, all have left. `slow`: why rows of this architecture are computed one by one; None where they share
    their steps.
    """

    def __init__(self, model: Any, adapters: Rowwise, ends: Collection[int]) -> None:
        """`model` is causal and in evaluation mode, `adapters` are its own, `ends` the tokens that end an answer."""
        self._model, self._adapters, self._ends = model, adapters, frozenset(ends)
        self.slow = unmergeable(model)
        self._clear()

    def _clear(self) -> None:
        self._table: CacheTable | SeparateCaches = CacheTable(self._model) if self.slow is None else SeparateCaches()
        self._newest: list[Token] = []  # of each row that lives, in the table's order: not read yet
        self._coming: set[AnswerRow] = set()  # will live when their prompts are read
        self._new: list[AnswerRow] = []  # those of them that are to be read in pieces, and are not begun
        self._begun: deque[tuple[Sequence[AnswerRow], Iterator[Read]]] = deque()

    def __len__(self) -> int:
        """How many rows live, or will when their prompts are read."""
        return len(self._newest) + len(self._coming)

    def __contains__(self, row: AnswerRow) -> bool:
        return row in self._coming or any(token.row is row for token in self._newest)

    @torch.inference_mode()
    def admit(self, rows: Sequence[AnswerRow]) -> list[Token]:
        """Read prompts at once, all or none of them: the first token of each answer, in the order of the rows.

        Rows of one adapter that begin alike read their common beginning once.

        Raises:
            UsageError: a row has no prompt, asks for no token, names no adapter, or wants to draw without a generator.
        """
        self._expect(rows)
        first_tokens: dict[AnswerRow, Token] = {}
        try:
            pieces = self._pieces(rows)
            while len(first_tokens) < len(rows):
                first_tokens.update((token.row, token) for token in self._read(rows, pieces))
        except BaseException:
            self.evict(rows)
            raise
        return [first_tokens[row] for row in rows]

    def enter(self, rows: Sequence[AnswerRow]) -> None:
        """Let rows come; `read` is to read their prompts. Errors: see `admit`."""
        self._expect(rows)
        self._new += rows

    @torch.inference_mode()
    def read(self) -> list[Token]:
        """Read a piece of the prompts of rows that come: the first tokens of those whose prompts are read by now.

        Short prompts that come together are read together; longer ones by turns.
        """
        piece, new, self._new = piece_of(self._model), [row for row in self._new if row in self._coming], []
        short = [row for row in new if len(row.prompt) <= piece]
        long = [[row] for row in new if len(row.prompt) > piece]
        self._begun += [(group, self._pieces(group, piece)) for group in (short, *long) if group]
        if not self._begun:
            return []
        rows, pieces = self._begun[0]
        try:
            tokens = self._read(rows, pieces)
        except BaseException:
            self.evict(self._coming.intersection(rows))
            raise
        self.evict([])
        self._begun.rotate(-1)
        return tokens

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """The next token of every row that lives. Those that are finished have left afterwards."""
        if not self._newest:
            return []
        rows, last = [token.row for token in self._newest], [token.token for token in self._newest]
        try:
            logits = self._table.step(self._model, self._adapters, [row.adapter for row in rows], last)
            tokens = self._pick_tokens(rows, logits, [token.count for token in self._newest])
            for index, token in enumerate(tokens):
                if token.finish and token.row.keep and isinstance(self._table, CacheTable):
                    token.row.past = self._table.copy_past(index)
        except BaseException:
            self._clear()
            raise
        self._newest = list(tokens)
        self.evict(token.row for token in tokens if token.finish)
        return tokens

    @torch.inference_mode()
    def evict(self, rows: Iterable[AnswerRow]) -> None:
        """Let rows go before they are finished, as when nobody waits for them; those that have left are passed."""
        leaving = set(rows)
        self._coming -= leaving
        self._begun = deque(reading for reading in self._begun if not self._coming.isdisjoint(reading[0]))
        for index in reversed(range(len(self._newest))):
            if self._newest[index].row in leaving:
                self._table.leave(index)
                self._newest[index] = self._newest[-1]
                self._newest.pop()

    def run(self, rows: Iterable[AnswerRow], size: int, *, waves: bool = False) -> Iterator[list[Token]]:
        """Answer rows, at most `size` side by side, in the order given: the tokens of each admission and step.

        `rows`: taken when there is room for them; `waves`: fill the table when it is empty, and only then; else
        whenever an eighth of it is free.
        """
        waiting, entered = iter(rows), list[AnswerRow]()
        try:
            while True:
                free = size - len(self)
                if not self._newest or (not waves and free * _ADMITTED >= size):
                    entering = list(islice(waiting, free))
                    if entering:
                        entered += entering
                        yield self.admit(entering)
                        continue
                if not self._newest:
                    return
                yield self.step()
        finally:
            self.evict(entered)  # where nobody asks for the rest

    def _expect(self, rows: Sequence[AnswerRow]) -> None:
        for row in rows:
            if not row.prompt or row.max_tokens < 1 or (row.temperature > 0 and row.generator is None):
                raise UsageError(
                    "A row needs a prompt, max_tokens of at least 1 and, at a temperature above 0, a generator."
                )
        self._coming.update(rows)

    def _pieces(self, rows: Sequence[AnswerRow], piece: int | None = None) -> Iterator[Read]:
        prompts = [Prompt(row.adapter, row.prompt, row.past, row.known) for row in rows]
        return read_all(self._model, self._adapters, prompts, piece)

    def _read(self, rows: Sequence[AnswerRow], pieces: Iterator[Read]) -> list[Token]:
        """Read a piece; the first tokens of those of the rows whose prompts are read, unless they have been let go."""
        part, logits, past = next(pieces)
        positions = [position for position, index in enumerate(part) if rows[index] in self._coming]
        if not positions:
            return []
        complete_rows = [rows[part[position]] for position in positions]
        tokens = self._pick_tokens(complete_rows, logits[positions], [0] * len(positions))
        for position, token in zip(positions, tokens, strict=True):
            token.row.past = past.row(position) if token.finish and token.row.keep else None
        entering = [(position, token) for position, token in zip(positions, tokens, strict=True) if not token.finish]
        if entering:
            self._table.enter([(past, position, len(token.row.prompt)) for position, token in entering], len(self))
        self._newest += [token for _, token in entering]
        self._coming.difference_update(token.row for token in tokens)
        return tokens

    def _pick_tokens(self, rows: Sequence[AnswerRow], logits: torch.Tensor, counts: Sequence[int]) -> list[Token]:
        """A token for each row from logits of shape (rows, vocabulary), where so many were picked before."""
        logits = logits.float()
        tokens: list[int] = logits.argmax(-1).tolist()
        for index, row in enumerate(rows):
            if row.generator is not None and row.temperature > 0:
                tokens[index] = pick(logits[index], row.temperature, row.top_p, row.generator)
        scored_rows = [index for index, row in enumerate(rows) if row.logprob]
        chosen = torch.tensor([tokens[index] for index in scored_rows], dtype=torch.long, device=logits.device)
        logprobs = dict(zip(scored_rows, _logprobs(logits[scored_rows], chosen), strict=True)) if scored_rows else {}
        return [
            Token(row, token, count + 1, logprobs.get(index), self._finish(row, token, count + 1))
            for index, (row, token, count) in enumerate(zip(rows, tokens, counts, strict=True))
        ]

    def _finish(self, row: AnswerRow, token: int, count: int) -> Literal["stop", "length"] | None:
        if token in self._ends:
            return "stop"
        return "length" if count >= row.max_tokens else None


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    return logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1).tolist()


def pick(logits: torch.Tensor, temperature: float, top_p: float | None, generator: torch.Generator) -> int:
    """A token drawn from softmax(logits / temperature), or the likeliest at temperature 0.

    With `top_p`, from the smallest set of likeliest tokens whose probability is at least that (Holtzman et al.,
    "The Curious Case of Neural Text Degeneration", section 3.1). The logits are floats of shape (vocabulary,) on the
    generator's device, which draws once unless the temperature is 0.
    """
    above = logits.double() - logits.max()  # at most 0: divided by a tiny temperature, the best one stays a number
    if temperature == 0 or above.isnan().any():  # a model that overflows spoils its answer, not those of others
        return int(logits.argmax())
    chances = torch.softmax(above / temperature, dim=-1)
    # as torch.multinomial draws: a lot for each token in their order, and the largest share wins; but to know their
    # order takes three times as long as all the rest, and the winner is among the first, as a bound nearly always shows
    lots = torch.empty_like(chances).exponential_(generator=generator)
    for count in (min(_LIKELY, len(chances)), len(chances)):
        threshold = chances.topk(count, sorted=False).values.min()
        tokens = (chances >= threshold).nonzero().squeeze(1)
        likely, order = chances[tokens].sort(descending=True, stable=True)
        if top_p is not None:
            likely = likely.where(likely.cumsum(-1) - likely < top_p, 0.0)
        shares, other_lots = likely / lots[: len(likely)], lots[len(likely) :]
        if likely[-1] == 0 or not len(other_lots) or shares.max() > threshold / other_lots.min():
            break
    return int(tokens[order[shares.argmax()]])
