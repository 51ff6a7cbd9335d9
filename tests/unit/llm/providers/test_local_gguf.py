"""Which files a provider of kind `gguf` takes."""

import pytest

from agentlab.errors import ConfigError, MissingFileError, ModelFileError
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers import ProviderContext, build
from tests.unit.pipeline.tiny_model import write_model


def test_a_folder_is_no_gguf_file(home):
    (home.models / "checkpoint").mkdir(parents=True)
    (home.models / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        build("here", GgufProvider(kind="gguf", model_path="checkpoint"), ProviderContext({}, home))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"garbage"], ids=["empty", "cut", "other"])
def test_a_broken_file_is_said_before_any_work(home, content):
    home.models.mkdir()
    (home.models / "m.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match="not a usable GGUF model"):
        build("here", GgufProvider(kind="gguf", model_path="m.gguf"), ProviderContext({}, home))


def test_an_adapter_is_a_file_found_by_name_or_path(home):
    def adapter(name):
        provider = GgufProvider(kind="gguf", model_path="m.gguf", adapter=name)
        return build("here", provider, ProviderContext({}, home))._engine.used.adapter

    (home.adapters / "folder").mkdir(parents=True)
    write_model(home.models / "m.gguf")
    (home.adapters / "mine.gguf").write_bytes(b"GGUF")
    for name in ("mine", "mine.gguf", "adapters/mine.gguf"):
        assert adapter(name) == home.adapters / "mine.gguf"
    with pytest.raises(MissingFileError, match=r"llm\.providers\.here\.adapter: there is no adapter file") as caught:
        adapter("other.gguf")
    assert f"--out {home.adapters / 'other.gguf'}`" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="is a folder") as caught:
        adapter("folder")
    assert "agentlab adapters export folder --format gguf" in caught.value.hint


def test_threads_are_as_the_config_says_or_half_of_the_variable(home, monkeypatch):
    def threads(thread_count):
        provider = GgufProvider(kind="gguf", model_path="m.gguf")
        return build("here", provider, ProviderContext({}, home, threads=thread_count))._engine.used.threads

    write_model(home.models / "m.gguf")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert threads(None) == 3
    assert threads(5) == 5
