"""Is every model there, and how fast is it: a few small requests to each, and what the answers recommend."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from agentlab.bench.check.result import CheckResult, ModelCheck, Recommendation
from agentlab.bench.config import CheckConfig, Target, targets_of
from agentlab.bench.failures import cause_of, group_of, message_of
from agentlab.errors import AgentlabError, GateError, Interrupted, LLMTimeoutError, UsageError
from agentlab.llm.concurrency import all_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import RoleName, ScriptedProvider
from agentlab.llm.types import Completion, Message
from agentlab.runs.stop import StopFlag

if TYPE_CHECKING:
    from agentlab.llm.manager import LLMManager
    from agentlab.llm.router import Router

TASK = "bench.check"
_PROMPT = "Reply with the single word OK."
_DEFAULT_FILE = "llm_test_results.md"


async def run_check(
    config: CheckConfig,
    llm: LLMConfig,
    router: "Router",
    *,
    models: Sequence[str] = (),
    stop: StopFlag | None = None,
    checked: Callable[[ModelCheck], None] = lambda _: None,
) -> CheckResult:
    """Ask each model a few times. What fails is told in its row and never hides another's result.

    Args:
        llm: the config that `router` was made of.
        models: names in `llm.models`; none: every model that some role names.
        checked: called with each model's row as soon as it is there.

    Raises:
        ConfigError: the config has no model.
        BudgetExceededError: the next request would cost more than is allowed.
        Interrupted: a stop was requested.
    """
    jobs = [partial(_check, target, config, llm, router, checked) for target in targets_of(models, llm)]
    rows = await all_of(jobs, config.models_at_once, stop or StopFlag())
    return CheckResult(models=rows, recommendations=recommend(rows))


@dataclass(slots=True)
class _CheckTally:
    asked: int = 0
    warm: bool = False  # it has answered before it was timed
    firsts: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    error: AgentlabError | None = None


async def _check(
    target: Target, config: CheckConfig, llm: LLMConfig, router: "Router", checked: Callable[[ModelCheck], None]
) -> ModelCheck:
    tally = _CheckTally()
    for turn in range(-1, config.requests):  # the first loads the model and opens the connection: it counts if it fails
        tally.asked += 1
        began = time.perf_counter()
        try:
            answer = await router.complete(
                [Message("user", _PROMPT)],
                TASK,
                call_id=f"{target.name}/{turn}",
                options=target.options(max_tokens=config.max_tokens),
            )
        except (Interrupted, GateError):
            raise
        except AgentlabError as error:
            tally.error = error
            if not (tally.warm or tally.totals) or issubclass(cause_of(error), LLMTimeoutError):
                break  # asking again would only wait for the same timeouts again
        else:
            if turn < 0:
                tally.asked, tally.warm = 0, True
            else:
                _note(tally, answer, time.perf_counter() - began)
    row = _row(target.name, llm, tally)
    checked(row)
    return row


def _note(tally: _CheckTally, answer: Completion[str], elapsed: float) -> None:
    timing = answer.timing
    tally.totals.append(elapsed if timing is None else timing.total)
    if timing is not None and timing.first is not None:
        tally.firsts.append(timing.first)


def _row(name: str, llm: LLMConfig, tally: _CheckTally) -> ModelCheck:
    model, error = llm.models[name], tally.error
    provider = llm.providers[model.provider]
    return ModelCheck(
        model=name,
        id=model.id,
        provider=model.provider,
        local=provider.is_local or isinstance(provider, ScriptedProvider),
        free=model.price is not None and model.price.input == model.price.output == 0,
        asked=tally.asked,
        successes=len(tally.totals),
        first_seconds=median(tally.firsts) if tally.firsts else None,
        total_seconds=median(tally.totals) if tally.totals else None,
        slowest_seconds=max(tally.totals, default=None),
        error_group=None if error is None else group_of(cause_of(error).__name__),
        error_kind="" if error is None else cause_of(error).__name__,
        error="" if error is None else message_of(error),
        remedy="" if error is None else error.hint or "",
    )


def recommend(models: Sequence[ModelCheck]) -> list[Recommendation]:
    """One line per model, those to ask first before the others.

    primary    the fastest of those that answered every request
    duplicate  the next fastest, one of another provider before one of the same
    fallback   the fastest of the rest that runs here or costs nothing, as the last resort
    reserve    every other model that answered at all
    none       those that never answered
    """
    working = sorted((row for row in models if row.available), key=_speed)
    steady = [row for row in working if not row.failures]
    chosen: list[Recommendation] = []

    def give(role: RoleName, row: ModelCheck, reason: str) -> None:
        chosen.append(Recommendation(model=row.model, role=role, why=reason))

    if steady:
        give("primary", steady[0], f"the fastest model that answered every request, {_seconds(steady[0])}")
    if len(steady) > 1:
        partner = next((row for row in steady if row.provider != steady[0].provider), steady[1])
        where = "from another provider" if partner.provider != steady[0].provider else "from the same provider"
        give("duplicate", partner, f"the next fastest {where}, {_seconds(partner)}")
    chosen_models = {recommendation.model for recommendation in chosen}
    remaining = [row for row in working if row.model not in chosen_models]
    resort = next((row for row in remaining if row.local or row.free), None)
    for row in remaining:
        if row is not resort:
            give("reserve", row, f"{_share(row)}, {_seconds(row)}")
    if resort is not None:
        give("fallback", resort, f"{'local' if resort.local else 'free'}, {_share(resort)}")
    return chosen + [
        Recommendation(model=row.model, role=None, why=f"{row.error_group or 'not asked'}: no request was answered")
        for row in models
        if not row.available
    ]


def _speed(row: ModelCheck) -> tuple[float, str]:
    return (float("inf") if row.total_seconds is None else row.total_seconds, row.model)


def _seconds(row: ModelCheck) -> str:
    return "time unknown" if row.total_seconds is None else f"{row.total_seconds:.2f} s"


def _share(row: ModelCheck) -> str:
    return f"answered {row.successes} of {row.asked} requests"


class LLMTestRunner:
    """Tests all models of a config from Python, in four calls. Before the first, the others raise `UsageError`.

    runner = LLMTestRunner("config/llm_settings.yaml")
    await runner.test_all_models()
    runner.get_fastest_models()          # [("name", seconds), ...], fastest first
    runner.export_results_markdown()     # the path of the report
    """

    def __init__(self, manager: "LLMManager | str | Path | None" = None, *, config: CheckConfig | None = None) -> None:
        """`manager`: whose models are tested; or the path of a YAML file, or None for the default config."""
        self._manager = manager
        self._config = config or CheckConfig()
        self.result: CheckResult | None = None

    async def test_all_models(self) -> list[ModelCheck]:
        """Ask every model a few small requests, several models at a time.

        Raises:
            ConfigError: the file is wrong, or names no model.
            UnknownNameError: there is no such file.
        """
        from agentlab.llm.manager import LLMManager

        if isinstance(self._manager, LLMManager):
            self.result = await run_check(self._config, self._manager.config, self._manager.router)
        else:
            async with LLMManager(self._manager) as manager:
                self.result = await run_check(self._config, manager.config, manager.router)
        return self.result.models

    def get_working_models(self) -> list[str]:
        """Names of the models that answered, in the order of the config."""
        return [row.model for row in self._require_result().models if row.available]

    def get_fastest_models(self) -> list[tuple[str, float]]:
        """Models that answered and their median seconds, fastest first."""
        rows = self._require_result().models
        times = [(row.model, row.total_seconds) for row in rows if row.total_seconds is not None]
        return sorted(times, key=lambda pair: pair[1])

    def export_results_markdown(self, path: str | Path | None = None) -> Path:
        """Write the report, by default as `llm_test_results.md` in the current folder, and say where it is.

        Raises:
            StorageError: it cannot be written.
        """
        from agentlab.runs.atomic import make_folder, write_text
        from agentlab.runs.report import markdown

        target = Path(path or _DEFAULT_FILE).absolute()
        report = markdown("Language models tested", self._require_result().blocks())
        make_folder(target.parent)
        write_text(target, report)
        return target

    def _require_result(self) -> CheckResult:
        if self.result is None:
            raise UsageError("No model has been tested yet.", hint="Call `await runner.test_all_models()` first.")
        return self.result
