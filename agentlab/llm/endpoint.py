"""Where a provider is reached, and which key may go there. A key travels over TLS, or never leaves the machine."""

import ipaddress
from collections.abc import Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

# Where well-known keys belong: these hosts and those below them. A config that somebody else wrote cannot send
# them anywhere else.
_HOMES: Mapping[str, tuple[str, ...]] = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "AZURE_OPENAI_API_KEY": ("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
    "CEREBRAS_API_KEY": ("api.cerebras.ai",),
    "COHERE_API_KEY": ("api.cohere.com", "api.cohere.ai"),
    "DASHSCOPE_API_KEY": ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("huggingface.co", "endpoints.huggingface.cloud"),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "MOONSHOT_API_KEY": ("api.moonshot.ai", "api.moonshot.cn"),
    "NVIDIA_API_KEY": ("api.nvidia.com",),
    "OPENAI_API_KEY": ("api.openai.com",),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "PERPLEXITY_API_KEY": ("api.perplexity.ai",),
    "TOGETHER_API_KEY": ("api.together.xyz", "api.together.ai"),
    "XAI_API_KEY": ("api.x.ai",),
}
_KEY_NAME = "_API_KEY"


def host_of(url: str) -> str:
    """The host name of a URL, in lower case; empty when it has none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine."""
    host = host_of(url)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_base_url(url: str) -> str:
    """The URL without its last slash.

    Raises:
        ValueError: it cannot be a base URL, or would send prompts and keys in the clear.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL such as https://openrouter.ai/api/v1")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{url!r} holds characters that no URL may hold")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a base URL holds no user, query or fragment; a key belongs in `api_key`")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError(f"{url} would send prompts and keys unencrypted; use https, or a tunnel to 127.0.0.1")
    return url.rstrip("/")


def check_key(variable: str, url: str) -> None:
    """Refuse to send the value of an environment variable to a place where it does not belong.

    A well-known key goes to its own provider. Any other variable has to bear the name of a key, so that no config can
    ask for GITHUB_TOKEN or AWS_SECRET_ACCESS_KEY. On this machine well-known keys may go anywhere.

    Raises:
        ValueError: it says which variable, which host, and what to do.
    """
    name = variable.upper()  # some systems do not tell the cases apart
    homes = _HOMES.get(name)
    if homes is None and not name.endswith(_KEY_NAME):
        near = get_close_matches(name, _HOMES, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"${{{variable}}} is not the name of a key for a language model{meant}; put the key into a variable whose "
            f"name ends in {_KEY_NAME}"
        )
    host = host_of(url)
    if homes is None or is_loopback(url) or any(host == home or host.endswith(f".{home}") for home in homes):
        return
    raise ValueError(
        f"${{{variable}}} belongs to {' or '.join(homes)} and is not sent to {host}; put the key of {host} into a "
        f"variable of its own, such as ${{{_suggested(host)}}}"
    )


def _suggested(host: str) -> str:
    words = [word for word in host.replace("-", "_").split(".") if word not in ("api", "www")]
    name = max(words[:-1] or words, key=len).upper()
    return f"{name if name[:1].isalpha() else 'MY'}{_KEY_NAME}"
