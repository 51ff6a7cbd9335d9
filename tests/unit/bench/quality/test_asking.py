"""Quality of answers: scored by rule or judged in both orders, failures apart, nothing unknown shown as zero."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from agentlab.bench.quality.asking import ANSWERS_FILE, run_quality
from agentlab.bench.quality.config import QualityConfig
from agentlab.bench.quality.result import NOT_ASKED, BenchAnswer
from agentlab.errors import BudgetExceededError, Interrupted, LLMConnectionError, LLMTimeoutError
from agentlab.llm.types import ModelRequest, Usage
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.runs.stop import StopFlag
from agentlab.tasks.generate import generate
from tests.unit.bench.conftest import Model, llm_of

SMALL = {"types": ("exact", "json", "open"), "per_type": 3}
ITEMS = {item.prompt: item for item in generate(SMALL["types"], 3)}
PRICED = Usage(100, 20, 0.001)


def knows(request: ModelRequest) -> str:
    """The right answer to every item; of open ones, a good text."""
    item = ITEMS[request.messages[-1].content]
    if item.type == "open":
        return "A sound answer of my own."
    return json.dumps(item.expected) if item.type == "json" else str(item.expected)


def verdict(best_of: str):
    """A judge: `own` finds the candidate's answer wherever it stands, `place` likes whatever comes first."""

    def say(request: ModelRequest) -> str:
        text = request.messages[-1].content
        own_first = text.index("A sound answer") < text.index("</answer A>")
        letter = "A" if best_of == "place" or own_first == (best_of == "own") else "B"
        return json.dumps({"best": letter})

    return Model(say, Usage(1, 1, 0.0))


def measure(llm, router, run: OpenRun, targets: Sequence[str] = (), stop: StopFlag | None = None, **config):
    async def go():
        async with router:
            settings = QualityConfig(**{**SMALL, **config})
            return await run_quality(settings, llm, router, run, targets=targets, stop=stop)

    return asyncio.run(go())


def judged_llm(models, **settings):
    return llm_of(
        models, roles={"primary": [name for name in models if name != "judge"], "duplicate": ["judge"]}, **settings
    )


@pytest.mark.parametrize(("preference", "score", "agreed"), [("own", 1.0, 3), ("reference", 0.0, 3), ("place", 0.5, 0)])
def test_open_answers_are_judged_in_both_orders(router_of, run, preference, score, agreed):
    models = {"able": Model(knows, PRICED), "judge": verdict(preference)}
    llm = judged_llm(models)
    result = measure(llm, router_of(llm, models), run, ["able"])
    (able,) = result.targets
    by_type = {row.type: row for row in able.by_type}
    assert (by_type["exact"].quality, by_type["json"].quality, by_type["json"].valid_json) == (1, 1, 1)
    assert by_type["open"].quality == score
    assert (result.judge.model, result.judge.judged, result.judge.agreed) == ("judge", 3, agreed)
    assert len(models["judge"].requests) == 6
    assert f"{agreed / 3:.0%}" in str(result.blocks())


def test_figures_add_up(router_of, run):
    models = {"able": Model(knows, PRICED), "judge": verdict("own")}
    llm = judged_llm(models)
    (able,) = measure(llm, router_of(llm, models), run, ["able"]).targets
    assert (able.items, able.scored, able.failed, able.quality) == (9, 9, 0, 1)
    assert 0.6 < able.low < able.high == 1
    assert able.cost_usd == pytest.approx(0.009)
    assert able.per_dollar == pytest.approx(1000)
    assert able.per_second == pytest.approx(9 / able.seconds)
    assert able.output_tokens == 180
    assert able.priors() == {"exact": (1.0, 3), "json": (1.0, 3), "open": (1.0, 3)}


def test_an_unknown_cost_stays_unknown_and_free_is_free(router_of, run):
    models = {"silent": Model(knows, Usage(1, 1, None)), "free": Model(knows, Usage(1, 1, 0.0))}
    llm = llm_of(models)
    result = measure(llm, router_of(llm, models), run, types=("exact",))
    silent, free = result.targets
    assert (silent.cost_usd, silent.per_dollar) == (None, None)
    assert (free.cost_usd, free.per_dollar) == (0, None)
    report = str(result.blocks())
    assert "unknown" in report
    assert "free" in report


def test_failed_requests_score_nothing_and_are_counted_apart(router_of, run):
    def moody(request: ModelRequest) -> str | Exception:
        return LLMTimeoutError("Too slow.") if ITEMS[request.messages[-1].content].type == "json" else knows(request)

    models = {"moody": Model(moody)}
    llm = llm_of(models)
    result = measure(llm, router_of(llm, models), run, types=("exact", "json"))
    (row,) = result.targets
    assert (row.scored, row.failed, row.quality) == (6, 3, 0.5)
    answers = [BenchAnswer.model_validate_json(line) for line in (run.path / ANSWERS_FILE).read_text().splitlines()]
    failed = [answer for answer in answers if answer.error]
    assert {(a.error, a.message, a.score, a.type) for a in failed} == {("LLMTimeoutError", "Too slow.", 0.0, "json")}
    assert len(answers) == 6


