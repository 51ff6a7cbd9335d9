"""Takes all items through all steps: local models one after another as planned, remote ones beside them."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import chain

from agentlab.errors import AgentlabError
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.asking import Asking
from agentlab.pipeline.completion import complete_step
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import PipelineStep
from agentlab.pipeline.known_answers import Ends
from agentlab.pipeline.schedule.types import Evict, Schedule
from agentlab.pipeline.schedule.types import RunJob as Do
from agentlab.pipeline.state import Ended, PipelineItem
from agentlab.pipeline.step_questions import FAILURES, PipelineCall, calls
from agentlab.pipeline.units import Unit

_AT_ONCE = 8  # remote questions in flight; the router has limits of its own
_POLL_SECONDS = 0.05

Flying = dict[str, list[Future[None]]]


@dataclass
class Executor:
    """One run's work. Everything but remote questions happens on the caller's thread."""

    config: PipelineConfig
    items: Sequence[PipelineItem]
    units: Sequence[Unit]
    schedule: Schedule
    asking: Asking
    ends: Ends

    def __post_init__(self) -> None:
        self._plan = list(self.schedule.steps)
        self._left = {unit.id: unit for unit in self.units}
        self._total, self._done = sum(unit.calls for unit in self.units) * len(self.items), 0  # questions
        self._candidates: dict[str, PipelineAnswer | AgentlabError] = {}
        self._seconds: dict[str, float] = {}  # spent on a step
        self._counting = threading.Lock()
        self._batch = any(item.name for item in self.items)

    def work(self) -> None:
        """Do all of it. When it fails, remote questions may still be in flight: closing the router ends them.

        Raises:
            AgentlabError: the only input failed; of several, each keeps its own error.
            Interrupted: a stop was requested.
        """
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="agentlab-remote")
        try:
            self._all(pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()

    def _all(self, pool: ThreadPoolExecutor) -> None:
        flying: Flying = {}
        while self._left or flying:
            self._land(flying)
            self._launch(flying, pool)
            unit = self._next(flying)
            if unit is not None:
                self._do_all(unit, self.items, self._upcoming())
                del self._left[unit.id]
            elif flying:
                wait(chain.from_iterable(flying.values()), timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                self.asking.stop.check()
            elif self._left:
                raise AssertionError(f"no plan for {sorted(self._left)}")

    # -- which unit is next -------------------------------------------------------------------------------------

    def _land(self, flying: Flying) -> None:
        """Take in what remote units came to. An error of one ends the work."""
        for name, futures in list(flying.items()):
            for future in [submitted for submitted in futures if submitted.done()]:
                futures.remove(future)
                future.result()
            if not futures:
                del flying[name]

    def _launch(self, flying: Flying, pool: ThreadPoolExecutor) -> None:
        """Start the remote units whose needs are met, as many of their items at once as may be in flight."""
        for unit in [u for u in self._left.values() if u.model is not None and not u.local]:
            if self._ready(unit, flying):
                del self._left[unit.id]
                items = iter(self.items)  # one iterator: each of them takes the next item when it is through with one
                workers = min(_AT_ONCE, len(self.items))
                flying[unit.id] = [pool.submit(self._do_all, unit, items) for _ in range(workers)]

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
                    self.asking.loaded_models.evict(model)
        return None

    def _upcoming(self) -> list[str]:
        remaining_units = (self._left.get(step.job) for step in self._plan if isinstance(step, Do))
        return [unit.model for unit in remaining_units if unit is not None and unit.local and unit.model is not None]

    # -- doing it -----------------------------------------------------------------------------------------------

    def _do_all(self, unit: Unit, items: Iterable[PipelineItem], upcoming: Sequence[str] = ()) -> None:
        for item in items:
            self._do(unit, item, upcoming)

    def _do(self, unit: Unit, item: PipelineItem, upcoming: Sequence[str]) -> None:
        """A unit, for one item. Its failure is its own, unless it is the only one."""
        self.asking.stop.check()
        if item.failed is None:
            try:
                if not self._restore_end(unit.step, item):
                    (self._complete if unit.whole else self._ask)(unit, item, upcoming)
            except FAILURES as error:
                item.failed = error
                if not self._batch:
                    raise
        with self._counting:
            self._done += unit.calls
            self.asking.run.stream("work.progress", done=self._done, total=self._total)

    def _restore_end(self, step: PipelineStep, item: PipelineItem) -> bool:
        """Whether the step had ended in an earlier session: then so it did, whatever would come of it now."""
        end = item.ended.get(step.id) or self.ends.find_end(item.id(step.id))
        if end is not None:
            item.ended[step.id] = end
        return end is not None

    def _ask(self, unit: Unit, item: PipelineItem, upcoming: Sequence[str]) -> None:
        """The candidates of one model. Those that fail are missing; the stage fails when all are."""
        assert unit.model is not None
        began = time.monotonic()
        if item.verdict(unit.step) is None:
            for call in calls(unit.step, item, unit.model, self.config):
                self._candidates[call.id] = self._candidate(call, upcoming)
        self._add_seconds(item.id(unit.step.id), time.monotonic() - began)

    def _candidate(self, call: PipelineCall, upcoming: Sequence[str]) -> PipelineAnswer | AgentlabError:
        try:
            return self.asking.answer(call, upcoming)
        except FAILURES as error:
            return error

    def _complete(self, unit: Unit, item: PipelineItem, upcoming: Sequence[str]) -> None:
        """Make the step's answer of its candidates, and write down how it ended."""
        began, step = time.monotonic(), unit.step
        passed = item.verdict(step)
        if passed is not None:
            end = Ended(passed)
        else:
            models = dict.fromkeys(step.stage.asked_models)
            step_calls = chain.from_iterable(calls(step, item, model, self.config) for model in models)
            call_results = {call.id: self._candidates.pop(call.id) for call in step_calls}
            end = complete_step(step, item, call_results, self.config, lambda call: self.asking.answer(call, upcoming))
        item.record_end(step, replace(end, answer=self.asking.mask(end.answer), output=self.asking.mask(end.output)))
        name = item.id(step.id)
        self._add_seconds(name, time.monotonic() - began)
        self.ends.note(name, item.ended[step.id], self._seconds.pop(name))

    def _add_seconds(self, name: str, seconds: float) -> None:
        with self._counting:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds
