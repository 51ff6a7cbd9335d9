"""Where keys may go: to their own provider, to this machine, and where the user has said so."""

import pytest

from agentlab.errors import UntrustedHostError
from agentlab.llm.provider_config import AnthropicProvider, OpenAICompatProvider, require_trust
from agentlab.llm.providers import ProviderContext
from agentlab.llm.providers.remote import key_of

HOMES = {
    "OPENROUTER_API_KEY": "openrouter.ai",
    "OPENAI_API_KEY": "api.openai.com",
    "ANTHROPIC_API_KEY": "api.anthropic.com",
    "GROQ_API_KEY": "api.groq.com",
    "HF_TOKEN": "router.huggingface.co",
    "ELECTRICITYMAPS_TOKEN": "api.electricitymaps.com",
}
STRANGERS = (
    "evil.example",
    "openrouter.ai.evil.example",
    "evilopenrouter.ai",
    "api.openai.com.evil.org",
    "10.0.0.7",
    "localhost.evil.org",
    "127.0.0.1.evil.org",
    "x.us-east-1.aws.endpoints.huggingface.cloud",  # anybody's
)
OTHERS = ("STRIPE_API_KEY", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_API_KEY")


@pytest.mark.parametrize(("key", "host"), HOMES.items())
def test_a_known_key_goes_home_and_to_this_machine(key, host):
    require_trust(key, f"https://{host}/v1", {})
    require_trust(key.lower(), f"https://{host.upper()}/v1", {})
    require_trust(key, "http://127.0.0.1:8000/v1", {})
    require_trust("MY_API_KEY", "http://[::1]:8000/v1", {})


@pytest.mark.parametrize("host", STRANGERS)
@pytest.mark.parametrize("key", [*HOMES, *OTHERS])
def test_no_key_goes_to_a_stranger_until_the_pair_is_confirmed(key, host):
    with pytest.raises(UntrustedHostError) as caught:
        require_trust(key, f"https://{host}/v1", {"AGENTLAB_TRUST": f"{key}@other.org,OTHER@{host}"})
    assert (caught.value.exit_code, caught.value.hint.endswith(f"agentlab llm trust {key} {host}")) == (3, True)
    require_trust(key, f"https://{host}/v1", {"AGENTLAB_TRUST": f"A@b.org, {key}@{host}"})


def test_what_is_not_named_a_key_does_not_even_go_to_this_machine():
    with pytest.raises(UntrustedHostError):
        require_trust("GITHUB_TOKEN", "http://127.0.0.1:8000/v1", {})


def test_the_key_of_a_provider_is_not_read_before_its_host_is_trusted(home):
    provider = OpenAICompatProvider(kind="openai_compat", base_url="https://evil.org/v1", api_key="${OPENAI_API_KEY}")
    env = {"OPENAI_API_KEY": "sk-0123456789abcdef"}
    with pytest.raises(UntrustedHostError, match=r"belongs to api\.openai\.com"):
        key_of("p", provider, ProviderContext(env, home))
    env["AGENTLAB_TRUST"] = "OPENAI_API_KEY@evil.org"
    assert key_of("p", provider, ProviderContext(env, home)) == "sk-0123456789abcdef"


def test_a_host_from_the_environment_is_checked_too(home):
    provider = OpenAICompatProvider.model_validate(
        {"kind": "openai_compat", "base_url": "https://${EVIL_HOST}/v1", "api_key": "${OPENAI_API_KEY}"},
        context={"env": {"EVIL_HOST": "evil.org"}},
    )
    with pytest.raises(UntrustedHostError, match=r"evil\.org"):
        key_of("p", provider, ProviderContext({}, home))


def test_an_anthropic_key_goes_to_anthropic_unless_it_is_confirmed(home):
    proxy = AnthropicProvider(kind="anthropic", base_url="https://proxy.example.org")
    with pytest.raises(UntrustedHostError, match="belongs to api"):
        key_of("p", proxy, ProviderContext({"ANTHROPIC_API_KEY": "x"}, home))
