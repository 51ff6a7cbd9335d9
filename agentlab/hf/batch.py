"""Many answers at a time, each under an adapter of its own: rows enter and leave between steps."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch  # noqa: TID253 - reached lazily, where a model answers

from agentlab.errors import UsageError
from agentlab.hf.cache import Apart, Table
from agentlab.hf.prefill import Past, Prompt, Read, piece_of, read_all, unmergeable
from agentlab.lora.rowwise import Rowwise

_ADMITTED = 8  # a share of the rows that one admission changes at least: reading a prompt takes as long as a step
_LIKELY = 2048  # tokens that are put in order first


@dataclass(eq=False, slots=True)
class Row:
    """An answer in the making; the object itself is its key.

    Attributes:
        adapter: its place, or BASE.
        prompt: tokens, at least one.
        max_tokens: of the answer, at least 1. That prompt and answer fit the context is for the caller to see.
        temperature: 0 for the likeliest token; see `pick`.
        top_p: see `pick`.
        generator: draws the tokens, unless the temperature is 0; on the model's device.
        logprob: whether `Token.logprob` is wanted.
        past, known: see `Prompt`.
        keep: whether `past` is wanted when the row is finished: what was read of the prompt and of the answer, which is
            all but its last token. Not where the model is `slow`.
    """

    adapter: int
    prompt: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    generator: torch.Generator | None = None
    logprob: bool = False
    past: Past | None = None
    known: int = 0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of a row.

    Attributes:
        token: with finish "stop", the one that ends the answer and is no part of it.
        logprob: natural, under the raw logits, before temperature and top_p; None unless it was asked for.
        finish: why the row has left, if it has: one of the ends came, or `max_tokens` are there.
        count: tokens of the answer by now, this one included.
    """

    row: Row
    token: int
    count: int
    logprob: float | None = None
    finish: Literal["stop", "length"] | None = None


class Batch:
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
        self._table: Table | Apart = Table(self._model) if self.slow is None else Apart()
        self._newest: list[Token] = []  # of each row that lives, in the table's order: not read yet
        self._coming: set[Row] = set()  # will live when their prompts are read
        self._new: list[Row] = []  # those of them that are to be read in pieces, and are not begun
        self._begun: deque[tuple[Sequence[Row], Iterator[Read]]] = deque()

    def __len__(self) -> int:
        """How many rows live, or will when their prompts are read."""
        return len(self._newest) + len(self._coming)

    def __contains__(self, row: Row) -> bool:
        """Whether it lives, or will."""
        return row in self._coming or any(each.row is row for each in self._newest)

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> list[Token]:
        """Read prompts at once, all or none of them: the first token of each answer, in the order of the rows.

        Rows of one adapter that begin alike read their common beginning once.

        Raises:
            UsageError: a row has no prompt, asks for no token, names no adapter, or wants to draw without a generator.
        """
        self._expect(rows)
        found: dict[Row, Token] = {}
        try:
            pieces = self._pieces(rows)
            while len(found) < len(rows):
                found.update((each.row, each) for each in self._read(rows, pieces))
        except BaseException:
            self.evict(rows)
            raise
        return [found[row] for row in rows]

    def enter(self, rows: Sequence[Row]) -> None:
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
        self._begun += [(some, self._pieces(some, piece)) for some in (short, *long) if some]
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
        rows, last = [each.row for each in self._newest], [each.token for each in self._newest]
        try:
            logits = self._table.step(self._model, self._adapters, [row.adapter for row in rows], last)
            tokens = self._picked(rows, logits, [each.count for each in self._newest])
            for place, each in enumerate(tokens):
                if each.finish and each.row.keep and isinstance(self._table, Table):
                    each.row.past = self._table.past(place)
        except BaseException:
            self._clear()
            raise
        self._newest = list(tokens)
        self.evict(each.row for each in tokens if each.finish)
        return tokens

    @torch.inference_mode()
    def evict(self, rows: Iterable[Row]) -> None:
        """Let rows go before they are finished, as when nobody waits for them; those that have left are passed."""
        gone = set(rows)
        self._coming -= gone
        self._begun = deque(each for each in self._begun if not self._coming.isdisjoint(each[0]))
        for place in reversed(range(len(self._newest))):
            if self._newest[place].row in gone:
                self._table.leave(place)
                self._newest[place] = self._newest[-1]
                self._newest.pop()

    def run(self, rows: Iterable[Row], size: int, *, waves: bool = False) -> Iterator[list[Token]]:
        """Answer rows, at most `size` side by side, in the order given: the tokens of each admission and step.

        `rows`: taken when there is room for them; `waves`: fill the table when it is empty, and only then; else
        whenever an eighth of it is free.
        """
        waiting, entered = iter(rows), list[Row]()
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

    def _expect(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if not row.prompt or row.max_tokens < 1 or (row.temperature > 0 and row.generator is None):
                raise UsageError("A row needs a prompt, a token to answer with, and to draw it, a generator.")
        self._coming.update(rows)

    def _pieces(self, rows: Sequence[Row], piece: int | None = None) -> Iterator[Read]:
        prompts = [Prompt(row.adapter, row.prompt, row.past, row.known) for row in rows]
        return read_all(self._model, self._adapters, prompts, piece)

    def _read(self, rows: Sequence[Row], pieces: Iterator[Read]) -> list[Token]:
        """Read a piece; the first tokens of those of the rows whose prompts are read, unless they have been let go."""
        part, logits, past = next(pieces)
        places = [place for place, index in enumerate(part) if rows[index] in self._coming]
        if not places:
            return []
        tokens = self._picked([rows[part[place]] for place in places], logits[places], [0] * len(places))
        for place, each in zip(places, tokens, strict=True):
            each.row.past = past.row(place) if each.finish and each.row.keep else None
        entering = [(place, each) for place, each in zip(places, tokens, strict=True) if not each.finish]
        if entering:
            self._table.enter([(past, place, len(each.row.prompt)) for place, each in entering], len(self))
        self._newest += [each for _, each in entering]
        self._coming.difference_update(each.row for each in tokens)
        return tokens

    def _picked(self, rows: Sequence[Row], logits: torch.Tensor, counts: Sequence[int]) -> list[Token]:
        """A token for each row from logits of shape (rows, vocabulary), where so many were picked before."""
        logits = logits.float()
        tokens: list[int] = logits.argmax(-1).tolist()
        for place, row in enumerate(rows):
            if row.generator is not None and row.temperature > 0:
                tokens[place] = pick(logits[place], row.temperature, row.top_p, row.generator)
        wanted = [place for place, row in enumerate(rows) if row.logprob]
        chosen = torch.tensor([tokens[place] for place in wanted], dtype=torch.long, device=logits.device)
        known = dict(zip(wanted, _logprobs(logits[wanted], chosen), strict=True)) if wanted else {}
        return [
            Token(row, token, count + 1, known.get(place), self._finish(row, token, count + 1))
            for place, (row, token, count) in enumerate(zip(rows, tokens, counts, strict=True))
        ]

    def _finish(self, row: Row, token: int, count: int) -> Literal["stop", "length"] | None:
        if token in self._ends:
            return "stop"
        return "length" if count >= row.max_tokens else None


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    found: list[float] = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1).tolist()
    return found


def pick(logits: torch.Tensor, temperature: float, top_p: float | None, generator: torch.Generator) -> int:
    """A token drawn from softmax(logits / temperature), or the likeliest at temperature 0.

    With `top_p`, from the smallest set of likeliest tokens whose probability is at least that (Holtzman et al.,
    "The Curious Case of Neural Text Degeneration", section 3.1).

    Args:
        logits: float of shape (vocabulary,), on the generator's device.
        top_p: in (0, 1], or None for all tokens.
        generator: draws once, unless the temperature is 0.
    """
    above = logits.double() - logits.max()  # at most 0: divided by a tiny temperature, the best one stays a number
    if temperature == 0 or above.isnan().any():  # a model that overflows spoils its answer, not those of others
        return int(logits.argmax())
    chances = torch.softmax(above / temperature, dim=-1)
    # as torch.multinomial draws: a lot for each token in their order, and the largest share wins; but to know their
    # order takes three times as long as all the rest, and the winner is among the first, as a bound nearly always shows
    lots = torch.empty_like(chances).exponential_(generator=generator)
    for count in (min(_LIKELY, len(chances)), len(chances)):
        least = chances.topk(count, sorted=False).values.min()
        tokens = (chances >= least).nonzero().squeeze(1)
        likely, order = chances[tokens].sort(descending=True, stable=True)
        if top_p is not None:
            likely = likely.where(likely.cumsum(-1) - likely < top_p, 0.0)
        shares, rest = likely / lots[: len(likely)], lots[len(likely) :]
        if likely[-1] == 0 or not len(rest) or shares.max() > least / rest.min():
            break
    return int(tokens[order[shares.argmax()]])
