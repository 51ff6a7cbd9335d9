"""What a base model and its adapters make of texts: likelihoods and answers. Nothing is trained here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported by runs that train, when they score

from agentlab.train.base import Base, quietly
from agentlab.train.collate import Collator
from agentlab.train.loss import learnt_losses
from agentlab.train.masks import IGNORED, Example

_TOKENS_AT_ONCE = 2048  # of a padded batch


class Scorer:
    """A base model with adapters by name; None is the base itself. Takes its adapters out again at the end."""

    def __init__(self, base: Base, adapters: Mapping[str, Path]) -> None:
        """`adapters` are folders in PEFT format, made for this base."""
        from peft import PeftModel

        self._base, self._model = base, base.model
        with quietly():
            for name, folder in adapters.items():
                if self._model is base.model:
                    self._model = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
                else:
                    self._model.load_adapter(str(folder), adapter_name=name)
        self._model.eval()
        self._collate = Collator(base.tokenizer.pad_token_id or 0, "padded")

    def close(self) -> None:
        """Leave the base model as it was."""
        if self._model is not self._base.model:
            with quietly():
                self._model.unload()  # PEFT has put its layers into the base model, and takes them out there
            self._model = self._base.model

    @contextmanager
    def _under(self, adapter: str | None) -> Iterator[None]:
        if self._model is self._base.model:
            yield
        elif adapter is None:
            with self._model.disable_adapter():
                yield
        else:
            self._model.set_adapter(adapter)
            yield

    @torch.inference_mode()
    def logprobs(self, adapter: str | None, examples: Sequence[Example]) -> list[float]:
        """Mean log-probability (natural) of the supervised tokens of each example."""
        found: dict[int, float] = {}
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].input_ids))
        with self._under(adapter):
            for batch in _batches(order, examples):
                tensors = self._collate([[examples[index]] for index in batch])
                on_device = {name: value.to(self._model.device) for name, value in tensors.items()}
                losses = learnt_losses(self._model, self._model.get_output_embeddings(), on_device)
                counts = [examples[index].learnt for index in batch]
                means = [-part.mean().item() for part in torch.split(losses, counts)]
                found.update(zip(batch, means, strict=True))
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

    @torch.inference_mode()
    def answer(self, adapter: str | None, question: str, max_tokens: int) -> str:
        """The likeliest answer to a question."""
        tokenizer = self._base.tokenizer
        ids = self._ids(self._prompt(question)).unsqueeze(0)
        with self._under(adapter), quietly():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )
        return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    # -- tokens -------------------------------------------------------------------------------------------------

    def _prompt(self, question: str) -> str:
        turns = [{"role": "user", "content": question}]
        return str(self._base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str) -> torch.Tensor:
        ids = self._base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, device=self._model.device)

    def _turn(self, question: str, answer: str) -> Example:
        tokenize: Any = self._base.tokenizer
        before = tokenize(self._prompt(question), add_special_tokens=False)["input_ids"]
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
