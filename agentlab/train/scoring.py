"""What a base model and its adapters make of texts: likelihoods and answers. Nothing is trained here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported by runs that train, when they score

from agentlab.hf.packed import packed
from agentlab.lora.rowwise import Rowwise, rowwise
from agentlab.lora.stacked import BASE
from agentlab.train.base import Base, quietly
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.collate import Collator
from agentlab.train.conversations import Turn
from agentlab.train.loss import learnt_losses
from agentlab.train.masks import IGNORED, Example

_TOKENS_AT_ONCE = 2048  # of a padded batch
_ROWS_AT_ONCE = 24  # of answers in the making, which grow

Asked = tuple[str | None, Sequence[Turn]]  # an adapter, and the messages up to its answer


@contextmanager
def scorer(
    base: Base, adapters: Mapping[str, Path], done: Callable[[int], object] = lambda _: None
) -> Iterator["Scorer"]:
    """The base with adapters by name, inside the `with` block; afterwards it is as it was.

    Args:
        base: not in training.
        adapters: folders in PEFT format, made for this base.
        done: hears, batch by batch and token by token, of how many more texts the likelihood is known, or how many more
            tokens are answered (counted up to `max_tokens`, wherever an answer ends). What it raises ends the scoring.
    """
    with ExitStack() as stack:
        with quietly():
            rows = stack.enter_context(rowwise(base.model, list(adapters.values())))
        stack.enter_context(packed(base.model))
        yield Scorer(base, rows, list(adapters), done)


class Scorer:
    """A base model with adapters by name; None is the base itself. See `scorer`."""

    def __init__(self, base: Base, rows: Rowwise, names: Sequence[str], done: Callable[[int], object]) -> None:
        self._base, self._model, self._rows, self._done = base, base.model, rows, done
        self._places: dict[str | None, int] = {None: BASE, **{name: place for place, name in enumerate(names)}}
        self._collate = Collator.padded(base.tokenizer)
        self._filler = self._collate.pad_token
        self._template = ChatTemplate(base.tokenizer)

    @torch.inference_mode()
    def logprobs(self, adapter: str | None, examples: Sequence[Example]) -> list[float]:
        """Mean log-probability (natural) of the supervised tokens of each example."""
        found: dict[int, float] = {}
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].input_ids))
        for batch in _batches(order, examples):
            tensors = self._collate([[examples[index]] for index in batch])
            on_device = {name: value.to(self._model.device) for name, value in tensors.items()}
            self._rows.rows([self._places[adapter]] * len(batch))
            losses = learnt_losses(self._model, self._model.get_output_embeddings(), on_device)
            counts = [examples[index].learnt for index in batch]
            means = [-part.mean().item() for part in torch.split(losses, counts)]
            found.update(zip(batch, means, strict=True))
            self._done(len(batch))
        return [found[index] for index in range(len(examples))]

    def choices(self, adapter: str | None, questions: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        """The likeliest of the given answers to each question, by mean log-probability of its tokens."""
        examples, places = [], []
        for question, answers in questions:
            for answer in answers:
                examples.append(self._turn(question, answer))
                places.append((question, answer))
        scores = self.logprobs(adapter, examples)
        chosen, start = [], 0
        for _, answers in questions:
            part = scores[start : start + len(answers)]
            chosen.append(answers[part.index(max(part))])
            start += len(answers)
        return chosen

    def answers(self, asked: Sequence[Asked], max_tokens: int) -> list[str]:
        """The likeliest answer of each adapter to its messages, many at once."""
        order = sorted(range(len(asked)), key=lambda index: self._places[asked[index][0]])
        found: dict[int, str] = {}
        for start in range(0, len(order), _ROWS_AT_ONCE):
            some = order[start : start + _ROWS_AT_ONCE]
            found.update(zip(some, self._generated([asked[index] for index in some], max_tokens), strict=True))
        return [found[index] for index in range(len(asked))]

    @torch.inference_mode()
    def _generated(self, asked: Sequence[Asked], max_tokens: int) -> list[str]:
        from transformers import StoppingCriteriaList

        prompts = [self._ids(turns) for _, turns in asked]
        longest = max(len(each) for each in prompts)
        ids = torch.tensor([[self._filler] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        self._rows.rows([self._places[name] for name, _ in asked])
        with quietly():
            out = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._filler,
                stopping_criteria=StoppingCriteriaList([self._go_on]),
            )
        self._done(len(asked) * (longest + max_tokens - out.shape[1]))
        texts = self._base.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    def _go_on(self, ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        """A criterion that stops no answer: it tells of every token."""
        self._done(len(ids))
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    # -- tokens -------------------------------------------------------------------------------------------------

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        text = self._template.render(turns, prompt=True)
        ids: list[int] = self._base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _turn(self, question: str, answer: str) -> Example:
        before = self._ids([Turn("user", question)])
        tokenize: Any = self._base.tokenizer
        after = tokenize(answer, add_special_tokens=False)["input_ids"]
        return Example(0, (*before, *after), (*([IGNORED] * len(before)), *after), 0)


def _batches(order: Sequence[int], examples: Sequence[Example]) -> Iterator[list[int]]:
    """Indices of examples of like length, so many at once as fit."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(examples[index].input_ids) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
