"""Where keys may travel: over TLS, or not off this machine."""

import pytest

from agentlab.errors import UntrustedHostError
from agentlab.llm.provider_config import check_base_url, host_of, is_loopback, require_trust


@pytest.mark.parametrize(
    "url",
    ["https://openrouter.ai/api/v1", "http://127.0.0.1:11434/v1", "http://localhost:1234/v1", "http://[::1]:8080"],
)
def test_allowed(url):
    assert check_base_url(f"{url}/") == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/v1", "unencrypted"),
        ("http://127.0.0.1.example.org/v1", "unencrypted"),
        ("http://localhost.example.org/v1", "unencrypted"),
        ("http://0.0.0.0:11434/v1", "unencrypted"),
        ("https://user:secret@example.org/v1", "no user"),
        ("https://example.org/v1?key=secret", "no user, query"),
        ("https://example.org:port/v1", "not a URL"),
        ("https://exam ple.org/v1", "characters"),
        ("https://example.org/v1\r\nX: y", "characters"),
        ("openrouter.ai/api/v1", "not an HTTP URL"),
        ("file:///etc/passwd", "not an HTTP URL"),
        ("http://[broken", "not a URL"),
        ("https://[::1].example.org/v1", "not a host name or address"),
        ("http://[::1]x:80/v1", "not a host name or address"),
        ("https://evil.example^.api.openai.com/v1", "not a host name or address"),
        ("https://evil.example%2f.api.openai.com/v1", "not a host name or address"),
        ("https://evil.example,.api.openai.com/v1", "not a host name or address"),
        ("https://.api.openai.com/v1", "not a host name or address"),
        ("", "not an HTTP URL"),
    ],
)
def test_refused(url, words):
    with pytest.raises(ValueError, match=words):
        check_base_url(url)


def test_a_name_that_only_looks_like_this_machine_is_not_it():
    assert is_loopback("http://127.9.9.9/")
    assert not is_loopback("http://127.0.0.1@example.org/")
    assert host_of("http://[broken") == ""


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
        ("OPENROUTER_API_KEY", "https://eu.openrouter.ai/api/v1"),
        ("OPENAI_API_KEY", "https://API.openai.com/v1"),
        ("ANTHROPIC_API_KEY", "https://api.anthropic.com"),
        ("HF_TOKEN", "https://router.huggingface.co/v1"),
        ("AZURE_OPENAI_API_KEY", "https://mine.openai.azure.com/openai/v1"),
        ("OPENAI_API_KEY", "http://127.0.0.1:8080/v1"),
        ("TEAM_API_KEY", "http://localhost:8080/v1"),
    ],
)
def test_a_key_goes_where_it_belongs(variable, url):
    require_trust(variable, url, {})


@pytest.mark.parametrize(
    "url",
    [
        "https://evil-openrouter.ai/api/v1",
        "https://openrouter.ai.evil.com/api/v1",
        "https://openrouter.ai@evil.com/api/v1",
        "https://evil.com/openrouter.ai",
        "https://openrouter.ai./api/v1",
        "https://api.openai.com/v1",
    ],
)
def test_a_well_known_key_goes_nowhere_else(url):
    with pytest.raises(UntrustedHostError, match=r"OPENROUTER_API_KEY.* belongs to openrouter\.ai"):
        require_trust("OPENROUTER_API_KEY", url, {})
    with pytest.raises(UntrustedHostError, match="belongs to"):
        require_trust("openrouter_api_key", url, {})


def test_the_remedy_is_the_command_that_confirms_the_pair():
    with pytest.raises(UntrustedHostError) as caught:
        require_trust("OPENAI_API_KEY", "https://api.example.com/v1", {})
    assert "agentlab llm trust OPENAI_API_KEY api.example.com" in caught.value.hint


@pytest.mark.parametrize("variable", ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HOME", "DATABASE_URL", "API_KEY_FILE"])
@pytest.mark.parametrize("url", ["https://example.org/v1", "http://127.0.0.1:1/v1"])
def test_what_is_no_key_of_a_model_is_never_sent(variable, url):
    with pytest.raises(UntrustedHostError):
        require_trust(variable, url, {})