def test_without_a_judge_open_answers_are_left_out_and_it_says_how_to_get_one(router_of, run):
    models = {"able": Model(knows)}
    llm = llm_of(models)
    result = measure(llm, router_of(llm, models), run)
    (row,) = result.targets
    assert (row.items, row.scored, row.failed, row.quality) == (9, 6, 0, 1)
    assert "quality.judge" in result.judge.note
    assert "not scored" in str(result.blocks())


def test_a_judge_that_fails_or_babbles_leaves_the_answer_unscored(router_of, run):
    models = {"able": Model(knows), "judge": Model(lambda _: LLMConnectionError("Gone."))}
    llm = judged_llm(models)
    result = measure(llm, router_of(llm, models), run, ["able"], types=("open",))
    assert (result.targets[0].scored, result.judge.judged, result.judge.unusable) == (0, 0, 3)


def test_a_target_that_never_answers_is_given_up(router_of, run):
    models = {"dead": Model(lambda _: LLMConnectionError("Refused.")), "able": Model(knows)}
    llm = llm_of(models)
    result = measure(llm, router_of(llm, models), run, types=("exact", "json"), per_type=3)
    dead, able = result.targets
    assert (dead.failed, dead.quality) == (6, 0)
    assert able.quality == 1
    errors = [event.data["answer"]["error"] for event in run.events if event.id.startswith("dead/")]
    assert errors[-1] == NOT_ASKED
    assert len(models["dead"].requests) <= 5


def test_a_resumed_run_asks_only_what_has_no_answer(router_of, run, tmp_path):
    models = {"able": Model(knows, PRICED), "judge": verdict("own")}
    llm = judged_llm(models)
    expected = measure(llm, router_of(llm, models), run, ["able"])
    answer_events = [event for event in run.events if event.type == "answer.given"]
    with OpenRun.create(tmp_path / "runs", RunSpec("llm-bench", "", "", "h", 0, name="cut"), RunEnvironment()) as cut:
        for event in answer_events[:7]:
            cut.emit(event.type, event.id, **event.data)
        resumed_models = {"able": Model(knows, PRICED), "judge": verdict("own")}
        resumed = measure(llm, router_of(llm, resumed_models), cut, ["able"])
        assert len(resumed_models["able"].requests) == 2
        assert len(resumed_models["judge"].requests) == 6
        measure(llm, router_of(llm, resumed_models), cut, ["able"])
        assert len(resumed_models["able"].requests) == 2  # nothing is left to ask
        assert len(resumed_models["judge"].requests) == 6
    timeless = {"seconds", "median_seconds", "per_second"}
    assert resumed.targets[0].model_dump(exclude=timeless) == expected.targets[0].model_dump(exclude=timeless)


def test_answers_to_other_items_are_not_taken_for_these(router_of, run):
    models = {"able": Model(lambda _: "42")}
    llm = llm_of(models)
    measure(llm, router_of(llm, models), run, types=("exact",), items_seed=1)
    measure(llm, router_of(llm, models), run, types=("exact",), items_seed=2)
    assert len(models["able"].requests) == 6


def test_a_stop_keeps_what_was_answered(router_of, run):
    stop, models = StopFlag(), {}

    def stopping(request: ModelRequest) -> str:
        if len(models["able"].requests) == 2:
            stop.request(15)
        return knows(request)

    models["able"] = Model(stopping)
    llm = llm_of(models)
    with pytest.raises(Interrupted):
        measure(llm, router_of(llm, models), run, stop=stop, types=("exact", "json"))
    assert 1 <= len([event for event in run.events if event.type == "answer.given"]) < 6


def test_the_budget_ends_the_run_and_is_not_the_models_fault(router_of, run):
    models = {"dear": Model(knows, Usage(100, 20, 0.6))}
    llm = llm_of(models, budget={"per_run_usd": 1.0})
    with pytest.raises(BudgetExceededError):
        measure(llm, router_of(llm, models), run, types=("exact",))
    answers = [event.data["answer"] for event in run.events if event.type == "answer.given"]
    assert len(answers) == 2
    assert not any(answer["error"] for answer in answers)


def test_the_budget_ends_the_run_at_the_judge_too_and_no_verdict_is_lost(router_of, run):
    models = {"able": Model(knows, Usage(1, 1, 0.0)), "judge": Model(verdict("own").say, Usage(1, 1, 0.4))}
    poor, rich = (judged_llm(models, budget={"per_run_usd": limit_usd}) for limit_usd in (1.0, 100.0))
    with pytest.raises(BudgetExceededError):
        measure(poor, router_of(poor, models), run, ["able"], types=("open",))
    assert all(event.data["agreed"] for event in run.events if event.type == "answer.judged")
    assert measure(rich, router_of(rich, models), run, ["able"], types=("open",)).judge.judged == 3


def test_a_strategy_is_a_target(router_of, run):
    models = {"down": Model(lambda _: LLMConnectionError("Refused.")), "able": Model(knows)}
    llm = llm_of(models)
    result = measure(llm, router_of(llm, models), run, ["strategy:fallback", "down"], types=("exact",))
    chain, down = result.targets
    assert (chain.target, chain.quality, down.quality) == ("strategy:fallback", 1, 0)
