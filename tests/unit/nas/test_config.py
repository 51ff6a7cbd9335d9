"""What a trial may change, and which combinations are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentlab.errors import ConfigError
from agentlab.nas.config import (
    DataConfig,
    FinalsConfig,
    ModelConfig,
    NasConfig,
    OptimizerParams,
    SplitConfig,
    TrainingConfig,
    TrialConfig,
    at_rung,
    params_of,
    trial_keys,
    with_params,
)
from agentlab.study.state import StudyCandidate

SEED_NAMES = {
    "data.batch_size": 64,
    "training.optimizer_params.lr": 0.01,
    "training.optimizer_class": "AdamW",
    "training.criterion_class": "SmoothL1Loss",
    "model.d_model": 64,
    "model.n_heads": 4,
    "model.e_layers": 3,
    "model.dropout": 0.3,
}


def test_the_published_setting_is_the_default():
    model = ModelConfig()
    assert (model.d_model, model.n_heads, model.e_layers, model.d_layers) == (512, 8, 2, 1)
    assert (model.d_model * model.ff_multiplier, model.factor, model.dropout) == (2048, 5, 0.05)
    assert (TrainingConfig().epochs, TrainingConfig().optimizer_params.lr) == (6, 1e-4)


def test_a_trial_changes_dotted_names_and_tells_them_back():
    changed = with_params(TrialConfig(), SEED_NAMES)
    assert params_of(changed, tuple(SEED_NAMES)) == SEED_NAMES
    assert changed.data.horizon == DataConfig().horizon


@pytest.mark.parametrize(
    "name", ["data.horizon", "data.path", "data.split.train", "model.faithful", "seed", "model", "x"]
)
def test_a_trial_cannot_change_what_it_is_judged_on(name):
    assert name not in trial_keys()
    with pytest.raises(ConfigError, match=f"cannot change {name}"):
        with_params(TrialConfig(), {name: 1})


def test_every_trial_key_can_be_read_and_written():
    trial = TrialConfig()
    assert with_params(trial, {n: v for n, v in params_of(trial, trial_keys()).items() if v is not None}) == trial


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"model.n_heads": 3}, "d_model 512 must be even and a multiple of n_heads 3"),
        ({"model.d_model": -1}, "model.d_model: "),
        ({"training.optimizer_class": "LBFGS"}, "training.optimizer_class: "),
        ({"training.optimizer_params.momentum": 0.9}, "Adam does not take momentum"),
        ({"data.input_length": 3}, "is too short to be halved between 2 encoder layers"),
    ],
)
def test_values_that_do_not_go_together_are_refused(params, says):
    with pytest.raises(ConfigError) as caught:
        with_params(TrialConfig(), params)
    assert says in caught.value.message


def test_faithful_refuses_the_switches_beyond_the_paper():
    with pytest.raises(ValidationError, match="faithful cannot be combined with normalize and shortcut"):
        ModelConfig(faithful=True, normalize=True, shortcut=True)
    faithful = TrialConfig(model=ModelConfig(faithful=True))
    with pytest.raises(ConfigError, match="faithful cannot be combined with shortcut"):
        with_params(faithful, {"model.shortcut": True})


def test_a_space_holds_only_what_a_trial_may_change():
    space = {"data.horizon": {"type": "int", "low": 1, "high": 9}}
    with pytest.raises(ValidationError, match=r"a trial cannot change data\.horizon"):
        NasConfig.model_validate({"space": space})


@pytest.mark.parametrize("split", [{"train": 0.6, "val": 10, "test": 10}, {"train": 0.6, "val": 0.3, "test": 0.2}])
def test_a_split_is_all_rows_or_all_shares_of_at_most_one(split):
    with pytest.raises(ValidationError, match=r"not a mix|must not exceed 1"):
        SplitConfig(**split)


@given(st.integers(2, 4096), st.floats(0, 1))
def test_the_label_never_exceeds_the_input(length, share):
    assert 0 <= DataConfig(input_length=length, label_share=share).label_length <= length


def test_a_config_is_frozen_and_knows_its_keys():
    with pytest.raises(ValidationError, match="frozen"):
        OptimizerParams().lr = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        OptimizerParams(learning_rate=1)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"evaluator": {"repeats": -1}}, "evaluator.repeats"),
        ({"evaluator": {"noise": 1.0}}, "evaluator.noise"),
        ({"evaluator": {"noise": float("nan")}}, "evaluator.noise"),
        ({"finals": {"count": -1}}, "finals.count"),
        ({"finals": {"seeds": 0}}, "finals.seeds"),
        ({"finals": {"train_fraction": 0}}, "finals.train_fraction"),
        ({"control": "none"}, "control"),
        ({"control_seeds": 4}, "control_seeds"),  # fewer pairs could not show anything
        ({"workers": 0}, "workers"),
        ({"search": {"pick_from": 1}}, "search.pick_from"),
    ],
)
def test_bounds_are_named_by_their_key(settings, where):
    with pytest.raises(ValidationError) as caught:
        NasConfig.model_validate(settings)
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [where]


def test_an_empty_space_is_a_config_of_one_trial():
    assert NasConfig.model_validate({"space": {}, "max_iterations": 1}).space.root == {}


def test_trial_0_is_the_config_as_it_stands():
    config = NasConfig.model_validate({"model": {"d_model": 16, "n_heads": 2}, "training": {"epochs": 9}})
    assert (config.trial().model.d_model, config.trial().training.epochs) == (16, 9)


def test_how_many_work_at_a_time_and_for_how_long_is_not_part_of_the_experiment():
    """Keys that may differ on resume are marked; all others identify the run."""
    roles = {name: (field.json_schema_extra or {}).get("role") for name, field in NasConfig.model_fields.items()}
    assert {name: role for name, role in roles.items() if role} == {
        "workers": "machine",
        "max_iterations": "budget",
        "max_seconds": "budget",
    }


def test_full_budget_replaces_what_the_search_saved_and_nothing_else() -> None:
    params: dict[str, Any] = {"training.epochs": 1, "model.dropout": 0.2}
    search, last = StudyCandidate("run_0001", 0, params), StudyCandidate("run_0001-f0", 1000, params, rung=1)
    base = TrialConfig(training=TrainingConfig(train_fraction=0.1))
    full = FinalsConfig(train_fraction=1.0).full
    assert full == {"training.train_fraction": 1.0}
    assert at_rung(base, search, full) == with_params(base, params)
    assert at_rung(base, last, full) == with_params(base, {**params, "training.train_fraction": 1.0})
    trained = at_rung(base, last, FinalsConfig(train_fraction=0.5, epochs=9).full)
    assert (trained.training.train_fraction, trained.training.epochs, trained.model.dropout) == (0.5, 9, 0.2)
