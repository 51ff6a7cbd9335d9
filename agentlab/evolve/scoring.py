"""A population's answers: how the choices stand under every child, all children in the same batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch  # noqa: TID253 - reached lazily, when a population answers

from agentlab.answers.choices import Scored
from agentlab.evolve.genome import Child
from agentlab.hf.onednn_weights import pack_weights
from agentlab.lora.mixture import Mixture, Weights
from agentlab.lora.reading import Adapter
from agentlab.lora.stacked import BASE
from agentlab.search.types import Params
from agentlab.tasks.labelled import prompts_and_choices
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.base import TrainingBase, load_base
from agentlab.train.config import Figures
from agentlab.train.scoring import apply_adapters, score_choices

Tell = Callable[[int], object]
# How the choices of every question stand under every child.
Answer = Callable[[Sequence[Child], Sequence[QuizQuestion]], list[list[Scored]]]


@contextmanager
def open_weighted_children(
    path: Path, parents: Sequence[Path], weights: Callable[[Params], Weights], dtype: Figures, tell: Tell
) -> Iterator[Answer]:
    """Children as weighted sums of their parents, inside the `with` block; none of them is written.

    `weights`: of each module, what a child takes of its parents. `tell` hears how many more questions are answered;
    what it raises ends the work.

    Raises:
        UsageError, DataError, ModelFileError: base or parents cannot be used.
    """
    with ExitStack() as stack:
        adapters = [stack.enter_context(Adapter(parent)) for parent in parents]
        base = _base(path, dtype)
        mixture = Mixture(adapters, base.model.device, torch.float32, any_base=True)

        def place_children(children: Sequence[Child]) -> Sequence[int]:
            mixture.mix([weights(child.params) for child in children])
            return range(len(children))

        stack.enter_context(mixture.install_hooks(base.model))
        stack.enter_context(pack_weights(base.model))
        yield lambda children, questions: score_choices(
            base, mixture, place_children(children), prompts_and_choices(questions), tell
        )


@contextmanager
def open_written_children(
    path: Path, folder: Callable[[Child], Path | None], dtype: Figures, tell: Tell
) -> Iterator[Answer]:
    """Children as adapter folders; None is the base alone. Arguments and errors: see `open_weighted_children`."""
    base = _base(path, dtype)
    with apply_adapters(base, [], dtype, any_base=True) as adapters:
        slots: list[int] = []

        def place_children(children: Sequence[Child]) -> Sequence[int]:
            folders = [folder(child) for child in children]
            while slots:
                adapters.drop(slots.pop())
            slots.extend(BASE if child_folder is None else adapters.put(child_folder) for child_folder in folders)
            return slots

        yield lambda children, questions: score_choices(
            base, adapters, place_children(children), prompts_and_choices(questions), tell
        )


def _base(path: Path, dtype: Figures) -> TrainingBase:
    return load_base(path, "fp32" if dtype == "float32" else "bf16", "sdpa")
