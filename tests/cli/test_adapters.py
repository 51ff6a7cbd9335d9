"""`agentlab adapters` at the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentlab.gguf.header import read_header
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import CARD_FILE
from agentlab.lora.reading import Adapter
from tests.cli.conftest import Answer
from tests.unit.lora.folders import deltas, write_folder
from tests.unit.train.merging import train, write_checkpoint

Call = Callable[..., Answer]

LLAMA = {
    "model_type": "llama",
    "hidden_size": 6,
    "head_dim": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def adapters(workspace: Path) -> Path:
    """Two sound adapters and a damaged one."""
    folder = workspace / "adapters"
    write_folder(folder / "analyst", deltas(1), base_model_name_or_path="models/base")
    write_folder(folder / "poet", deltas(2, rank=2), base_model_name_or_path="models/base")
    (folder / "broken").mkdir()
    return folder


@pytest.fixture
def base(workspace: Path) -> Path:
    """What the base model says of itself."""
    (workspace / "models" / "base").mkdir(parents=True)
    (workspace / "models" / "base" / "config.json").write_text(json.dumps(LLAMA))
    return workspace / "models" / "base"


def refused(answer: Answer, code: int, *words: str) -> None:
    assert answer.code == code, answer.err
    assert answer.err.count("error: ") == 1
    for word in words:
        assert word in answer.err, answer.err
    assert answer.out == ""


def test_every_command_has_help_with_an_example(agentlab: Call) -> None:
    for command in ("list", "show", "diff", "blend", "merge", "export"):
        answer = agentlab("adapters", command, "--help")
        assert answer.code == 0
        assert f"agentlab adapters {command}" in " ".join(answer.out.split())


def test_the_list_has_the_damaged_one_too(agentlab: Call, adapters: Path) -> None:
    answer = agentlab("adapters", "list")
    assert answer.code == 0
    assert answer.out.splitlines()[1].split("\t")[:4] == ["analyst", "4", "2", "2: q_proj, down_proj"]
    assert "broken is damaged" in answer.out
    lines = {line["name"]: line for line in agentlab("adapters", "list", "--json").json["result"]["adapters"]}
    assert list(lines) == ["analyst", "broken", "poet"]
    assert lines["broken"]["shape"] is None
    assert lines["poet"]["shape"]["ranks"] == [2, 2]
    assert adapters.is_dir()


def test_an_empty_workspace_says_how_adapters_are_made(agentlab: Call) -> None:
    answer = agentlab("adapters", "list")
    assert "train-persona" in answer.out
    refused(agentlab("adapters", "show", "analyst"), 2, "'analyst'", "none yet")


def test_show_has_norms_card_and_flags(agentlab: Call, adapters: Path) -> None:
    (adapters / "analyst" / CARD_FILE).write_text(json.dumps({"metrics": {"eval_loss": 1.25}, "name": "\x1b[2J"}))
    answer = agentlab("adapters", "show", "analyst")
    assert answer.code == 0
    for words in ("q_proj\t1\t", "all\t2\t", "metrics.eval_loss\t1.25", "vllm serve BASE --enable-lora"):
        assert words in answer.out
    assert "\x1b" not in answer.out
    result = agentlab("adapters", "show", "adapters/analyst", "--json").json["result"]
    assert [part["name"] for part in result["parts"]] == ["q_proj", "down_proj", "all"]
    assert result["settings"]["rank"] == "4"


@pytest.mark.parametrize("command", [["show"], ["diff", "poet"], ["export", "--format=peft", "--out=x"]])
def test_an_unknown_name_exits_2_with_the_nearest(agentlab: Call, adapters: Path, command: list[str]) -> None:
    assert adapters.is_dir()
    refused(agentlab("adapters", command[0], "analist", *command[1:]), 2, "Did you mean analyst?")


def test_diff_compares_changes_and_settings(agentlab: Call, adapters: Path) -> None:
    assert adapters.is_dir()
    result = agentlab("adapters", "diff", "analyst", "poet", "--json").json["result"]
    assert abs(result["types"][-1]["cosine"]) < 0.5
    assert result["settings"]["rank"] == ["4", "2"]
    assert "base" not in result["settings"]
    same = agentlab("adapters", "diff", "analyst", "analyst", "--json").json["result"]
    assert same["types"][-1]["distance"] < 1e-6
    assert same["settings"] == same["card"] == {}


def test_a_blend_is_an_adapter_with_parents(agentlab: Call, adapters: Path) -> None:
    words = ("blend", "analyst", "poet", "--weights", "0.6,0.4", "--out", "adapters/both")
    answer = agentlab("adapters", *words)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0] == str(adapters / "both")
    assert "all\t" in answer.out
    card = json.loads((adapters / "both" / CARD_FILE).read_text())
    assert [parent["name"] for parent in card["parents"]] == ["analyst", "poet"]
    assert 0 < card["blend"]["kept"] < 1
    refused(agentlab("adapters", *words), 2, "already exists")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "a,b"], "not a list of numbers"),
        (["--weights", "1"], "2 finite weights"),
        (["--method", "slurp"], "Did you mean slerp"),
        (["--density", "0.5"], "sum does not use a density"),
        (["--method", "concat", "--rank", "4"], "sum of its parents' ranks"),
    ],
)
def test_a_blend_that_cannot_be_is_refused(agentlab: Call, adapters: Path, words: list[str], message: str) -> None:
    refused(agentlab("adapters", "blend", "analyst", "poet", "--out", "adapters/x", *words), 2, message)
    assert not (adapters / "x").exists()


def test_different_bases_are_blended_on_demand_only(agentlab: Call, adapters: Path) -> None:
    write_folder(adapters / "alien", deltas(3), base_model_name_or_path="models/other")
    words = ("adapters", "blend", "analyst", "alien", "--out", "adapters/x")
    refused(agentlab(*words), 2, "belongs to models/base")
    assert agentlab(*words, "--any-base").code == 0


def test_a_copy_for_vllm_and_a_file_for_llama_cpp(agentlab: Call, adapters: Path, base: Path) -> None:
    answer = agentlab("adapters", "export", "poet", "--format", "peft", "--dtype", "float16", "--out", "served/poet")
    assert answer.code == 0, answer.err
    assert f"--lora-modules poet={adapters.parent / 'served' / 'poet'}" in answer.out
    with Adapter(adapters.parent / "served" / "poet") as copy:
        assert copy.delta(next(iter(copy.modules))).a.dtype.itemsize == 2
    answer = agentlab("adapters", "export", "poet", "--format", "gguf", "--out", "poet.gguf")
    assert answer.code == 0, answer.err
    assert "llama-cli -m BASE.gguf --lora" in answer.out
    assert read_header(adapters.parent / "poet.gguf").keys["general.architecture"] == "llama"
    assert base.is_dir()


def test_exports_that_cannot_be_are_refused(agentlab: Call, adapters: Path, base: Path) -> None:
    export = ("adapters", "export", "poet", "--out", "x")
    refused(agentlab(*export, "--format", "onnx"), 2, "'onnx'", "peft")
    refused(agentlab(*export, "--format", "gguf", "--dtype", "float16"), 2, "--dtype works only with --format peft")
    refused(agentlab(*export, "--format", "peft", "--base", "base"), 2, "--base works only with --format gguf")
    refused(agentlab(*export, "--format", "peft", "--any-base"), 2, "--any-base works only with --format gguf")
    (base / "config.json").write_text("{}")
    refused(agentlab(*export, "--format", "gguf"), 2, "model type")
    (base / "config.json").unlink()
    base.rmdir()
    refused(agentlab(*export, "--format", "gguf"), 3, "not on this machine", "--base")
    assert not (adapters.parent / "x").exists()


def test_a_file_for_another_base_is_written_on_demand_only(agentlab: Call, adapters: Path, base: Path) -> None:
    card = {"base": {"path": str(base), "fingerprint": fingerprint_of(base)}}
    (adapters / "poet" / CARD_FILE).write_text(json.dumps(card))
    export = ("adapters", "export", "poet", "--format", "gguf", "--out")
    assert agentlab(*export, "one.gguf").code == 0
    (base / "config.json").write_text(json.dumps({**LLAMA, "rope_theta": 5}))
    refused(agentlab(*export, "two.gguf"), 2, "a different base model", "--any-base")
    assert agentlab(*export, "two.gguf", "--any-base").code == 0
    (base / "config.json").write_text(json.dumps({**LLAMA, "num_attention_heads": 2}))
    refused(agentlab(*export, "three.gguf", "--any-base"), 2, "q_proj is 8 x 6, but 4 x 6 in the base model")
    assert not (adapters.parent / "three.gguf").exists()


@pytest.mark.parametrize("command", [["blend", "poet", "analyst"], ["export", "poet", "--format=gguf"]])
def test_a_link_to_nothing_is_in_the_way(agentlab: Call, adapters: Path, base: Path, command: list[str]) -> None:
    link = adapters.parent / "out"
    link.symlink_to("nowhere")
    refused(agentlab("adapters", *command, "--out", "out"), 2, "already exists")
    assert link.is_symlink()
    assert base.is_dir()


def test_parents_that_cancel_are_not_a_share_of_noise(agentlab: Call, adapters: Path) -> None:
    answer = agentlab("adapters", "blend", "poet", "poet", "--weights", "1,-1", "--out", "adapters/none")
    assert answer.code == 0, answer.err
    assert "100.00%" in answer.out
    with Adapter(adapters / "none") as child:
        assert not any(child.delta(name).dense().any() for name in child.modules)


def test_a_merge_says_its_base_and_the_difference(agentlab: Call, workspace: Path) -> None:
    base = write_checkpoint(workspace / "models" / "tiny")
    train(workspace / "adapters" / "analyst", base)
    answer = agentlab("adapters", "merge", "analyst", "--base", "tiny", "--out", "models/merged", "--json")
    assert answer.code == 0, answer.err
    result = answer.json["result"]
    assert (result["base"], result["path"]) == (str(base), str(workspace / "models" / "merged"))
    assert result["to_adapted"]["largest"] < result["to_base"]["largest"] / 100
    command = ("adapters", "merge", "analyst", "--out", "models/merged")
    refused(agentlab(*command, "-q"), 2, "already exists")
    refused(agentlab(*command[:-1], "models/other", "--dtype", "bf16"), 2, "'bf16'", "bfloat16")
    refused(agentlab(*command[:-1], "models/other", "--base", "tiney"), 2, "Did you mean tiny?")
