"""Which files a provider of kind `gguf` takes."""

import pytest

from agentlab.errors import ConfigError
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers import Surroundings, build


def test_a_folder_is_no_gguf_file(home):
    (home.models / "checkpoint").mkdir(parents=True)
    (home.models / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        build("here", GgufProvider(kind="gguf", model_path="checkpoint"), Surroundings({}, home))
