"""What a base model and its adapters make of texts: likelihoods and answers. Nothing is trained here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported by runs that train, when they score

from agentlab.errors import ModelFileError
from agentlab.hf.batch import Batch, Row
from agentlab.hf.packed import packed
from agentlab.hf.prefill import Prompt, batches, padded, read_all, slides
from agentlab.lora.rowwise import Rowwise, rowwise
from agentlab.lora.stacked import BASE
from agentlab.train.base import Base, quietly
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.collate import Collator
from agentlab.train.config import Figures
from agentlab.train.conversations import Turn
from agentlab.train.loss import learnt_losses
from agentlab.train.masks import IGNORED, Example

_TOKENS_AT_ONCE = 2048  # of a padded batch
_ROWS_AT_ONCE = 24  # of answers in the making, which grow
_CHOICES_AT_ONCE = 64  # rows, each with a copy of its question's keys and values

Asked = tuple[str | None, Sequence[Turn]]  # an adapter, and the messages up to its answer
Choice = tuple[str | None, str, Sequence[str]]  # an adapter, a question, and the answers to choose from


@contextmanager
def scorer(
    base: Base,
    adapters: Mapping[str, Path],
    done: Callable[[int], object] = lambda _: None,
    dtype: Figures = "float32",
) -> Iterator["Scorer"]:
    """The base with adapters by name, inside the `with` block; afterwards it is as it was.

    Args:
        base: not in training.
        adapters: folders in PEFT format, made for this base.
        done: hears, batch by batch and token by token, of how many more texts the likelihood is known, or how many more
            tokens are answered (counted up to `max_tokens`, wherever an answer ends). What it raises ends the scoring.
        dtype: float32 computes in it even where the base is loaded in 16 bits, which takes twice the memory; weights
            in 8 or 4 bits stay as they are. bfloat16 leaves the base as it is loaded.

    Raises:
        ModelFileError: the base does not fit the memory in float32.
    """
    with applied(base, list(adapters.values()), dtype) as rows:
        yield Scorer(base, rows, list(adapters), done)


@contextmanager
def applied(
    base: Base, adapters: Sequence[Path], dtype: Figures = "float32", *, any_base: bool = False
) -> Iterator[Rowwise]:
    """The adapters of a base that is to answer fast, inside the `with` block; see `scorer` and `rowwise`."""
    with ExitStack() as stack:
        if dtype == "float32":
            stack.enter_context(_in_float32(base))
        with quietly():
            rows = stack.enter_context(rowwise(base.model, adapters, torch.float32, any_base=any_base))
        stack.enter_context(packed(base.model))
        yield rows


@contextmanager
def _in_float32(base: Base) -> Iterator[None]:
    """The base with its 16-bit numbers in float32 inside the `with` block; afterwards they are as they were."""
    tensors = [*base.model.parameters(), *base.model.buffers()] if base.precision == "bf16" else []
    before = [(each, each.dtype) for each in tensors if each.dtype in (torch.bfloat16, torch.float16)]
    try:
        for each, _ in before:
            each.data = each.data.float()
        yield
    except torch.OutOfMemoryError as error:
        raise ModelFileError(
            f"{base.path.name} does not fit the memory in float32, in which figures are computed.",
            hint="Use --set report.dtype=bfloat16.",
        ) from error
    finally:
        for each, kind in before:
            each.data = each.data.to(kind)


class Scorer:
    """A base model with adapters by name; None is the base itself. See `scorer`.

    Texts under different adapters share their batches. Keys and values are shared under one adapter only.
    """

    def __init__(self, base: Base, rows: Rowwise, names: Sequence[str], done: Callable[[int], object]) -> None:
        self._base, self._model, self._rows, self._done = base, base.model, rows, done
        self._places: dict[str | None, int] = {None: BASE, **{name: place for place, name in enumerate(names)}}
        self._collate = Collator.padded(base.tokenizer)
        self._template = ChatTemplate(base.tokenizer)
        ends = base.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._batch = Batch(self._model, rows, [end for end in ends if end is not None])

    @torch.inference_mode()
    def logprobs(self, asked: Sequence[tuple[str | None, Example]]) -> list[float]:
        """Mean log-probability (natural) of the supervised tokens of each example under its adapter."""
        found: dict[int, float] = {}
        order = sorted(range(len(asked)), key=lambda index: len(asked[index][1].input_ids))
        for batch in batches(order, [len(each.input_ids) for _, each in asked], _TOKENS_AT_ONCE):
            batch.sort(key=lambda index: self._places[asked[index][0]])
            tensors = self._collate([[asked[index][1]] for index in batch])
            on_device = {name: value.to(self._model.device) for name, value in tensors.items()}
            counts = [asked[index][1].learnt for index in batch]
            means = self._means([self._places[asked[index][0]] for index in batch], on_device, counts)
            found.update(zip(batch, means, strict=True))
            self._done(len(batch))
        return [found[index] for index in range(len(asked))]

    def choices(self, asked: Sequence[Choice]) -> list[str]:
        """The likeliest of the given answers to each question, by mean log-probability of its tokens.

        A question is read once for all its answers, where the model's attention lets it.
        """
        before = [self._ids([Turn("user", question)]) for _, question, _ in asked]
        after = [[self._tokens(answer) for answer in answers] for _, _, answers in asked]
        if self._batch.slow or slides(self._model) or min(map(len, before), default=2) < 2:
            examples = [
                (adapter, Example(0, (*ids, *answer), (*[IGNORED] * len(ids), *answer), 0))
                for (adapter, _, _), ids, answers in zip(asked, before, after, strict=True)
                for answer in answers
            ]
            known = iter(self.logprobs(examples))
            scores = [[next(known) for _ in answers] for answers in after]
        else:
            scores = self._scores([self._places[adapter] for adapter, _, _ in asked], before, after)
        return [answers[each.index(max(each))] for (_, _, answers), each in zip(asked, scores, strict=True)]

    def answers(self, asked: Sequence[Asked], max_tokens: int) -> list[str]:
        """The likeliest answer of each adapter to its messages, many at once."""
        rows = [Row(self._places[adapter], self._ids(turns), max_tokens) for adapter, turns in asked]
        said: dict[Row, list[int]] = {row: [] for row in rows}
        for tokens in self._batch.run(sorted(rows, key=lambda row: row.adapter), _ROWS_AT_ONCE):
            for each in tokens:
                said[each.row].append(each.token)
            ended = sum(max_tokens - len(said[each.row]) for each in tokens if each.finish)
            self._done(len(tokens) + ended)
        texts = self._base.tokenizer.batch_decode(list(said.values()), skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    @torch.inference_mode()
    def _scores(
        self, adapters: Sequence[int], before: Sequence[Sequence[int]], after: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Mean log-probability of each answer behind its question, all as tokens."""
        scores: list[list[float]] = [[] for _ in before]
        prompts = [Prompt(adapter, ids[:-1]) for adapter, ids in zip(adapters, before, strict=True)]
        for part, _, past in read_all(self._model, self._rows, prompts):
            places = [place for place, index in enumerate(part) for _ in after[index]]
            texts = [(before[index][-1], *answer) for index in part for answer in after[index]]
            for start in range(0, len(texts), _CHOICES_AT_ONCE):
                some, owners = texts[start : start + _CHOICES_AT_ONCE], places[start : start + _CHOICES_AT_ONCE]
                batch = padded(self._model, some, past.select(owners))
                longest = batch["input_ids"].shape[1]
                labels = [[IGNORED] * (longest - len(each) + 1) + list(each[1:]) for each in some]
                batch["labels"] = torch.tensor(labels, device=self._model.device)
                means = self._means([adapters[part[owner]] for owner in owners], batch, [len(e) - 1 for e in some])
                for owner, mean in zip(owners, means, strict=True):
                    scores[part[owner]].append(mean)
                self._done(len(some))
        return scores

    def _means(self, adapters: Sequence[int], batch: Mapping[str, Any], counts: Sequence[int]) -> list[float]:
        """Mean log-probability of the learnt tokens of each row of a batch, which are so many."""
        self._rows.rows(adapters)
        losses = learnt_losses(self._model, self._model.get_output_embeddings(), batch)
        return [-part.mean().item() for part in torch.split(losses, list(counts))]

    # -- tokens -------------------------------------------------------------------------------------------------

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        return self._tokens(self._template.render(turns, prompt=True))

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
