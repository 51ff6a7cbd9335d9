"""The model as proposer: what it may do in each tier, and that no failure of it costs a trial."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from agentlab import errors
from agentlab.llm.types import Completion, Message, Usage
from agentlab.search.arms import RandomProposer
from agentlab.search.constraints import Constraint
from agentlab.search.llm_proposer import LLMProposer, edit_schema, full_schema, one_line, pick_schema
from agentlab.search.prompts import Briefing
from agentlab.search.screen import ScreenedProposer, ScreenEstimate, ScreenLimits, ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, Trial, TrialResult

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "model.heads": {"type": "categorical", "choices": [1, 2, 3, 4]},
            "model.width": {"type": "categorical", "choices": [8, 16, 32, 64]},
            "training.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "model.kind": {"type": "categorical", "choices": ["full", "prob"]},
            "model.factor": {"type": "int", "low": 1, "high": 5, "when": {"model.kind": ["prob"]}},
        }
    ),
    TypeAdapter(list[Constraint]).validate_python([{"divides": ["model.heads", "model.width"]}]),
)
BEST = {"model.heads": 2, "model.width": 16, "training.lr": 0.001, "model.kind": "full"}
WORSE = {**BEST, "model.width": 8}
HISTORY = [
    Trial(0, Proposal(WORSE, "default"), TrialResult("finished", 0.8, {"test_mse": 0.123456})),
    Trial(1, Proposal(BEST, "lhs"), TrialResult("finished", 0.5, {"test_mse": 0.654321})),
]
ABOUT = Briefing("Tune a forecaster.", "validation MSE")


class Scripted:
    """A router that answers from a script; an exception in the script is raised."""

    def __init__(self, tier: str | None, *answers: Any) -> None:
        self._tier, self.answers = tier, list(answers)
        self.prompts: list[str] = []
        self.calls: list[str] = []

    def tier(self, task: str) -> Any:
        return self._tier

    def complete_sync(self, messages: Sequence[Message], task, schema, *, call_id) -> Completion[Any]:
        self.prompts.append("\n".join(m.content for m in messages))
        self.calls.append(call_id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        try:
            value = schema.model_validate(answer)
        except ValidationError as error:
            raise errors.SchemaError("The answer does not follow the schema.") from error
        return Completion(value, str(answer), "scripted", Usage(), ())


class Counting(RandomProposer):
    """The base of these tests: random points, counting how often it was needed."""

    asked = 0

    def ask(self, history, n, rng):
        self.asked += 1
        return super().ask(history, n, rng)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def proposer(router: Scripted, base: Counting | None = None) -> LLMProposer:
    rules = ScreenRules(SPACE)
    return LLMProposer(ScreenedProposer(base or Counting(SPACE), rules), router, rules, ABOUT)


def test_pick_chooses_among_what_the_base_would_have_proposed():
    options = [p.params for p in ScreenedProposer(RandomProposer(SPACE), ScreenRules(SPACE)).ask(HISTORY, 4, rng())]
    chosen = {}
    for letter in "ABCD":
        proposals = proposer(Scripted("pick", {"choice": letter})).ask(HISTORY, 1, rng())
        assert [p.source for p in proposals] == ["llm"]
        chosen[letter] = options.index(proposals[0].params)
    assert sorted(chosen.values()) == [0, 1, 2, 3]
    assert list(chosen.values()) != [0, 1, 2, 3]  # the order was shuffled


def test_the_order_of_the_options_changes_from_trial_to_trial():
    """A model that always says A picks different ranks of the base's list."""
    notes = {proposer(Scripted("pick", {"choice": "A"})).ask(HISTORY, 1, rng(seed))[0].note for seed in range(12)}
    assert len(notes) == 4


def test_an_exhausted_space_is_not_put_to_the_model():
    router = Scripted("pick")
    rules = ScreenRules(SPACE, lambda params: ScreenEstimate(10, 10), ScreenLimits(parameters=1))
    asking = LLMProposer(ScreenedProposer(RandomProposer(SPACE), rules), router, rules, ABOUT)
    assert asking.ask(HISTORY, 1, rng()) == []
    assert router.calls == []


