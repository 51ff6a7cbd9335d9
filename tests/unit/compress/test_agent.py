"""The agent of a compression: asked by what its model can do, and never worse than the rules where it fails."""

from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.agent import Agent
from agentlab.compress.config import CompressConfig
from agentlab.compress.goal import read_goal
from agentlab.compress.recipe import recipe_of
from agentlab.compress.tools import Situation
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial, TrialResult
from tests.unit.compress.scripted import calls, llm

CONFIG = CompressConfig()
SPACE = SearchSpace.of(CONFIG.searched_space, CONFIG.rules)


def trial(number: int, params: Params, size: float, kl: float) -> Trial:
    metrics = {
        "size": int(size * 1e6),
        "kl": kl,
        "joules": 200.0,
        "shares": {"size": size, "kl": kl, "loss": kl / 2, "speed": 1.0},
    }
    result = TrialResult("finished", size, metrics, objectives=(size, kl), items=(kl, kl * 1.1, kl * 0.9))
    return Trial(number, Proposal(params, "portfolio"), result)


def kquant(bits: int, *, importance: bool = False) -> dict[str, Any]:
    return {"structure": "none", "quantizer": "kquant", "quantization_bits": bits, "importance": importance}


MASKS = {"pruner": "wanda", "pruning_sparsity": 0.5, "quantizer": "kquant", "quantization_bits": 4}
TRIALS = [trial(0, kquant(8), 0.53, 0.001), trial(1, kquant(4), 0.35, 0.05), trial(2, kquant(2), 0.25, 0.9)]
SITUATION = Situation(read_goal("smallest with < 5 % loss"), ScreenRules(SPACE), TRIALS)


def asked(tmp_path: Path, llm: dict[str, Any], task: str, situation: Situation = SITUATION) -> Any:
    config = LLMConfig.model_validate(llm)
    with Router(config, env={}, workspace=Workspace(tmp_path, tmp_path)) as router:
        agent = Agent(router, situation)
        return agent.propose(situation.rules.against(situation.trials)) if task == "propose" else getattr(agent, task)()


def test_without_a_model_the_plan_is_that_of_the_rules() -> None:
    advice = Agent(None, SITUATION).plan()
    assert advice.by == ""
    assert advice.recipes
    tried = {SPACE.key(entry.proposal.params) for entry in TRIALS}
    assert not tried & {SPACE.key(entry["params"]) for entry in advice.recipes}
    assert all(entry["estimate"]["kl"] > 0 for entry in advice.recipes)


def test_a_small_model_picks_a_kind_of_recipe_and_the_rest_is_written_by_rule(tmp_path: Path) -> None:
    first, last = (asked(tmp_path, llm("pick", mode=mode), "plan") for mode in ("first", "adversarial"))
    assert first.by == last.by == "m"
    kinds = [{recipe_of(entry["params"]).family for entry in advice.recipes} for advice in (first, last)]
    assert kinds[0] != kinds[1]
    assert all(len(entry) == 1 for entry in kinds)


def test_a_model_with_tools_asks_specialists_and_writes_the_plan(tmp_path: Path) -> None:
    recipe = kquant(4, importance=True)
    script = calls(
        ("show_front", {}),
        ("ask_specialist", {"specialist": "quantization", "question": "What at 4 bits?"}),
        ("configure_quantization", {"quantizer": "kquant", "quantization_bits": 4, "importance": True}),
        ("estimate", {"recipe": recipe}),
        ("answer", {"answer": "Q4_K_M with importance."}),
        ("finish", {"output": "Try importance.", "todos": ["look at 4 bits"], "recipes": [recipe, kquant(8), MASKS]}),
    )
    advice = asked(tmp_path, llm("full", **script), "plan")
    assert (
        advice.output == "Try importance. 2 of the suggested recipes cannot be tried."
    )  # measured, and outside the space
    assert advice.todos == ["look at 4 bits"]
    assert [entry["params"] for entry in advice.recipes] == [recipe]
    assert advice.recipes[0]["estimate"]["size"] > 0


def test_a_proposal_has_to_be_new_and_possible_and_may_be_corrected(tmp_path: Path) -> None:
    script = calls(
        ("execute_experiment", {"recipe": kquant(8)}),  # was measured
        ("execute_experiment", {"recipe": {"quantizer": "gptq", "quantization_bits": 3}}),  # has no format
        ("execute_experiment", {"recipe": {"quantizer": "nonsense"}}),
        ("execute_experiment", {"recipe": kquant(6), "reason": "a step less\nthan eight"}),
    )
    assert asked(tmp_path, llm("full", **script), "propose") == (kquant(6), "a step less than eight")


@pytest.mark.parametrize("mode", ["garbage", "stuck", "refuse"])
@pytest.mark.parametrize("tier", ["pick", "full"])
def test_a_model_that_fails_leaves_the_plan_to_the_rules(tmp_path: Path, tier: str, mode: str) -> None:
    advice = asked(tmp_path, llm(tier, mode=mode), "plan")
    assert [entry["params"] for entry in advice.recipes] == [
        entry["params"] for entry in Agent(None, SITUATION).plan().recipes
    ]


def test_a_reflection_says_what_was_learnt(tmp_path: Path) -> None:
    trials = [*TRIALS, trial(3, kquant(4, importance=True), 0.35, 0.03)]
    situation = Situation(SITUATION.goal, SITUATION.rules, trials)
    advice = asked(tmp_path, llm("pick", mode="first"), "reflect", situation)
    assert "Lessons from 4 measured recipes" in advice.output
    assert "importance False -> True" in advice.output


def test_a_model_that_only_asks_specialists_is_told_to_decide(tmp_path: Path) -> None:
    question = ("ask_specialist", {"specialist": "lora", "question": "And now?"})
    script = calls(*[step for _ in range(9) for step in (question, ("answer", {"answer": "It depends."}))])
    with Router(
        LLMConfig.model_validate(llm("full", **script)), env={}, workspace=Workspace(tmp_path, tmp_path)
    ) as router:
        advice = Agent(router, SITUATION).plan()
        assert router.usage.output_tokens == 4 * 2 + 4  # four questions with their answers, and four that were refused
    assert advice.by == ""
    assert "gave no usable answer" in advice.output
