"""Where a provider is reached. A key travels over TLS, or never leaves the machine."""

import ipaddress
from urllib.parse import urlsplit


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
