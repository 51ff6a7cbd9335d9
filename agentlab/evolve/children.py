"""Recipes as adapter folders below the run: made when they are first needed, and again if they are lost."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, cast

from agentlab.evolve.genome import BASE, BLEND, Child
from agentlab.evolve.recipes import RecipeGenome
from agentlab.lora.card import content_hash
from agentlab.lora.operators import OPERATORS, is_mutation
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import blend, plan
from agentlab.runs.atomic import delete
from agentlab.runs.events import Event, first_event_data
from agentlab.search.types import Params
from agentlab.study.state import number_of, trial_id


class Children:
    """The adapters of a run's children. What a folder holds follows from recipe and seed alone."""

    def __init__(
        self,
        root: Path,
        parents: Sequence[Path],
        genome: RecipeGenome,
        seed: int,
        events: Callable[[], Sequence[Event]],
    ) -> None:
        """`events` are those of the run, which tell of earlier children; folders are made below `root`."""
        self._root, self._parents, self._genome, self._seed, self._events = root, parents, genome, seed, events

    def _recipe(self, search: str, number: int) -> Params:
        name = f"{search}/{trial_id(number)}" if search else trial_id(number)
        return cast("Params", first_event_data(self._events(), "trial.proposed", name)["params"])

    def _closing(self, search: str) -> list[int]:
        """The last children of the generations that the budget cut short."""
        ids = [event.id.rpartition("/") for event in self._events() if event.type == "batch.closed"]
        return [number_of(name) for branch, _, name in ids if branch == search]

    def folder(self, child: Child) -> Path | None:
        """The adapter of a child; None for the base.

        Raises:
            UsageError, DataError: it cannot be made of its parents.
            StorageError: the disk is full or not ours.
        """
        if child.number < len(self._parents):
            return self._parents[child.number]
        if child.params["operator"] == BASE:
            return None
        path = self._root / (child.search or "main") / trial_id(child.number)
        if not path.is_dir():
            self.make(child, path)
        return path

    def make(self, child: Child, out: Path, card_extra: Mapping[str, Any] | None = None) -> None:
        """Write the adapter of a child, no parent or base, and of those that it is bred from where they are lost."""
        params, numbers = child.params, self._genome.bred_from(child.params, child.number, self._closing(child.search))
        sources = [Child(child.search, n, self._recipe(child.search, n)) for n in numbers]
        folders = [self.folder(source) for source in sources] if sources else list(self._parents)
        digest = hashlib.sha256(f"{self._seed}:{json.dumps(dict(params), sort_keys=True)}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        with ExitStack() as stack:
            adapters = [stack.enter_context(Adapter(folder)) for folder in folders if folder is not None]
            parents = [stack.enter_context(Adapter(path)) for path in self._parents]
            modules = chain.from_iterable(parent.modules.values() for parent in parents)
            rank = self._genome.config.rank or max(module.rank for module in modules)
            method = str(params["operator"])
            if method == BLEND:
                recipe = plan(adapters, "concat")
            elif is_mutation(method):
                recipe = plan(adapters, method, rank=rank, seed=seed, step=float(params["step"]))
            else:
                share, alike = float(params["share"]), len({content_hash(adapter.path) for adapter in adapters}) == 1
                if alike and OPERATORS.load(method).thins:
                    method = "sum"  # an adapter that is crossed with its equal stays what it is
                recipe = plan(adapters, method, weights=(1 - share, share), rank=rank, seed=seed)
            blend(adapters, recipe, out, lambda *_: None, any_base=True, extra_fields=card_extra)

    def keep(self, names: Collection[str]) -> None:
        """Remove all folders but those of these children, as events name them; what was removed can be made again."""
        kept_folders = {self._root / (name if "/" in name else f"main/{name}") for name in names}
        searches = [path for path in self._root.glob("*") if path.is_dir() and not path.is_symlink()]
        for child in chain.from_iterable(search.iterdir() for search in searches):
            if child not in kept_folders:
                delete(child)
