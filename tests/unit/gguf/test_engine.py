"""How an engine may be configured."""

from pathlib import Path

import pytest

from agentlab.errors import ConfigError
from agentlab.gguf.engine import EngineConfig


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantised_cache_needs_flash_attention(kv_type: str) -> None:
    with pytest.raises(ConfigError, match=f"{kv_type} needs flash attention"):
        EngineConfig(Path("m.gguf"), kv_type=kv_type)  # type: ignore[arg-type] # parametrised
    assert EngineConfig(Path("m.gguf"), kv_type=kv_type, flash=True).flash  # type: ignore[arg-type] # as above
