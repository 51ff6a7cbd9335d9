"""Every shipped preset loads, trial 0 lies in its space, and the whole space can be built."""

from pathlib import Path

import numpy as np
import pytest

from agentlab.config.load import load
from agentlab.config.presets import shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.nas.config import NasConfig, params_of, with_params
from agentlab.nas.estimate import estimate
from agentlab.search.space import SearchSpace

PRESETS = sorted(path.stem for path in (shipped_folder() / "nas").glob("*.yaml"))


def read(name: str, folder: Path) -> NasConfig:
    workspace = Workspace(root=folder, cache=folder)
    env = {"OPENROUTER_API_KEY": "a key for the test"}
    return load(NasConfig, "nas", name, [], workspace=workspace, env=env, cwd=folder).config


def test_the_presets_are_those_of_the_manual():
    assert set(PRESETS) == {"default", "demo", "etth1", "etth1-faithful", "etth2", "openrouter"}


@pytest.mark.parametrize("name", PRESETS)
def test_trial_0_is_a_point_and_every_point_can_be_built_within_the_limits(name, tmp_path, make_series):
    config = read(name, tmp_path)
    space = SearchSpace.of(config.space, config.constraints, params_of(config.trial(), tuple(config.space.root)))
    values = space.reduce(params_of(config.trial(), tuple(config.space.root)))
    assert space.problems(values) == []
    rng, series = np.random.default_rng(0), make_series(channels=7)
    for point in [values, *(space.sample(rng) for _ in range(200))]:
        needed = estimate(with_params(config.trial(), point), series)
        assert needed.parameters <= config.search.max_parameters
        assert needed.memory_bytes <= config.search.memory_mb * 2**20


def test_the_seeds_names_are_searched_by_default(tmp_path):
    names = {
        "data.batch_size",
        "model.d_model",
        "model.n_heads",
        "model.e_layers",
        "model.dropout",
        "training.optimizer_class",
        "training.criterion_class",
        "training.optimizer_params.lr",
    }
    assert names <= set(read("default", tmp_path).space.root)


def test_the_faithful_preset_searches_no_switch_beyond_the_paper(tmp_path):
    config = read("etth1-faithful", tmp_path)
    assert config.model.faithful
    assert not {"model.normalize", "model.shortcut"} & set(config.space.root)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_costs_and_how_to_launch_and_override_it(name):
    text = (shipped_folder() / "nas" / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    command = "agentlab nas" if name == "default" else f"agentlab nas {name}"
    assert command in header
    for word in ("Cost:", "Launch:", "Override:"):
        assert word in header
