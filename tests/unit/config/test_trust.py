"""What the user trusts: confirmed once, kept outside of workspaces."""

from pathlib import Path

import pytest

from agentlab.config.environment import read_environment
from agentlab.config.trust import confirm, is_trusted, trust_file, with_confirmed
from agentlab.errors import ConfigError, StorageError, UsageError


def test_a_confirmed_pair_is_trusted_from_then_on_and_no_other(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "AGENTLAB_TRUST": "A_KEY@a.org"}
    path = confirm("MY_KEY", "LLM.example.org", env)
    assert path == tmp_path / ".config" / "agentlab" / "trusted-keys"
    confirm("MY_KEY", "llm.example.org", env)
    assert path.read_text() == "MY_KEY@llm.example.org\n"
    extended_env = with_confirmed(env)
    assert is_trusted("MY_KEY", "llm.example.org", extended_env)
    assert is_trusted("A_KEY", "a.org", extended_env)
    assert not is_trusted("MY_KEY", "a.org", extended_env)
    assert not is_trusted("MY_KEY", "example.org", extended_env)


def test_it_is_kept_where_configurations_are(tmp_path: Path) -> None:
    assert trust_file({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/x"}) == tmp_path / "agentlab" / "trusted-keys"


@pytest.mark.parametrize(
    ("key", "host"), [("", "a.org"), ("A", ""), ("A B", "a.org"), ("A", "a.org,B@b.org"), ("A", "a\nb")]
)
def test_what_is_no_pair_is_refused(tmp_path: Path, key: str, host: str) -> None:
    with pytest.raises(UsageError, match="does not name a variable and a host"):
        confirm(key, host, {"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_trusts_nobody(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "agentlab" / "trusted-keys"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\x00A@b.org, C@d.org\nE@f.org\n")
    assert with_confirmed({"HOME": str(tmp_path)})["AGENTLAB_TRUST"] == "E@f.org"


def test_a_place_that_cannot_be_written_is_an_error_with_another_way(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file")
    with pytest.raises(StorageError) as caught:
        confirm("A_KEY", "a.org", {"HOME": str(tmp_path)})
    assert "AGENTLAB_TRUST=A_KEY@a.org" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["AGENTLAB_TRUST", "AGENTLAB_EXPAND"])
def test_a_workspace_does_not_vouch_for_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(f"{name}=OPENAI_API_KEY@evil.org\n")
    with pytest.raises(ConfigError, match=f"may not set {name}"):
        read_environment(tmp_path, {"HOME": str(tmp_path)})
