"""A population's answers: every child's probability of each choice, all children in the same batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch  # noqa: TID253 - reached lazily, when a population answers

from agentlab.hf.likelihood import Choice, likelihoods
from agentlab.hf.packed import packed
from agentlab.hf.prefill import Past, Prompt, common, read, slides, unmergeable
from agentlab.lora.mixture import Mixture, Weights
from agentlab.lora.reading import Adapter
from agentlab.search.types import Params
from agentlab.tasks.questions import Question
from agentlab.tasks.splits import prompt
from agentlab.train.base import load_base, quietly
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.config import Figures

_SHARED = 16  # tokens of a common beginning that are worth being read once
_AT_ONCE = 128  # questions between two words of progress

Tell = Callable[[int], object]


class Answers(Protocol):
    """Who answers for children."""

    def answer(self, children: Sequence[Params], questions: Sequence[Question]) -> list[list[list[float]]]:
        """Of every child, for every question, the probability of each choice."""
        ...


class Population:
    """Children as weighted sums of their parents, on one load of the base. See `opened`."""

    def __init__(
        self, model: Any, tokenizer: Any, mixture: Mixture, weights: Callable[[Params], Weights], tell: Tell
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, ChatTemplate(tokenizer)
        self._mixture, self._weights, self._tell = mixture, weights, tell
        self._keeps = unmergeable(model) is None and not slides(model)

    @torch.inference_mode()
    def answer(self, children: Sequence[Params], questions: Sequence[Question]) -> list[list[list[float]]]:
        """See `Answers`. What all prompts begin with is read once for each child."""
        self._mixture.mix([self._weights(child) for child in children])
        prompts = [self._ids(self._template.render(prompt(q), prompt=True)) for q in questions]
        texts = [[self._ids(choice) for choice in q.choices] for q in questions]
        shared = common(prompts) if self._keeps and len(prompts) > 1 else 0
        pasts: list[Past | None] = [None] * len(children)
        if shared >= _SHARED:
            places = range(len(children))
            _, past = read(self._model, self._mixture, places, [prompts[0][:shared]] * len(places), multiple=1)
            pasts = [past.row(place) for place in places]
        asked = [
            Choice(Prompt(child, tokens, past, shared if past else 0), choices)
            for child, past in enumerate(pasts)
            for tokens, choices in zip(prompts, texts, strict=True)
        ]
        found: list[list[float]] = []
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            for each, told in zip(some, likelihoods(self._model, self._mixture, some), strict=True):
                found.append(_chances([one.total / len(t) for one, t in zip(told, each.texts, strict=True)]))
            self._tell(len(some))
        return [found[start : start + len(questions)] for start in range(0, len(found), len(questions))]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _chances(means: Sequence[float]) -> list[float]:
    """Probabilities of choices from the mean log-probabilities of their tokens."""
    best = max(means)
    weights = [math.exp(mean - best) for mean in means]
    return [weight / sum(weights) for weight in weights]


@contextmanager
def opened(
    path: Path, parents: Sequence[Path], weights: Callable[[Params], Weights], dtype: Figures, tell: Tell
) -> Iterator[Population]:
    """A population on a checkpoint folder, inside the `with` block.

    Args:
        path: the folder.
        parents: adapters of it.
        weights: of each module, what a child takes of its parents.
        dtype: that the base computes in.
        tell: hears of how many more questions are answered; what it raises ends the work.

    Raises:
        UsageError, DataError, ModelFileError: base or parents cannot be used.
    """
    with ExitStack() as stack:
        adapters = [stack.enter_context(Adapter(parent)) for parent in parents]
        base = load_base(path, "fp32" if dtype == "float32" else "bf16", "sdpa")
        with quietly():
            mixture = Mixture(adapters, base.model.device, torch.float32, any_base=True)
        stack.enter_context(mixture.installed(base.model))
        stack.enter_context(packed(base.model))
        yield Population(base.model, base.tokenizer, mixture, weights, tell)
