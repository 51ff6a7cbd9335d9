"""What a base model and its adapters make of texts: likelihoods and answers. Nothing is trained here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch  # noqa: TID253 - imported by runs that train, when they score

from agentlab.answers.choices import Scored
from agentlab.errors import ModelFileError
from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.likelihood import Choice, score_each
from agentlab.hf.onednn_weights import pack_weights
from agentlab.hf.prefill import Prompt, batches
from agentlab.lora.rowwise import Rowwise, rowwise
from agentlab.lora.stacked import BASE
from agentlab.train.base import TrainingBase, quietly
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.collate import Collator
from agentlab.train.config import Figures
from agentlab.train.conversations import ConversationTurn
from agentlab.train.loss import learnt_losses
from agentlab.train.masks import Example

_TOKENS_AT_ONCE = 2048  # of a padded batch
_ROWS_AT_ONCE = 24  # of answers in the making, which grow

AnswerRequest = tuple[str | None, Sequence[ConversationTurn]]  # an adapter, and the messages up to its answer
Choices = tuple[Sequence[ConversationTurn], Sequence[str]]  # messages up to an answer, and the answers to choose from


def score_choices(
    base: TrainingBase, rows: Rowwise, slots: Sequence[int], questions: Sequence[Choices], done: Callable[[int], object]
) -> list[list[Scored]]:
    """How the choices of questions stand under the adapters in these places, in this order.

    Each is scored by its bare text where the answer begins; special tokens that a text spells out are none. `done`
    hears of how many more questions are answered; what it raises ends the work.
    """
    template, token_choices = ChatTemplate(base.tokenizer), []
    for turns, choices in questions:
        plain = [ConversationTurn(turn.role, template.without_control(turn.content)) for turn in turns]
        texts = [template.without_control(choice) for choice in choices]
        prompt, *tokens = (_tokens(base, text) for text in (template.render(plain, prompt=True), *texts))
        token_choices.append(Choice(Prompt(BASE, prompt), tokens, [len(text.encode()) for text in texts]))
    return score_each(base.model, rows, slots, token_choices, done)


def _tokens(base: TrainingBase, text: str) -> list[int]:
    return list(base.tokenizer(text, add_special_tokens=False)["input_ids"])


@contextmanager
def scorer(
    base: TrainingBase,
    adapters: Mapping[str, Path],
    done: Callable[[int], object] = lambda _: None,
    dtype: Figures = "float32",
) -> Iterator["Scorer"]:
    """The base with adapters by name, inside the `with` block; afterwards it is as it was.

    `base` is not in training. `adapters` are folders in PEFT format, made for this base.

    `done` hears, batch by batch and token by token, of how many more texts the likelihood is known, or how many more
    tokens are answered (counted up to `max_tokens`, wherever an answer ends); what it raises ends the scoring. In
    float32 a base that is loaded in 16 bits takes twice the memory, and weights in 8 or 4 bits stay as they are;
    bfloat16 leaves the base as it is loaded.

    Raises:
        ModelFileError: the base does not fit the memory in float32.
    """
    with apply_adapters(base, list(adapters.values()), dtype) as rows:
        yield Scorer(base, rows, list(adapters), done)


@contextmanager
def apply_adapters(
    base: TrainingBase, adapters: Sequence[Path], dtype: Figures = "float32", *, any_base: bool = False
) -> Iterator[Rowwise]:
    """The adapters of a base that is to answer fast, inside the `with` block; see `scorer` and `rowwise`."""
    with ExitStack() as stack:
        if dtype == "float32":
            stack.enter_context(_in_float32(base))
        with quietly():
            rows = stack.enter_context(rowwise(base.model, adapters, torch.float32, any_base=any_base))
        stack.enter_context(pack_weights(base.model))
        yield rows


@contextmanager
def _in_float32(base: TrainingBase) -> Iterator[None]:
    """The base with its 16-bit numbers in float32 inside the `with` block; afterwards they are as they were."""
    tensors = [*base.model.parameters(), *base.model.buffers()] if base.precision == "bf16" else []
    before = [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)]
    try:
        for tensor, _ in before:
            tensor.data = tensor.data.float()
        yield
    except torch.OutOfMemoryError as error:
        raise ModelFileError(
            f"{base.path.name} does not fit into memory in float32, the default for the report's figures.",
            hint="Use --set report.dtype=bfloat16.",
        ) from error
    finally:
        for tensor, kind in before:
            tensor.data = tensor.data.to(kind)


class Scorer:
    """A base model with adapters by name; None is the base itself. See `scorer`.

    Texts under different adapters share their batches. Keys and values are shared under one adapter only.
    """

    def __init__(self, base: TrainingBase, rows: Rowwise, names: Sequence[str], done: Callable[[int], object]) -> None:
        self._base, self._model, self._rows, self._done = base, base.model, rows, done
        self._slots: dict[str | None, int] = {None: BASE, **{name: slot for slot, name in enumerate(names)}}
        self._collate = Collator.with_padding(base.tokenizer)
        self._template = ChatTemplate(base.tokenizer)
        ends = base.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._batch = AnswerBatch(self._model, rows, [end for end in ends if end is not None])

    @torch.inference_mode()
    def logprobs(self, examples: Sequence[tuple[str | None, Example]]) -> list[float]:
        """Mean log-probability (natural) of the supervised tokens of each example under its adapter."""
        logprobs_by_index: dict[int, float] = {}
        order = sorted(range(len(examples)), key=lambda index: len(examples[index][1].input_ids))
        for batch in batches(order, [len(example.input_ids) for _, example in examples], _TOKENS_AT_ONCE):
            batch.sort(key=lambda index: self._slots[examples[index][0]])
            tensors = self._collate([[examples[index][1]] for index in batch])
            on_device = {name: value.to(self._model.device) for name, value in tensors.items()}
            counts = [examples[index][1].learnt for index in batch]
            self._rows.rows([self._slots[examples[index][0]] for index in batch])
            losses = learnt_losses(self._model, self._model.get_output_embeddings(), on_device)
            logprobs_by_index.update(
                (index, -part.mean().item()) for index, part in zip(batch, torch.split(losses, counts), strict=True)
            )
            self._done(len(batch))
        return [logprobs_by_index[index] for index in range(len(examples))]

    def choices(self, names: Sequence[str | None], questions: Sequence[Choices]) -> list[list[Scored]]:
        return score_choices(self._base, self._rows, [self._slots[name] for name in names], questions, self._done)

    def answers(self, requests: Sequence[AnswerRequest], max_tokens: int) -> list[str]:
        """The likeliest answer of each adapter to its messages, many at once."""
        rows = [AnswerRow(self._slots[adapter], self._ids(turns), max_tokens) for adapter, turns in requests]
        tokens_by_row: dict[AnswerRow, list[int]] = {row: [] for row in rows}
        for tokens in self._batch.run(sorted(rows, key=lambda row: row.adapter), _ROWS_AT_ONCE):
            for token in tokens:
                tokens_by_row[token.row].append(token.token)
            unused_tokens = sum(max_tokens - len(tokens_by_row[token.row]) for token in tokens if token.finish)
            self._done(len(tokens) + unused_tokens)
        texts = self._base.tokenizer.batch_decode(list(tokens_by_row.values()), skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    def _ids(self, turns: Sequence[ConversationTurn]) -> list[int]:
        return _tokens(self._base, self._template.render(turns, prompt=True))
