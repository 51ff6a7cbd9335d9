"""Loading: precedence, origins, presets within presets, and all errors at once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentlab.commands import COMMANDS
from agentlab.config.base import EnvText, StrictModel, config_hash, escape, expand
from agentlab.config.load import config_values, dump_yaml, load, load_resolved
from agentlab.config.overrides import Override, parse
from agentlab.config.presets import presets, shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, UnknownNameError

Lay = Callable[..., Any]
KEY = "sk-planted-secret"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def lines(lay: Lay, *words: str, **options: Any) -> list[str]:
    """The lines of the error that loading ends with."""
    with pytest.raises(ConfigError) as caught:
        lay(*words, **options)
    return caught.value.message.split("\n")


# -- precedence ---------------------------------------------------------------------------------------------------


def test_an_override_beats_the_file_beats_what_it_extends_beats_the_model(lay: Lay) -> None:
    loaded = lay("long", "rounds=7", "rounds=8")
    assert loaded.config.rounds == 8
    assert loaded.config.training.epochs == 20
    assert loaded.config.training.optimizer.lr == 0.01
    assert loaded.config.training.optimizer.name == "Adam"


def test_every_value_knows_its_origin(lay: Lay) -> None:
    origins = lay("long", "rounds=7").origins
    assert origins["rounds"] == "--set"
    assert origins["training.epochs"] == "configs/lab/long.yaml:4:3"
    assert origins["training.optimizer.lr"] == "configs/lab/default.yaml:5:15"
    assert origins["training.optimizer.name"] == "default"
    assert origins["llm.providers.here.path"] == "configs/llm/embedded.yaml:3:22"


def test_without_a_name_the_default_preset_is_loaded_and_its_text_kept(lay: Lay) -> None:
    loaded = lay()
    assert loaded.source_label == "configs/lab/default.yaml"
    assert loaded.source_text.startswith("# Small and quick.")


def test_null_resets_to_the_model(lay: Lay, own_workspace: Workspace) -> None:
    assert lay(None, "training.epochs=null").config.training.epochs == 3
    assert lay(None, "training.epochs=~").origins["training.epochs"] == "default"
    write(own_workspace.root / "reset.yaml", "extends: default\ntraining: null\n")
    assert lay("./reset.yaml").config.training.epochs == 3


def test_a_path_in_a_flag_starts_at_the_current_folder_and_in_a_file_at_the_workspace(
    lay: Lay, own_workspace: Workspace
) -> None:
    write(own_workspace.root / "mine" / "base.yaml", "seed: 5\n")
    write(own_workspace.root / "mine" / "top.yaml", "extends: mine/base.yaml\n")
    assert lay("mine/top.yaml").config.seed == 5


def test_a_workspace_preset_may_extend_the_shipped_one_of_its_name(lay: Lay, own_workspace: Workspace) -> None:
    write(own_workspace.root / "shipped" / "lab" / "default.yaml", "seed: 70\nrounds: 9\n")
    write(own_workspace.configs / "lab" / "default.yaml", "extends: default\nseed: 71\n")
    config = lay().config
    assert (config.seed, config.rounds) == (71, 9)


def test_circles_and_long_chains_end(lay: Lay, own_workspace: Workspace) -> None:
    write(own_workspace.configs / "lab" / "a.yaml", "extends: b\n")
    write(own_workspace.configs / "lab" / "b.yaml", "seed: 1\nextends: a\n")
    assert lines(lay, "a") == [
        "configs/lab/b.yaml:2:1: extends: configs/lab/a.yaml -> configs/lab/b.yaml -> a is a cycle."
    ]
    for i in range(12):
        write(own_workspace.configs / "lab" / f"c{i}.yaml", f"extends: c{i + 1}\n")
    assert lines(lay, "c0") == ["configs/lab/c0.yaml extends more than 7 other files."]


def test_extends_names_one_file(lay: Lay, own_workspace: Workspace) -> None:
    write(own_workspace.root / "x.yaml", "seed: 1\nextends: [a]\n")
    assert lines(lay, "x.yaml") == ["x.yaml:2:1: extends: must be a preset's name or a path."]


# -- presets inside a config --------------------------------------------------------------------------------------


def test_a_preset_field_takes_a_name_and_what_is_set_below_it_applies_after(lay: Lay) -> None:
    loaded = lay(None, "llm=remote", "llm.max_usd=3")
    assert list(loaded.config.llm.providers) == ["far"]
    assert loaded.config.llm.max_usd == 3
    assert loaded.origins["llm.max_usd"] == "--set"
    assert loaded.origins["llm.providers.far.url"] == "configs/llm/remote.yaml:4:5"


def test_overrides_apply_from_left_to_right(lay: Lay) -> None:
    assert lay(None, "llm.max_usd=3", "llm=remote").config.llm.max_usd == 1
    assert list(lay(None, "llm=remote", "llm=null").config.llm.providers) == ["here"]


def test_a_name_replaces_the_mapping_of_the_file_it_extends(lay: Lay, own_workspace: Workspace) -> None:
    write(own_workspace.configs / "lab" / "base.yaml", "llm: embedded\n")
    write(own_workspace.root / "name.yaml", "extends: base\nllm: remote\n")
    write(own_workspace.root / "more.yaml", "extends: base\nllm: {max_usd: 4}\n")
    write(own_workspace.root / "inline.yaml", "llm: {max_usd: 4}\n")
    assert list(lay("name.yaml").config.llm.providers) == ["far"]
    assert list(lay("more.yaml").config.llm.providers) == ["here"]
    assert list(lay("inline.yaml").config.llm.providers) == []


def test_a_preset_may_extend_another_of_its_folder(lay: Lay, own_workspace: Workspace) -> None:
    write(own_workspace.configs / "llm" / "cheap.yaml", "extends: remote\nmax_usd: 0.1\n")
    loaded = lay(None, "llm=cheap")
    assert list(loaded.config.llm.providers) == ["far"]
    assert loaded.config.llm.max_usd == 0.1


def test_a_preset_field_inside_a_list_is_filled_too(lay: Lay) -> None:
    stages = lay(None, "stages=[{id: a, llm: remote}, {id: b}]", "stages.a.temperature=0.5").config.stages
    assert list(stages[0].llm.providers) == ["far"]
    assert (stages[0].temperature, stages[1].llm) == (0.5, None)


@pytest.mark.parametrize("name", ["xyz", "emb"])
def test_an_unknown_preset_is_named_with_the_known_ones(lay: Lay, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"There is no llm preset named '{name}'") as caught:
        lay(None, f"llm={name}")
    assert "embedded" in str(caught.value.hint)


def test_an_unknown_preset_comes_with_the_place_that_names_it(lay: Lay, own_workspace: Workspace) -> None:
    path = write(own_workspace.configs / "lab" / "mine.yaml", "rounds: 1\nllm: nowhere\n")
    with pytest.raises(UnknownNameError, match=r"^configs/lab/mine\.yaml:2:1: llm: There is no llm preset"):
        lay("mine")
    path.write_text("rounds: 1\nextends: nowhere\n")
    with pytest.raises(UnknownNameError, match=r"^configs/lab/mine\.yaml:2:1: extends: There is no lab preset"):
        lay("mine")
    path.write_text("rounds: 1\n")
    with pytest.raises(UnknownNameError, match=r"^--set: llm: There is no llm preset"):
        lay("mine", "llm=nowhere")


def test_a_preset_field_takes_a_path_from_the_current_folder_or_in_a_file_from_the_workspace(
    lay: Lay, own_workspace: Workspace
) -> None:
    write(own_workspace.root / "models.yaml", "max_usd: 7\n")
    write(own_workspace.configs / "lab" / "mine.yaml", "rounds: 1\nllm: ./models.yaml\n")
    assert lay("mine").config.llm.max_usd == 7
    assert lay(None, "llm=./models.yaml").config.llm.max_usd == 7
    assert lines(lay, None, "llm=../secret.yaml")[0].startswith("There is no config file ../secret.yaml")


# -- errors -------------------------------------------------------------------------------------------------------


def test_all_errors_come_at_once_with_file_line_column_and_key(lay: Lay, own_workspace: Workspace) -> None:
    write(
        own_workspace.root / "bad.yaml",
        "sed: 3\nrounds: 0\ntraining:\n  epochs: many\n  optimizer:\n    name: Adamm\n    lr: 2\n    momentum: 1\n",
    )
    assert lines(lay, "bad.yaml", "seed=1.5", "training.epochs.x=1", "zzz=1") == [
        "--set: training.epochs.x: training.epochs is a single value and has no keys.",
        "--set: seed: must be a whole number, not 1.5",
        "bad.yaml:2:1: rounds: must be at least 1, not 0",
        "bad.yaml:4:3: training.epochs: must be a whole number, not 'many'",
        "bad.yaml:6:5: training.optimizer.name: must be 'Adam' or 'SGD', not 'Adamm'",
        "bad.yaml:7:5: training.optimizer.lr: must be at most 1, not 2",
        "bad.yaml:8:5: training.optimizer.momentum: unknown key; known: name, lr, clip",
        "bad.yaml:1:1: sed: unknown key; did you mean seed?",
        "--set: zzz: unknown key; known: seed, rounds, threads, training, stages, space, notes, llm",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("stages=[{temperature: 1}]", "--set: stages.0.id: is required"),
        ("stages=3", "--set: stages: must be a list, not 3"),
        ("training=fast", "--set: training: must be a mapping, not 'fast'"),
        ("threads=[1]", "--set: threads: must be a whole number, not a list"),
        ("seed=" + "x" * 500, "--set: seed: must be a whole number, not '" + "x" * 58 + "…"),
        # a union: the member that fits best speaks, without the names of the classes
        ("space.lr={low: 1}", "--set: space.lr.high: is required"),
        ("space.lr={low: 2, high: 1}", "--set: space.lr: low 2 is above high 1"),
        ("space.lr=3", "--set: space.lr: must be a mapping, not 3"),
        ("space.lr={choices: 3}", "--set: space.lr.choices: must be a list, not 3"),
        ("space.n={choices: [[1]]}", "--set: space.n.choices.0: must be a whole number or text, not a list"),
        # a tagged union
        ("llm.providers.p={kind: files}", "--set: llm.providers.p.kind: unknown kind 'files'; did you mean file?"),
        (
            "llm.providers.p={kind: file, paht: x, path: y}",
            "--set: llm.providers.p.paht: unknown key; did you mean path?",
        ),
        ("llm.providers.p={kind: file}", "--set: llm.providers.p.path: is required"),
    ],
)
def test_one_wrong_value_is_one_plain_line(lay: Lay, change: str, line: str) -> None:
    assert lines(lay, None, change) == [line]


def test_a_key_is_never_shown(lay: Lay) -> None:
    provider = f"llm.providers.p={{kind: remote, url: 'https://x', api_key: {KEY}}}"
    (line,) = lines(lay, None, provider)
    assert line.startswith("--set: llm.providers.p.api_key: name the variable that holds the key")
    (second_line,) = lines(lay, None, f"llm.providers.p={{kind: remote, url: 'https://x', api_key: [{KEY}]}}")
    assert KEY not in line + second_line


def test_many_errors_are_cut(lay: Lay) -> None:
    error_lines = lines(lay, None, *(f"unknown{i}=1" for i in range(40)))
    assert len(error_lines) == 31
    assert error_lines[-1] == "... and 10 more"


def test_the_hint_names_the_next_command(lay: Lay) -> None:
    with pytest.raises(ConfigError) as caught:
        lay(None, "seed=x")
    assert caught.value.hint == "`agentlab configs show lab` prints every key."


# -- the environment ----------------------------------------------------------------------------------------------


def test_variables_are_resolved_once_and_keys_stay_names(lay: Lay) -> None:
    config = lay(None, "llm=remote", env={"FAR_BASE_URL": "https://a.org", "KEY": KEY}).config
    assert config.llm.providers["far"].url == "https://a.org"
    assert "${KEY}" in dump_yaml(config)
    assert KEY not in dump_yaml(config)


def test_a_variable_that_is_not_set_is_an_error_at_its_key(lay: Lay) -> None:
    change = "llm.providers.p={kind: remote, url: '${NO_HOST}'}"
    assert lines(lay, None, change) == ["--set: llm.providers.p.url: the environment variable NO_HOST is not set"]


@given(st.text("${}:-aA", max_size=12))
def test_escape_is_undone_by_expand(text: str) -> None:
    assert expand(escape(text), {"a": "x", "A": "y"}) == text


class _Endpoint(StrictModel):
    url: EnvText = "x"


@given(st.text("${}A_HOST:- x", max_size=12))
def test_a_resolved_value_is_not_resolved_again(value: str) -> None:
    config = _Endpoint.model_validate({"url": "${A_HOST}"}, context={"env": {"A_HOST": value or "-"}})
    assert _Endpoint.model_validate(config_values(config), context={"env": {"A_HOST": "other"}}) == config


# -- a run's own config -------------------------------------------------------------------------------------------


def test_a_resolved_file_gives_the_same_config_and_hash(lay: Lay, own_workspace: Workspace) -> None:
    config = lay(
        "long", "llm=remote", "stages=[{id: a}]", 'space."a.b"={low: 1, high: 2}', env={"FAR_BASE_URL": "a$$b"}
    ).config
    path = write(own_workspace.root / "config.yaml", dump_yaml(config))
    reloaded = load_resolved(type(config), path, (), env={})
    assert reloaded == config == lay("./config.yaml").config
    assert config_hash(reloaded) == config_hash(config)


def test_a_resolved_file_takes_overrides_but_no_presets(lay: Lay, own_workspace: Workspace) -> None:
    config = lay().config
    path = write(own_workspace.root / "config.yaml", dump_yaml(config))
    assert load_resolved(type(config), path, [Override("rounds", 9, "--rounds")], env={}).rounds == 9
    with pytest.raises(ConfigError, match="--set: llm: a run keeps the preset it started with"):
        load_resolved(type(config), path, [parse("llm=remote")], env={})
    with pytest.raises(ConfigError, match=r"config\.yaml:1:1: seed: must be a whole number"):
        load_resolved(type(config), write(path, "seed: x\nllm: {}\n"), (), env={})


# -- what is shipped ----------------------------------------------------------------------------------------------


def test_every_shipped_preset_loads_and_survives_its_resolved_file(tmp_path: Path) -> None:
    workspace, seen = Workspace(root=tmp_path, cache=tmp_path), 0
    for name, command in COMMANDS.items():
        model: type[BaseModel] = command.config_model()
        for preset in presets(name, workspace):
            loaded = load(model, name, preset.name, (), workspace=workspace, env={}, cwd=tmp_path)
            path = write(tmp_path / "config.yaml", dump_yaml(loaded.config))
            assert load_resolved(model, path, (), env={}) == loaded.config, preset.file.label
            assert preset.description, f"{preset.file.label} starts without a describing comment"
            seen += 1
        for llm in presets("llm", workspace) if "llm" in model.model_fields else ():
            load(model, name, None, [parse(f"llm={llm.name}")], workspace=workspace, env={}, cwd=tmp_path)
            seen += 1
    assert seen > 0
    shipped = {path.parent.name for path in shipped_folder().glob("*/*.yaml")}
    assert shipped == {*COMMANDS, "llm"}


def test_reading_configs_needs_only_pydantic_and_yaml() -> None:
    script = (
        "import sys, agentlab.config.load, agentlab.config.environment, agentlab.config.base\n"
        "print(sorted({'numpy', 'torch', 'httpx', 'rich', 'typer', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "text",
    [
        "seed: true",
        'seed: "1"',
        "seed: 1.5",
        "workers: true",
        "max_seconds: true",
        "model: {distil: 1}",
        "model: {distil: yes}",
        "training: {optimizer_params: {lr: true}}",
        "evaluator: {noise: '0.1'}",
        "llm: {budget: {per_run_usd: true}}",
        "llm: {defaults: {timeout: {total: '3'}}}",
    ],
)
def test_a_number_or_truth_value_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    from agentlab.nas.config import NasConfig

    (tmp_path / "own.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=r"must be (a whole number|a number|true or false)"):
        load(NasConfig, "nas", "./own.yaml", (), workspace=Workspace(tmp_path, tmp_path), env={}, cwd=tmp_path)


@pytest.mark.parametrize("text", ['extends: "a\\0b.yaml"', 'extends: "x/~\\0"', "extends: ~nosuchuser/a.yaml"])
def test_a_path_that_leads_nowhere_is_an_error_of_the_config(tmp_path: Path, text: str) -> None:
    from agentlab.nas.config import NasConfig

    (tmp_path / "own.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError):
        load(NasConfig, "nas", "./own.yaml", (), workspace=Workspace(tmp_path, tmp_path), env={}, cwd=tmp_path)