def test_edit_changes_one_parameter_of_the_best_configuration():
    base = Counting(SPACE)
    proposals = proposer(Scripted("edit", {"param": "training.lr", "value": 0.003}), base).ask(HISTORY, 1, rng())
    assert proposals == [Proposal({**BEST, "training.lr": 0.003}, "llm", "lr 0.001 -> 0.003")]
    assert base.asked == 0


def test_an_edit_beyond_the_range_is_clamped():
    proposals = proposer(Scripted("edit", {"param": "training.lr", "value": "1e9"})).ask(HISTORY, 1, rng())
    assert proposals[0].params["training.lr"] == 0.1


def test_full_gives_up_to_three_screened_configurations():
    answer = {
        "reason": "Wider\x1b[31m\nmodels   help.",
        "candidates": [{"model.width": 16}, {"model.width": 64, "model.kind": "prob"}, {"training.lr": 0.01}],
    }
    proposals = proposer(Scripted("full", answer)).ask(HISTORY, 3, rng())
    assert [p.source for p in proposals] == ["llm", "llm", "random"]  # the first one changed nothing
    assert proposals[0].params == {**BEST, "model.width": 64, "model.kind": "prob", "model.factor": 3}
    assert proposals[0].note == "Wider [31m models help."


@pytest.mark.parametrize(
    ("tier", "answer", "reason"),
    [
        ("pick", {"choice": "Z"}, "SchemaError"),
        ("pick", errors.LLMTimeoutError("The model took too long."), "LLMTimeoutError: The model took too long."),
        ("edit", {"param": "model.depth", "value": 1}, "SchemaError"),
        (
            "edit",
            {"param": "model.kind", "value": "flash"},
            "unusable answer: 'flash' is not a valid value of model.kind",
        ),
        ("edit", {"param": "model.width", "value": 16}, "identical to the best configuration (trial 1)"),
        ("edit", {"param": "model.width", "value": 8}, "already tried in trial 0"),
        ("edit", {"param": "model.heads", "value": 3}, "does not divide"),
        ("edit", errors.BudgetExceededError("The next call would cost too much."), "BudgetExceededError"),
        ("full", {"reason": "", "candidates": []}, "SchemaError"),
        ("full", {"reason": "", "candidates": [{"model.width": "wide"}]}, "'wide' is not a valid value of model.width"),
        (
            "full",
            errors.WorkerDiedError("The worker died.\nwith a log"),
            "WorkerDiedError: The worker died. with a log",
        ),
        ("full", errors.MissingKeyError("No key."), "MissingKeyError"),
        ("full", errors.AllModelsFailedError("No model answered."), "AllModelsFailedError: No model answered."),
    ],
)
def test_a_failed_or_useless_answer_falls_back_at_once(tier, answer, reason):
    router = Scripted(tier, answer)
    proposals = proposer(router).ask(HISTORY, 1, rng())
    assert [p.source for p in proposals] == ["llm->random"]
    assert reason in proposals[0].note
    assert SPACE.problems(proposals[0].params) == []
    assert len(router.calls) == 1  # retries are the router's business


def test_the_fallback_is_what_the_base_would_have_proposed():
    alone = ScreenedProposer(RandomProposer(SPACE), ScreenRules(SPACE)).ask(HISTORY, 2, rng(3))
    for tier in ("edit", "full"):
        proposals = proposer(Scripted(tier, errors.LLMConnectionError("Refused."))).ask(HISTORY, 2, rng(3))
        assert [p.params for p in proposals] == [p.params for p in alone]
        assert [p.source for p in proposals] == ["llm->random", "random"]


@pytest.mark.parametrize("bug", [KeyError("x"), TypeError("x")])
def test_a_bug_is_not_a_failed_model(bug):
    with pytest.raises(type(bug)):
        proposer(Scripted("edit", bug)).ask(HISTORY, 1, rng())


def test_a_signal_is_not_a_failed_model():
    with pytest.raises(errors.Interrupted):
        proposer(Scripted("edit", errors.Interrupted("stop"))).ask(HISTORY, 1, rng())


def test_without_a_finished_trial_the_model_is_not_asked():
    router = Scripted("edit")
    failed = [Trial(0, Proposal(BEST, "default"), TrialResult("failed", error="out of memory"))]
    for history in ([], failed):
        assert [p.source for p in proposer(router).ask(history, 1, rng())] == ["random"]
    assert router.calls == []


