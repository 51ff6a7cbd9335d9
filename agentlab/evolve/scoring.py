"""A population's answers: every child's probability of each choice, all children in the same batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import torch  # noqa: TID253 - reached lazily, when a population answers

from agentlab.evolve.genome import Child
from agentlab.hf.likelihood import Choice, likelihoods
from agentlab.hf.packed import packed
from agentlab.hf.prefill import SHARED, Past, Prompt, common, read, slides, unmergeable
from agentlab.lora.mixture import Mixture, Weights
from agentlab.lora.reading import Adapter
from agentlab.lora.rowwise import Rowwise
from agentlab.lora.stacked import BASE
from agentlab.search.types import Params
from agentlab.tasks.questions import Question
from agentlab.tasks.splits import prompt
from agentlab.train.base import Base, load_base
from agentlab.train.chat_template import ChatTemplate
from agentlab.train.config import Figures
from agentlab.train.scoring import applied

_AT_ONCE = 128  # questions between two words of progress

Tell = Callable[[int], object]
Place = Callable[[Sequence[Child]], Sequence[int]]


class Answers(Protocol):
    """Who answers for children."""

    def answer(self, children: Sequence[Child], questions: Sequence[Question]) -> list[list[list[float]]]:
        """Of every child, for every question, the probability of each choice."""
        ...


class Population:
    """Children on one load of the base. See `weighted` and `written`."""

    def __init__(self, base: Base, adapters: Rowwise, place: Place, tell: Tell) -> None:
        """`place` puts children among the adapters of the base, and says where each of them is."""
        self._model, self._tokenizer, self._template = base.model, base.tokenizer, ChatTemplate(base.tokenizer)
        self._adapters, self._place, self._tell = adapters, place, tell
        self._keeps = unmergeable(base.model) is None and not slides(base.model)

    @torch.inference_mode()
    def answer(self, children: Sequence[Child], questions: Sequence[Question]) -> list[list[list[float]]]:
        """See `Answers`. What all prompts begin with is read once for each child."""
        places = self._place(children)
        prompts = [self._ids(self._template.render(prompt(q), prompt=True)) for q in questions]
        texts = [[self._ids(choice) for choice in q.choices] for q in questions]
        shared = common(prompts) if self._keeps and len(prompts) > 1 else 0
        pasts: list[Past | None] = [None] * len(children)
        if shared * (len(prompts) - 1) >= SHARED:
            _, past = read(self._model, self._adapters, places, [prompts[0][:shared]] * len(places), multiple=1)
            pasts = [past.row(row) for row in range(len(places))]
        asked = [
            Choice(Prompt(place, tokens, past, shared if past else 0), choices)
            for place, past in zip(places, pasts, strict=True)
            for tokens, choices in zip(prompts, texts, strict=True)
        ]
        found: list[list[float]] = []
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            for each, told in zip(some, likelihoods(self._model, self._adapters, some), strict=True):
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
def weighted(
    path: Path, parents: Sequence[Path], weights: Callable[[Params], Weights], dtype: Figures, tell: Tell
) -> Iterator[Population]:
    """Children as weighted sums of their parents, inside the `with` block; none of them is written.

    Args:
        path: the base's checkpoint folder.
        parents: adapters of it.
        weights: of each module, what a child takes of its parents.
        dtype: that the base computes in.
        tell: hears of how many more questions are answered; what it raises ends the work.

    Raises:
        UsageError, DataError, ModelFileError: base or parents cannot be used.
    """
    with ExitStack() as stack:
        adapters = [stack.enter_context(Adapter(parent)) for parent in parents]
        base = _base(path, dtype)
        mixture = Mixture(adapters, base.model.device, torch.float32, any_base=True)

        def place(children: Sequence[Child]) -> Sequence[int]:
            mixture.mix([weights(child.params) for child in children])
            return range(len(children))

        stack.enter_context(mixture.installed(base.model))
        stack.enter_context(packed(base.model))
        yield Population(base, mixture, place, tell)


@contextmanager
def written(path: Path, folder: Callable[[Child], Path | None], dtype: Figures, tell: Tell) -> Iterator[Population]:
    """Children as adapter folders, of which None is the base alone. Arguments and errors: see `weighted`."""
    base = _base(path, dtype)
    with applied(base, [], dtype, any_base=True) as adapters:
        held: list[int] = []

        def place(children: Sequence[Child]) -> Sequence[int]:
            folders = [folder(child) for child in children]
            while held:
                adapters.drop(held.pop())
            held.extend(BASE if each is None else adapters.put(each) for each in folders)
            return held

        yield Population(base, adapters, place, tell)


def _base(path: Path, dtype: Figures) -> Base:
    return load_base(path, "fp32" if dtype == "float32" else "bf16", "sdpa")
