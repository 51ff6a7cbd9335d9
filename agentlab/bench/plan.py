"""What a benchmark is going to do, for `--dry-run`."""

from agentlab.bench.config import BenchConfig, strategy_of
from agentlab.bench.load.schedule import LoadStage
from agentlab.bench.load.stages import fixed_stages
from agentlab.bench.load.tables import objective
from agentlab.bench.quality.plan import plan_quality
from agentlab.llm.budget import estimate
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import Message
from agentlab.runs.document import AnswerDocument, Block, Table


class BenchPlan(AnswerDocument):
    """The answer of `llm-bench --dry-run`. `requests` None: a sweep, whose stages follow from what it finds."""

    measure: str
    targets: list[str]
    stages: list[str]
    requests: int | None
    max_seconds: float
    tokens: str
    objective: str
    most_cost_usd: float | None
    max_cost_usd: float

    def blocks(self) -> list[Block]:
        rows = [("measures", self.measure), ("targets", ", ".join(self.targets))]
        if self.measure == "load":
            rows += [
                ("stages", "; ".join(self.stages) or "a sweep: each stage depends on the previous ones"),
                ("requests", "as many as the time allows" if self.requests is None else f"at most {self.requests}"),
                ("tokens", self.tokens),
                ("good", self.objective),
                ("time", f"at most {self.max_seconds:g} s, plus time for the report"),
            ]
        else:
            rows.append(("requests", f"at most {self.requests}"))
        cost_note = "" if self.most_cost_usd is None else f"about {self.most_cost_usd:.4g} USD by the price list, "
        ceiling = f"at most {self.max_cost_usd:g} USD where a price is known; local models are free"
        rows.append(("cost", f"{cost_note}{ceiling}"))
        return [Table(("plan", ""), rows)]


def plan_of(config: BenchConfig, llm: LLMConfig) -> BenchPlan:
    """The plan of a checked config."""
    load, targets = config.load, config.chosen_targets()
    if config.measure == "check":
        targets = tuple(target for target in targets if strategy_of(target) is None)
    stages = list(fixed_stages(load, targets, config.seed)) if config.measure == "load" else []
    sweep = config.measure == "load" and load.mode == "sweep"
    return BenchPlan(
        measure=config.measure,
        targets=list(targets),
        stages=[f"{stage.target} {stage.label}" for stage in stages],
        requests=None if sweep else _requests(config, llm, stages, len(targets)),
        max_seconds=load.max_seconds,
        tokens=f"about {load.prompt_tokens} in the prompt and at most {load.output_tokens} in the answer, per request",
        objective=objective(load.slo),
        most_cost_usd=_cost(config, llm, stages) if stages else None,
        max_cost_usd=llm.budget.per_run_usd,
    )


def _requests(config: BenchConfig, llm: LLMConfig, stages: list[LoadStage], targets: int) -> int:
    match config.measure:
        case "load":
            return sum(stage.requests for stage in stages) + config.load.warmup * targets
        case "check":
            return (config.check.requests + 1) * targets
        case "quality":
            return plan_quality(config.quality, llm, config.chosen_targets()).requests


def _cost(config: BenchConfig, llm: LLMConfig, stages: list[LoadStage]) -> float | None:
    """What all requests may cost by the price list; None: a price is unknown, or a strategy chooses who is asked."""
    messages = [Message("user", "x" * 4 * config.load.prompt_tokens)]
    total = 0.0
    for stage in stages:
        model = None if strategy_of(stage.target) else llm.models[stage.target]
        cost = estimate(model.price, messages, config.load.output_tokens) if model else None
        if cost is None:
            return None
        total += cost * stage.requests
    return total