def test_without_a_model_the_base_proposes_under_its_own_name():
    assert [p.source for p in proposer(Scripted(None)).ask(HISTORY, 1, rng())] == ["random"]


def test_a_call_is_known_by_its_trial_so_a_resumed_run_replays_it():
    router = Scripted("edit", {"param": "training.lr", "value": 0.003}, {"param": "training.lr", "value": 0.004})
    asking = proposer(router)
    asking.ask(HISTORY[1:], 1, rng())
    asking.ask(HISTORY, 1, rng())
    assert router.calls == ["nas.propose:1", "nas.propose:2"]


@pytest.mark.parametrize("tier", ["pick", "edit", "full"])
def test_no_prompt_holds_a_test_metric(tier):
    router = Scripted(tier, errors.LLMConnectionError("Refused."))
    proposer(router).ask(HISTORY, 1, rng())
    assert "0.123" not in router.prompts[0]
    assert "0.654" not in router.prompts[0]
    assert "test" not in router.prompts[0].lower()


def test_the_schemas_are_closed_and_small():
    pick, edit, full = pick_schema(3), edit_schema(("a.b", "c")), full_schema(("a.b", "c"))
    assert pick.model_json_schema()["properties"]["choice"]["enum"] == ["A", "B", "C"]
    assert edit.model_json_schema()["properties"]["param"]["enum"] == ["a.b", "c"]
    assert list(full.model_json_schema()["properties"]) == ["reason", "candidates"]  # think first
    assert set(full.model_json_schema()["$defs"]["Candidate"]["properties"]) == {"a.b", "c"}
    with pytest.raises(ValidationError):
        edit.model_validate({"param": "a.b", "value": 1, "shell": "rm"})


def test_untrusted_text_becomes_one_short_printable_line():
    assert one_line("a\x00\n\tb\x1b[0m") == "a b [0m"
    assert len(one_line("x" * 10_000)) == 200


def test_studies_that_share_a_router_are_told_apart():
    router = Scripted("edit", {"param": "training.lr", "value": 0.003})
    rules = ScreenRules(SPACE)
    base = ScreenedProposer(Counting(SPACE), rules)
    LLMProposer(base, router, rules, ABOUT, scope="agent-1/").ask(HISTORY, 1, rng())
    assert router.calls == ["agent-1/nas.propose:2"]


@pytest.mark.parametrize("options", [2, 3, 8])
def test_how_many_options_a_small_model_sees_is_set(options):
    router = Scripted("pick", {"choice": "A"})
    rules = ScreenRules(SPACE)
    base = ScreenedProposer(Counting(SPACE), rules)
    proposals = LLMProposer(base, router, rules, ABOUT, options=options).ask(HISTORY, 1, rng())
    lines = router.prompts[0].splitlines()
    assert [line[0] for line in lines if line[1:2] == ")"] == list("ABCDEFGH"[:options])
    assert f"of {options}, proposed by random" in proposals[0].note


def test_every_entry_of_a_history_is_a_call_of_its_own():
    """A refused proposal and a trial under way make the next question another one."""
    turned_down = Trial(-1, Proposal({**BEST, "training.lr": 0.05}, "llm"), TrialResult("failed", error="turned down"))
    under_way = Trial(2, Proposal({**BEST, "training.lr": 0.02}, "llm"), TrialResult("running"))
    router = Scripted("edit", *[{"param": "training.lr", "value": 0.003}] * 2)
    asking = proposer(router)
    asking.ask([*HISTORY, turned_down], 1, rng())
    asking.ask([*HISTORY, turned_down, under_way], 1, rng())
    assert router.calls == ["nas.propose:3", "nas.propose:4"]


def test_an_answer_that_a_person_turned_down_before_falls_back():
    turned_down = Trial(-1, Proposal({**BEST, "training.lr": 0.05}, "llm"), TrialResult("failed", error="turned down"))
    proposals = proposer(Scripted("edit", {"param": "training.lr", "value": 0.05})).ask(
        [*HISTORY, turned_down], 1, rng()
    )
    assert [p.source for p in proposals] == ["llm->random"]
    assert "already rejected" in proposals[0].note
