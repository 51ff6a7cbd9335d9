"""Every shipped preset loads, trial 0 lies in its space, and the whole space can be built."""

from pathlib import Path

import numpy as np
import pytest

from agentlab.config.load import load
from agentlab.config.presets import shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.nas.config import ModelConfig, NasConfig, TrainingConfig, params_of, with_params
from agentlab.nas.plan import estimate
from agentlab.search.space import SearchSpace

PRESETS = sorted(path.stem for path in (shipped_folder() / "nas").glob("*.yaml"))

# Input, label and forecast length, encoder and decoder layers and factor of each cell of the paper's two tables, from
# the authors' scripts ETTh1.sh and ETTh2.sh.
PUBLISHED = {
    "etth1-m24": (48, 48, 24, 2, 1, 3),
    "etth1-m48": (96, 48, 48, 2, 1, 5),
    "etth1-m168": (168, 168, 168, 2, 1, 5),
    "etth1-m336": (168, 168, 336, 2, 1, 5),
    "etth1-m720": (336, 336, 720, 2, 1, 5),
    "etth1-s24": (720, 168, 24, 2, 1, 5),
    "etth1-s48": (720, 168, 48, 2, 1, 5),
    "etth1-s168": (720, 336, 168, 2, 1, 5),
    "etth1-s336": (720, 336, 336, 2, 1, 5),
    "etth1-s720": (720, 336, 720, 2, 1, 5),
    "etth2-m24": (48, 48, 24, 2, 1, 5),
    "etth2-m48": (96, 96, 48, 2, 1, 5),
    "etth2-m168": (336, 336, 168, 3, 2, 5),
    "etth2-m336": (336, 168, 336, 3, 2, 5),
    "etth2-m720": (720, 336, 720, 3, 2, 5),
    "etth2-s24": (48, 48, 24, 2, 1, 3),
    "etth2-s48": (96, 96, 48, 2, 1, 5),
    "etth2-s168": (336, 336, 168, 2, 1, 5),
    "etth2-s336": (336, 168, 336, 3, 2, 5),
    "etth2-s720": (336, 336, 720, 3, 2, 5),
}


def read(name: str, folder: Path) -> NasConfig:
    workspace = Workspace(root=folder, cache=folder)
    env = {"OPENROUTER_API_KEY": "a key for the test"}
    return load(NasConfig, "nas", name, [], workspace=workspace, env=env, cwd=folder).config


def test_the_presets_are_those_of_the_manual():
    searches = {"default", "demo", "etth1", "etth1-faithful", "etth2", "openrouter"}
    published = {"informer-etth1", "informer-etth2", *(f"informer-{cell}" for cell in PUBLISHED)}
    assert set(PRESETS) == searches | published


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


@pytest.mark.parametrize(("cell", "lengths"), PUBLISHED.items())
def test_a_published_preset_has_the_lengths_of_the_authors_scripts(cell, lengths, tmp_path):
    config = read(f"informer-{cell}", tmp_path)
    data, model = config.data, config.model
    preset_lengths = (data.input_length, data.label_length, data.horizon, model.e_layers, model.d_layers, model.factor)
    assert preset_lengths == lengths
    series, features = cell.split("-")
    assert (data.path, data.target) == (f"data/ETT-small/{series.replace('etth', 'ETTh')}.csv", "OT")
    assert data.features == features[0].upper()


@pytest.mark.parametrize("cell", PUBLISHED)
def test_a_published_preset_trains_once_with_the_authors_defaults(cell, tmp_path):
    config = read(f"informer-{cell}", tmp_path)
    lengths = {"e_layers", "d_layers", "factor"}
    assert config.model.faithful
    assert config.model.model_dump(exclude=lengths) == ModelConfig(faithful=True).model_dump(exclude=lengths)
    assert config.training == TrainingConfig()
    assert config.data.batch_size == 32
    assert config.max_iterations == 1


def test_the_defaults_of_the_network_and_its_training_are_the_authors():
    model, training = ModelConfig(), TrainingConfig()
    assert (model.d_model, model.n_heads, model.d_model * model.ff_multiplier, model.dropout) == (512, 8, 2048, 0.05)
    assert (model.attention, model.distil, model.mix) == ("prob", True, True)
    assert (training.optimizer_class, training.optimizer_params.lr, training.schedule) == ("Adam", 1e-4, "halving")
    assert (training.criterion_class, training.epochs, training.patience) == ("MSELoss", 6, 3)
    assert training.train_fraction == 1.0


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_costs_and_how_to_launch_and_override_it(name):
    text = (shipped_folder() / "nas" / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    command = "agentlab nas" if name == "default" else f"agentlab nas {name}"
    assert command in header
    for word in ("Cost:", "Launch:", "Override:"):
        assert word in header
