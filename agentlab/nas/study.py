"""A study of this capability: its words, what it says and asks of a near tie, how its trainings are carried out."""

from statistics import fmean
from typing import TYPE_CHECKING

from agentlab.llm.types import Message
from agentlab.nas.config import NasConfig, TrialConfig
from agentlab.nas.series import Series
from agentlab.runs.branch import RunBranch
from agentlab.runs.context import Context
from agentlab.runs.document import number
from agentlab.runs.events import Event, Narration
from agentlab.runs.run import OpenRun
from agentlab.search.screen import ScreenRules
from agentlab.search.types import Params, Proposal
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.executor import OBJECTIVES, LocalExecutor, TrialExecutor
from agentlab.study.narrate import narrate as narrate_study
from agentlab.study.setup import Setup
from agentlab.study.state import TrialState
from agentlab.study.terms import StudyTerms

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TERMS = StudyTerms(
    command="nas",
    value="val_mse",
    score="mse",
    metric="validation MSE",
    error="validation error",
    unit="scaled",
    measurement="training",
    again="trained again",
    goal="Find the settings of a forecasting model with the lowest validation error.",
    shown=("parameters", "epochs"),
    figures=("mse", "mae", "mse_by_step", "mse_by_channel"),
)
_WORKER_SPARE = 256 << 20  # bytes beside training: pictures, buffers, the allocator's leftovers


def setup_of(
    config: NasConfig,
    context: Context,
    series: Series,
    rules: ScreenRules,
    default: Params,
    router: "Router",
    device: str,
) -> Setup:
    """What all studies of a run share."""
    base, evaluator = config.trial(), config.evaluator

    def judged_by(router: "Router | None", scope: str) -> SeedEvaluator:
        return SeedEvaluator(TERMS, evaluator.noise, evaluator.repeats, evaluator.family, router, question, scope)

    # the studies of a pair repeat trials as they see fit, so they share a number of trainings and not of trials
    paired = config.control == "full" and router.available(TERMS.propose)
    budget = {"trainings" if paired else "trials": config.max_iterations, "seconds": config.max_seconds}
    return Setup(
        terms=TERMS,
        rules=rules,
        starts=(Proposal(default, "default"),),
        base=config.search.base,
        options=config.search.pick_from,
        budget={unit: limit for unit, limit in budget.items() if limit is not None},
        evaluator=judged_by,
        executor=lambda run: _executor(run, config, base, series, context, device),
        router=router,
        check=context.stop.check,
    )


def _executor(
    run: OpenRun | RunBranch, config: NasConfig, base: TrialConfig, series: Series, context: Context, device: str
) -> TrialExecutor:
    from agentlab.nas.objective import InformerObjective, setup

    trials, stop, full = run.folder.folder("trials"), context.stop.check, config.finals.full

    def report(type: str, id: str, data: dict[str, object]) -> None:  # noqa: A002 - the event's fields
        run.emit(type, id, **data)

    if config.workers == 1:
        return LocalExecutor(InformerObjective(base, series, trials, device, report, stop, full))
    from agentlab.study.processes import ProcessExecutor

    limit = config.search.memory_mb * 2**20 + _WORKER_SPARE
    return ProcessExecutor(
        OBJECTIVES.where("informer"),
        setup(base, full, series, trials, context.workspace, device),
        workers=config.workers,
        threads=1,  # these models are too small for more
        memory_bytes=limit if device == "cpu" else None,
        report=report,
        check=stop,
    )


def question(trial: TrialState, best: TrialState) -> list[Message]:
    """What a model is asked. Pure; relative figures, because small models misread long decimals."""

    def line(name: str, state: TrialState) -> str:
        error = 100 * (state.value or 0.0) / (best.value or 1.0)
        weights = int(state.result.metrics["parameters"]) if state.result else 0
        return f"{name}: validation error {error:.1f}, {weights} weights"

    system = "You judge whether a new forecasting model is really better. Lower error is better. Answer in JSON."
    user = (
        f"{line('current', best)}\n{line('new', trial)}\n"
        "The difference is within measurement noise, so the new model is trained again. Say repeat if you expect "
        "its lower error to last, which adds one more training; say reject if you expect it to vanish."
    )
    return [Message("system", system), Message("user", user)]


def narrate(event: Event) -> Narration | None:
    """What every study says; epochs move the bar, and are told with -v."""
    data = event.data
    match event.type:
        case "reference.measured":
            return Narration(line=f"  {data['name']:<10} validation MSE {number(data['val_mse'])}  {data['note']}")
        case "winner.scored":
            errors = data["mse"]
            mean = f", mean of {len(errors)} training runs" if len(errors) > 1 else ""
            line = f"  winner {event.id}: test MSE {number(fmean(errors))}{mean}"
            return Narration(line=line, detail="writing the report")
        case "trial.epoch":
            epoch, error = f"{event.id} epoch {data['epoch']}", f"validation MSE {number(data['val_mse'])}"
            line = f"  {epoch}: training loss {number(data['train_loss'])}, {error}"
            return Narration(detail=f"{epoch}: {error}", verbose=line)
    return narrate_study(event, TERMS)
