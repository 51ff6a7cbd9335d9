"""The environment: a `.env` file in the workspace, below the process's real variables, which are never changed."""

import re
from collections.abc import Mapping
from pathlib import Path

from agentlab.config.trust import EXPAND, TRUST, with_confirmed
from agentlab.errors import ConfigError
from agentlab.files import open_file

MAX_BYTES = 64 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"(?:export\s+)?(?P<name>[^=\s]+)\s*=\s*(?P<value>.*)")
_SINGLE = re.compile(r"'(?P<text>[^']*)'")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_environment(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process, and below them those of `root/.env` if there is such a file.

    Raises:
        ConfigError: `.env` is too large, not text, has a line that is no assignment, or says what is to be trusted:
            a workspace may be somebody else's.
    """
    environ, path = with_confirmed(environ), root / ".env"
    if not path.is_file():  # a folder of that name is somebody's virtual environment
        return environ
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES // 1024} KiB.")
    variables = parse_env(text, str(path))
    for name in (TRUST, EXPAND):
        if name in variables:
            raise ConfigError(
                f"{path} may not set {name}: a workspace cannot decide what is trusted.",
                hint=f"Remove the line; to set it, export {name} in your shell.",
            )
    return {**variables, **environ}


def parse_env(text: str, label: str) -> dict[str, str]:
    """The assignments of a `.env` text. Messages never show a value: it may be a key.

    Raises:
        ConfigError: a line is no assignment; names `label` and the line.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if not match or not _NAME.fullmatch(match["name"]):
            raise ConfigError(f"{label}:{number}: expected NAME=VALUE.", hint="Comments start with #.")
        variables[match["name"]] = _value(match["value"], f"{label}:{number}: {match['name']}")
    return variables


def _value(raw: str, where: str) -> str:
    """Single quotes keep everything, double quotes know escapes, a bare value ends at ` #`."""
    if "\0" in raw:
        raise ConfigError(f"{where} contains a NUL byte.")
    if not raw.startswith(("'", '"')):
        return re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
    match = (_SINGLE if raw[0] == "'" else _DOUBLE).match(raw)
    if not match:
        raise ConfigError(f"{where}: the quote is not closed on its line.")
    trailing_text = raw[match.end() :].strip()
    if trailing_text and not trailing_text.startswith("#"):
        raise ConfigError(f"{where}: there is more text after the closing quote.")
    if raw[0] == "'":
        return match["text"]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match["text"])
