"""Which folders a provider of kind `hf` takes. That they answer: tests/integration/test_hf_provider.py."""

import pytest

from agentlab.errors import ConfigError, MissingFileError, UnknownNameError
from agentlab.llm.provider_config import HfProvider
from agentlab.llm.providers import ProviderContext, build


@pytest.fixture
def checkpoint(home):
    folder = home.models / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def make(home, model="checkpoint", adapter=None):
    return build("here", HfProvider(kind="hf", model_path=model, adapter=adapter), ProviderContext({}, home))


def test_nothing_is_started_before_the_first_question(home, checkpoint):
    assert make(home)._engine.worker_pid is None


def test_providers_of_one_checkpoint_share_a_process_if_they_compute_in_one_type(home, checkpoint):
    around, common = ProviderContext({}, home), {"kind": "hf", "model_path": "checkpoint"}
    types = ({}, {}, {"dtype": "bfloat16"})
    first, second, half_precision = (build("x", HfProvider(**common, **dtype), around)._engine for dtype in types)
    assert first is second
    assert first is not half_precision


def test_a_name_that_nothing_bears(home, checkpoint):
    with pytest.raises(UnknownNameError, match="'checkpoin'"):
        make(home, "checkpoin")


def test_a_gguf_file_is_no_checkpoint(home):
    home.models.mkdir(parents=True)
    (home.models / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"llm\.providers\.here\.model_path.*not a checkpoint") as caught:
        make(home, "x.gguf")
    assert "kind: gguf" in caught.value.hint


def test_a_checkpoint_without_safetensors_is_refused(home, checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        make(home)


def test_an_adapter_is_found_by_name_or_path(home, checkpoint):
    folder = home.adapters / "mine"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has no adapter_model\.safetensors"):
        make(home, adapter="mine")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    make(home, adapter="mine")
    make(home, adapter="adapters/mine")
    with pytest.raises(MissingFileError, match=r"llm\.providers\.here\.adapter: there is no adapter"):
        make(home, adapter="other")
