"""Where keys may travel: over TLS, or not off this machine."""

import pytest

from agentlab.llm.endpoint import check_base_url, host_of, is_loopback


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
        ("openrouter.ai/api/v1", "not a URL"),
        ("file:///etc/passwd", "not a URL"),
        ("http://[broken", "not a URL"),
        ("", "not a URL"),
    ],
)
def test_refused(url, words):
    with pytest.raises(ValueError, match=words):
        check_base_url(url)


def test_a_name_that_only_looks_like_this_machine_is_not_it():
    assert is_loopback("http://127.9.9.9/")
    assert not is_loopback("http://127.0.0.1@example.org/")
    assert host_of("http://[broken") == ""
