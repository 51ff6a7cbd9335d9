"""What a model is shown: enough to reason with, in words that fit its size, and never a test metric."""

import pytest

from agentlab.search.prompts import (
    Briefing,
    configuration,
    difference,
    edit_prompt,
    full_prompt,
    pick_prompt,
    relative,
    short_names,
)
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, Trial, TrialResult

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "encoder.depth": {"type": "int", "low": 1, "high": 4},
            "decoder.depth": {"type": "int", "low": 1, "high": 4},
            "training.lr": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "model.kind": {"type": "categorical", "choices": ["full", "prob"]},
            "model.factor": {"type": "int", "low": 1, "high": 5, "when": {"model.kind": ["prob"]}},
        }
    )
)
BASE = {"encoder.depth": 2, "decoder.depth": 1, "training.lr": 0.001, "model.kind": "prob", "model.factor": 3}
ABOUT = Briefing("Tune a forecaster.", "validation MSE", shown=("epochs",))


def history(n: int) -> list[Trial]:
    """Trial 0 is the best, trial 1 failed, the others are worse and differ in the learning rate."""
    trials = [Trial(0, Proposal(BASE, "default"), TrialResult("finished", 0.5, {"epochs": 4, "secret": 77}))]
    trials += [
        Trial(1, Proposal({**BASE, "encoder.depth": 4}, "gp"), TrialResult("failed", error="out of\nmemory" * 50))
    ]
    for number in range(2, n):
        point = {**BASE, "training.lr": 0.001 * number}
        trials.append(Trial(number, Proposal(point, "gp"), TrialResult("finished", 0.5 + 0.05 * number, {"epochs": 2})))
    return trials[:n]


def text(messages) -> str:
    return "\n".join(m.content for m in messages)


def test_names_are_as_short_as_they_stay_distinct():
    assert list(short_names(SPACE).values()) == ["encoder.depth", "decoder.depth", "lr", "kind", "factor"]
    assert configuration(SPACE, {"training.lr": 0.00123456}) == "lr 0.001235"


def test_a_difference_says_what_changes():
    full = {k: v for k, v in BASE.items() if k != "model.factor"} | {"model.kind": "full"}
    assert difference(SPACE, BASE, {**BASE, "training.lr": 0.01}) == "lr 0.001 -> 0.01"
    assert difference(SPACE, BASE, full) == "kind prob -> full, factor off"
    assert difference(SPACE, full, BASE) == "kind full -> prob, factor 3"
    assert difference(SPACE, BASE, BASE) == "no change"


@pytest.mark.parametrize(
    ("value", "best", "words"),
    [(0.5, 0.5, "as good as the best"), (0.6, 0.5, "20 % worse than the best"), (1.0, 0.0, "worse than the best")],
)
def test_relative_changes_are_words(value, best, words):
    assert relative(value, best) == words


def test_pick_shows_changes_and_no_raw_losses():
    prompt = text(pick_prompt(SPACE, history(8), [{**BASE, "training.lr": 0.02}, {**BASE, "encoder.depth": 3}], ABOUT))
    assert "A) lr 0.001 -> 0.02" in prompt
    assert "B) encoder.depth 2 -> 3" in prompt
    assert "70 % worse" in prompt
    assert "0.85" not in prompt
    assert len(prompt) < 1_200  # about 300 tokens


def test_edit_shows_ranges_current_values_and_the_last_five_trials():
    prompt = text(edit_prompt(SPACE, history(9), ABOUT))
    assert "- training.lr = 0.001 (number 1e-05 to 0.1, log scale)" in prompt
    assert "9 trials are done, 1 of them failed." in prompt
    assert prompt.count("Tried:") == 5
    assert len(prompt) < 2_400


def test_full_shows_values_whitelisted_metrics_and_conditions():
    prompt = text(full_prompt(SPACE, history(4), ABOUT))
    assert "- trial 0: " in prompt
    assert "validation MSE 0.5, epochs 4" in prompt
    assert "secret" not in prompt
    assert "only if model.kind is prob" in prompt
    assert "failed (out of memoryout of" in prompt
    assert len(max(prompt.splitlines(), key=len)) < 300  # a failure's text is cut


def test_a_prompt_does_not_grow_with_the_history():
    long, short = text(full_prompt(SPACE, history(90), ABOUT)), text(full_prompt(SPACE, history(12), ABOUT))
    assert abs(len(long) - len(short)) < 100


@pytest.mark.parametrize("briefing", [{"metric": "test MSE"}, {"metric": "validation MSE", "shown": ("Test_mae",)}])
def test_a_test_metric_cannot_be_named(briefing):
    with pytest.raises(ValueError, match="spoils"):
        Briefing("Tune.", **briefing)


@pytest.mark.parametrize("trials", [[], history(2)[1:]])
def test_prompts_need_a_best_configuration(trials):
    with pytest.raises(ValueError, match="yet"):
        edit_prompt(SPACE, trials, ABOUT)
    with pytest.raises(ValueError, match="yet"):
        pick_prompt(SPACE, trials, [BASE], ABOUT)


RUNNING = Trial(9, Proposal({**BASE, "training.lr": 0.077}, "gp"), TrialResult("running"))
TURNED_DOWN = Trial(
    -1, Proposal({**BASE, "training.lr": 0.055}, "gp"), TrialResult("failed", error="turned down by a person")
)


@pytest.mark.parametrize("prompt", [edit_prompt, full_prompt])
def test_a_trial_under_way_is_not_shown_as_a_result(prompt):
    before, after = history(5), [*history(5), RUNNING]
    assert text(prompt(SPACE, after, ABOUT)) == text(prompt(SPACE, before, ABOUT))


def test_a_model_learns_what_a_person_turned_down():
    prompt = text(full_prompt(SPACE, [*history(4), TURNED_DOWN], ABOUT))
    assert "- a proposal: " in prompt
    assert "failed (turned down by a person)" in prompt
    assert "trial -1" not in prompt
    assert "lr 0.001 -> 0.055: failed" in text(edit_prompt(SPACE, [*history(4), TURNED_DOWN], ABOUT))
