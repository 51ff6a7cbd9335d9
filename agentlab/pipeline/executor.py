"""Takes all items through all steps: local models one after another as planned, remote ones beside them."""

import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from agentlab.errors import AgentlabError
from agentlab.pipeline.answer import Answer
from agentlab.pipeline.asking import FAILURES, Asking
from agentlab.pipeline.completion import completed
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import Step
from agentlab.pipeline.residents import Residents
from agentlab.pipeline.schedule.types import Evict, Schedule
from agentlab.pipeline.schedule.types import Run as Do
from agentlab.pipeline.state import Ended, Item
from agentlab.pipeline.store import Store
from agentlab.pipeline.units import Unit
from agentlab.pipeline.work import calls
from agentlab.runs.run import Run
from agentlab.runs.stop import StopFlag

_AT_ONCE = 8  # remote units in flight; the router has limits of its own
_POLL_SECONDS = 0.05


class Executor:
    """One run's work. Everything but remote questions happens on the caller's thread."""

    def __init__(
        self,
        config: PipelineConfig,
        items: Sequence[Item],
        units: Sequence[Unit],
        plan: Schedule,
        *,
        asking: Asking,
        residents: Residents,
        store: Store,
        run: Run,
        stop: StopFlag,
    ) -> None:
        self._config, self._items, self._plan = config, items, list(plan.steps)
        self._asking, self._residents, self._store, self._run, self._stop = asking, residents, store, run, stop
        self._left = {unit.id: unit for unit in units}
        self._total, self._done = len(self._left) * len(items), itertools.count(1)
        self._candidates: dict[str, Answer | AgentlabError] = {}
        self._seconds: dict[str, float] = {}  # spent on the candidates of a step
        self._noted = {event.id for event in run.events if event.type == "stage.finished"}
        self._batch = any(item.name for item in items)

    def work(self) -> None:
        """Do all of it.

        Raises:
            AgentlabError: the only input failed; of several, each keeps its own error.
            Interrupted: a stop was requested.
        """
        flying: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="agentlab-remote") as pool:
            while self._left or flying:
                for name in [name for name, future in flying.items() if future.done()]:
                    flying.pop(name).result()
                self._launch(flying, pool)
                unit = self._next(flying)
                if unit is not None:
                    self._do(unit, self._upcoming())
                    del self._left[unit.id]
                elif flying:
                    wait(flying.values(), timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                    self._stop.check()
                else:
                    raise AssertionError(f"no plan for {sorted(self._left)}")

    # -- which unit is next -------------------------------------------------------------------------------------

    def _launch(self, flying: dict[str, Future[None]], pool: ThreadPoolExecutor) -> None:
        """Start the remote units whose needs are met."""
        for unit in [u for u in self._left.values() if u.model is not None and not u.local]:
            if self._ready(unit, flying):
                del self._left[unit.id]
                flying[unit.id] = pool.submit(self._do, unit)

    def _ready(self, unit: Unit, flying: Mapping[str, object]) -> bool:
        return not any(need in self._left or need in flying for need in unit.needs)

    def _next(self, flying: Mapping[str, object]) -> Unit | None:
        """The next unit of the plan that can be done on this thread; None while all of them wait for remote ones.

        Loading is left to the first question that no store answers. A model that a waiting unit needs is kept.
        """
        waiting: set[str | None] = set()
        for step in list(self._plan):
            match step:
                case Do(name):
                    unit = self._left.get(name)
                    if unit is not None and (unit.local or unit.model is None):
                        if self._ready(unit, flying):
                            self._plan.remove(step)
                            return unit
                        waiting.add(unit.model)
                case Evict(model) if model not in waiting:
                    self._plan.remove(step)  # the first of its kind, which is this one
                    self._residents.evict(model)
        return None

    def _upcoming(self) -> list[str]:
        """Models in the order in which they are still needed."""
        left = (self._left.get(step.job) for step in self._plan if isinstance(step, Do))
        return [unit.model for unit in left if unit is not None and unit.local and unit.model is not None]

    # -- doing it -----------------------------------------------------------------------------------------------

    def _do(self, unit: Unit, upcoming: Sequence[str] = ()) -> None:
        """A unit, for every item. One item's failure is its own, unless it is the only one."""
        for item in self._items:
            self._stop.check()
            if item.failed is None:
                try:
                    if unit.whole:
                        self._complete(unit.step, item, upcoming)
                    else:
                        self._ask(unit, item, upcoming)
                except FAILURES as error:
                    item.failed = error
                    if not self._batch:
                        raise
            self._run.stream("work.progress", done=next(self._done), total=self._total)

    def _ask(self, unit: Unit, item: Item, upcoming: Sequence[str]) -> None:
        """The candidates of one model. Those that fail are missing; the stage fails when all are."""
        assert unit.model is not None
        if item.verdict(unit.step) is not None:
            return
        began = time.monotonic()
        for call in calls(unit.step, item, unit.model, self._config):
            try:
                self._candidates[call.id] = self._asking.answer(call, upcoming)
            except FAILURES as error:
                self._candidates[call.id] = error
        name = item.id(unit.step.id)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

    def _complete(self, step: Step, item: Item, upcoming: Sequence[str]) -> None:
        """Make the step's answer of its candidates, and write down how it ended."""
        passed = item.verdict(step)
        if passed is not None:
            end = Ended(passed)
        else:
            found = {
                call.id: self._candidates.pop(call.id)
                for model in dict.fromkeys(step.stage.asked)
                for call in calls(step, item, model, self._config)
            }
            end = completed(step, item, found, self._config, lambda call: self._asking.answer(call, upcoming))
        item.finished(step, end)
        name = item.id(step.id)
        if name not in self._noted:
            kept = item.ended[step.id]
            sha, seconds = self._store.put(kept.output), round(self._seconds.pop(name, 0.0), 4)
            self._run.emit("stage.finished", name, sha=sha, status=kept.status, why=dict(kept.why), seconds=seconds)
