"""Who answers: from the names of adapters and models to a config of language models."""

import json
from pathlib import Path

import pytest

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.llm.config import LLMConfig
from agentlab.persona.talk import Cast, cast_of
from tests.unit.lora.folders import deltas, write_folder

CONFIG = LLMConfig.model_validate(
    {
        "providers": {"here": {"kind": "gguf", "model_path": "small"}},
        "models": {"own": {"provider": "here", "id": "own"}},
        "roles": {"primary": ["own"]},
        "defaults": {"max_tokens": 77},
    }
)


@pytest.fixture
def own_workspace(tmp_path: Path) -> Workspace:
    """Two checkpoints, a GGUF file, a persona with a card and one that is a GGUF file."""
    root = tmp_path / "sp ${ace}"
    for name in ("ours", "theirs"):
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "config.json").write_text(json.dumps({"name": name}))
        (root / "models" / name / "model.safetensors").write_bytes(b"")
    (root / "models" / "small.gguf").write_bytes(b"GGUF")
    ours = root / "models" / "ours"
    folder = write_folder(root / "adapters" / "mine", deltas(1), base_model_name_or_path=None)
    card = {"base": {"path": str(ours), "fingerprint": fingerprint_of(ours)}, "data": {"system": "Be mine."}}
    (folder / "card.json").write_text(json.dumps(card))
    (root / "adapters" / "gguf.gguf").write_bytes(b"GGUF")
    return Workspace(root, tmp_path / "cache")


def cast(own_workspace: Workspace, *adapters: str, model: str | None = None, config: LLMConfig = CONFIG) -> Cast:
    return cast_of(config, adapters, model, own_workspace, lambda name: pytest.fail(f"{name} is imported"))


def providers(talk_cast: Cast) -> dict[str, tuple[str, str, str | None]]:
    """Kind, file of the model and file of the adapter, by speaker."""
    return {
        name: (spec.kind, Path(spec.model_path).name, Path(spec.adapter).name if spec.adapter else None)  # type: ignore[union-attr]
        for name, spec in talk_cast.config.providers.items()
    }


def test_without_names_the_config_is_asked_and_a_model_of_it_may_be_named(own_workspace: Workspace) -> None:
    assert cast(own_workspace).config is CONFIG
    assert [speaker.model for speaker in cast(own_workspace).speakers] == [None]
    assert [speaker.model for speaker in cast(own_workspace, model="own").speakers] == ["own"]


def test_a_model_of_this_machine_is_one_as_well(own_workspace: Workspace) -> None:
    assert providers(cast(own_workspace, model="small")) == {"small": ("gguf", "small.gguf", None)}
    long = own_workspace.models / ("ours" * 60)
    (own_workspace.models / "ours").rename(long)
    assert providers(cast(own_workspace, model=str(long))) == {long.name: ("hf", long.name, None)}
    with pytest.raises(UnknownNameError, match="'smal'"):
        cast(own_workspace, model="smal")


def test_personas_bring_their_base_and_their_system_message(own_workspace: Workspace) -> None:
    talk_cast = cast(own_workspace, "mine", "gguf", "mine")
    assert providers(talk_cast) == {"mine": ("hf", "ours", "mine"), "gguf": ("gguf", "small.gguf", "gguf.gguf")}
    assert [(speaker.name, speaker.model, speaker.system) for speaker in talk_cast.speakers] == [
        ("mine", "mine", "Be mine."),
        ("gguf", "gguf", None),
    ]
    assert talk_cast.config.defaults == CONFIG.defaults


def test_a_base_that_lies_elsewhere_is_found_by_its_name_and_has_to_be_the_same(own_workspace: Workspace) -> None:
    card = own_workspace.adapters / "mine" / "card.json"
    card.write_text(card.read_text().replace(str(own_workspace.models / "ours"), "/home/somebody/models/ours"))
    assert providers(cast(own_workspace, "mine"))["mine"][1] == "ours"
    with pytest.raises(UsageError, match="a different base model") as caught:
        cast(own_workspace, "mine", model="theirs")
    assert "--model" in str(caught.value.hint)
    (own_workspace.models / "ours").rename(own_workspace.models / "gone")
    with pytest.raises(MissingFileError, match="not on this machine"):
        cast(own_workspace, "mine")


def test_what_cannot_be_meant(own_workspace: Workspace) -> None:
    with pytest.raises(UnknownNameError, match="adapter named 'mien'") as caught:
        cast(own_workspace, "mien")
    assert "mine" in str(caught.value.hint)
    write_folder(own_workspace.root / "elsewhere" / "mine", deltas(2), base_model_name_or_path="models/ours")
    with pytest.raises(UsageError, match="Two adapters are called mine"):
        cast(own_workspace, "mine", "elsewhere/mine")
    with pytest.raises(UsageError, match="does not name its base model") as error:
        cast(own_workspace, "gguf", config=LLMConfig())
    assert "--model" in str(error.value.hint)


def test_together_they_share_the_threads_and_have_to_fit_into_the_memory(
    own_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(1 << 40, 1 << 40))
    both = cast(own_workspace, "mine", "gguf")
    assert (both.together, both.config.threads) == (True, 3)
    assert cast(own_workspace, "mine").config.threads == 6
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(1 << 40, 1 << 29))
    in_turn = cast(own_workspace, "mine", "gguf")
    assert (in_turn.together, in_turn.config.threads) == (False, 6)
    assert cast(own_workspace, "mine").together  # there is nothing to be gained by a turn
    write_folder(own_workspace.adapters / "other", deltas(2), base_model_name_or_path="models/ours")
    shared = cast(own_workspace, "mine", "other")  # one process, whatever their number
    assert (shared.together, shared.config.threads) == (True, 6)
