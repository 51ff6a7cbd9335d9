"""What a base model and its adapters make of texts: likelihoods and answers. Nothing is trained here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch  # noqa: TID253 - imported by runs that train, when they score

from agentlab.answers.choices import Scored
from agentlab.errors import ModelFileError
from agentlab.hf.batch import Batch, Row
from agentlab.hf.likelihood import Choice, score_each
from agentlab.hf.packed import packed
from agentlab.hf.prefill import Prompt, batches
from agentlab.lora.rowwise import Rowwise, rowwise
from agentlab.lora.stacked import BASE
from agentlab.train.base import Base, quietly
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.collate import Collator
from agentlab.train.config import Figures
from agentlab.train.conversations import Turn
from agentlab.train.loss import learnt_losses
from agentlab.train.masks import Example

_TOKENS_AT_ONCE = 2048  # of a padded batch
_ROWS_AT_ONCE = 24  # of answers in the making, which grow

Asked = tuple[str | None, Sequence[Turn]]  # an adapter, and the messages up to its answer
Choices = tuple[Sequence[Turn], Sequence[str]]  # the messages up to an answer, and the answers to choose from


def score_choices(
    base: Base, rows: Rowwise, places: Sequence[int], questions: Sequence[Choices], done: Callable[[int], object]
) -> list[list[Scored]]:
    """How the choices of questions stand under the adapters in these places, in this order.

    Each is scored by its bare text where the answer begins; special tokens that a text spells out are none. `done`
    hears of how many more questions are answered; what it raises ends the work.
    """
    template, asked = ChatTemplate(base.tokenizer), []
    for turns, choices in questions:
        plain = [Turn(turn.role, template.without_control(turn.content)) for turn in turns]
        texts = [template.without_control(choice) for choice in choices]
        prompt, *tokens = (_tokens(base, text) for text in (template.render(plain, prompt=True), *texts))
        asked.append(Choice(Prompt(BASE, prompt), tokens, [len(text.encode()) for text in texts]))
    return score_each(base.model, rows, places, asked, done)


def _tokens(base: Base, text: str) -> list[int]:
    ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


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
            self._rows.rows([self._places[asked[index][0]] for index in batch])
            losses = learnt_losses(self._model, self._model.get_output_embeddings(), on_device)
            found.update(
                (index, -part.mean().item()) for index, part in zip(batch, torch.split(losses, counts), strict=True)
            )
            self._done(len(batch))
        return [found[index] for index in range(len(asked))]

    def choices(self, names: Sequence[str | None], questions: Sequence[Choices]) -> list[list[Scored]]:
        """How the choices of each question stand under each of these adapters; see `score_choices`."""
        return score_choices(self._base, self._rows, [self._places[name] for name in names], questions, self._done)

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

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        return _tokens(self._base, self._template.render(turns, prompt=True))
