"""What one base of a run knows of earlier runs, fixed when it begins, and what it leaves for later ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from agentlab.compress.config import CompressConfig
from agentlab.compress.experiment_memory import CompressMemory, RememberedExperiment, hash_parts
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.result import TEXTS
from agentlab.errors import ModelFileError, RunMismatchError, StorageError
from agentlab.runs.branch import RunBranch
from agentlab.runs.events import first_event_data
from agentlab.runs.run import OpenRun
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params
from agentlab.study.state import rebuild

READ = "memory.read"


@dataclass
class RunMemory:
    """The memory of a workspace, as the search `study` of the base `name` in a run has it; `memory` None is none."""

    memory: CompressMemory | None
    config: CompressConfig
    run: OpenRun
    name: str
    base: str  # the name of its folder
    study: OpenRun | RunBranch
    problem: str = ""  # why nothing was remembered

    def recall(self, space: SearchSpace) -> tuple[dict[str, RememberedExperiment], list[RememberedExperiment]]:
        """What earlier runs have measured: of this base on this text, by its point of the space, and of others.

        What was known when the run began is known when it goes on, and nothing else.
        """
        if self.memory is None:
            return {}, []
        if not first_event_data(self.study.events, READ):
            # A search that was begun without experiments goes on without them.
            experiments = [] if rebuild(self.study.events).trials else list(self.memory.experiments())
            usable = [experiment.key for experiment in experiments if experiment.key == self._key(experiment.recipe)]
            finished = [experiment for experiment in experiments if experiment.status == "finished"]
            other_keys = [experiment.key for experiment in finished if experiment.texts != self._texts()]
            self.study.emit(READ, keys=usable, elsewhere=other_keys)
        recorded = first_event_data(self.study.events, READ)
        keys_here, keys_elsewhere = set(recorded["keys"]), set(recorded["elsewhere"])
        if missing := (keys_here | keys_elsewhere) - {experiment.key for experiment in self.memory.experiments()}:
            raise RunMismatchError(
                f"{len(missing)} of the experiments that the run started from are missing from its memory.",
                hint="Restore them, or start a new run.",
            )
        experiments = list(self.memory.within(space))
        comparable = [experiment for experiment in experiments if experiment.key in keys_here]
        elsewhere = [experiment for experiment in experiments if experiment.key in keys_elsewhere]
        return {space.key(experiment.recipe): experiment for experiment in comparable}, elsewhere

    def find_export(self, experiment: RememberedExperiment) -> str | None:
        """The folder of what it has made, where that is left."""
        path = None if self.memory is None else self.memory.export(experiment.key)
        return None if path is None else str(path)

    def keep(self, branches: Iterable[OpenRun | RunBranch], exports: Path) -> None:
        """Remember what was measured in these branches, with what lies in the folder of exports."""
        if self.memory is None or not first_event_data(self.run.events, TEXTS, self.name):
            return
        experiments, kept_exports = list[RememberedExperiment](), dict[str, Path]()
        for trial in chain.from_iterable(rebuild(branch.events).trials for branch in branches):
            params, result = trial.proposal.params, trial.result
            if result is None or "shares" not in result.metrics or "then" in result.metrics:
                continue  # a crash may have been bad luck, and what was remembered is there
            key = self._key(params)
            experiments.append(
                RememberedExperiment(
                    key=key,
                    base=self.base,
                    texts=self._texts(),
                    training=self._training(recipe_of(params)),
                    recipe=dict(params),
                    status=result.status,
                    error=result.error,
                    metrics={name: value for name, value in result.metrics.items() if name not in ("file", "thought")},
                    objectives=list(result.objectives),
                    windows=list(result.items),
                    run=self.run.id,
                )
            )
            file = exports / str(result.metrics.get("file"))
            if file.exists():
                kept_exports[key] = file
        try:
            self.memory.keep(experiments, kept_exports)
        except (ModelFileError, StorageError) as error:  # no reason to lose the report
            self.problem = f"The experiments could not be saved to memory: {error.message} {error.hint or ''}".strip()

    def _texts(self) -> str:
        texts = first_event_data(self.run.events, TEXTS, self.name)
        return hash_parts(texts["fingerprint"], texts["sha256"], self.config.text.model_dump(exclude={"file"}))

    def _training(self, recipe: Recipe) -> str:
        return "" if recipe.recovery == "none" else hash_parts(self.config.recovery.model_dump(), self.config.seed)

    def _key(self, params: Params) -> str:
        recipe = recipe_of(params)
        return hash_parts(self._texts(), self._training(recipe), recipe.model_dump(exclude_defaults=True))
