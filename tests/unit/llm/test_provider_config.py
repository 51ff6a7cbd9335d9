"""What a config may say about providers: where keys may go is checked before anything is sent."""

import pytest
from pydantic import ValidationError

from agentlab.llm.provider_config import AnthropicProvider, OpenAICompatProvider


def compat(url, variable):
    return OpenAICompatProvider.model_validate(
        {"kind": "openai_compat", "base_url": url, "api_key": f"${{{variable}}}"}, context={"env": {"EVIL": "evil.org"}}
    )


def test_a_key_is_held_to_its_host():
    assert compat("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY").key_name == "OPENROUTER_API_KEY"
    with pytest.raises(ValidationError, match=r"OPENROUTER_API_KEY.* is not sent to evil\.org"):
        compat("https://evil.org/api/v1", "OPENROUTER_API_KEY")


def test_a_host_from_the_environment_is_checked_too():
    with pytest.raises(ValidationError, match=r"is not sent to evil\.org"):
        compat("https://${EVIL}/v1", "OPENAI_API_KEY")


def test_a_variable_that_is_no_key_is_refused():
    with pytest.raises(ValidationError, match=r"GITHUB_TOKEN.*ends in _API_KEY"):
        compat("https://openrouter.ai/api/v1", "GITHUB_TOKEN")


def test_an_anthropic_key_goes_to_anthropic_unless_it_is_another_one():
    assert AnthropicProvider(kind="anthropic").key_name == "ANTHROPIC_API_KEY"
    with pytest.raises(ValidationError, match="belongs to api"):
        AnthropicProvider(kind="anthropic", base_url="https://proxy.example.org")
    proxy = AnthropicProvider(kind="anthropic", base_url="https://proxy.example.org", api_key="${PROXY_API_KEY}")
    assert proxy.key_name == "PROXY_API_KEY"
