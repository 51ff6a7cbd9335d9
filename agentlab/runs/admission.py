"""What a run may take in: no secret, because its folder keeps what it was asked."""

from collections.abc import Mapping
from typing import Any

from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError
from agentlab.files import open_file
from agentlab.runs.redact import Redactor, texts_of

_LARGEST_FILE, _LONGEST_PATH = 64 << 20, 4096
_HINT = "Write something else there; or unset the variable if its value is no secret."


def refuse_secrets(config: Mapping[str, Any], workspace: Workspace, redactor: Redactor) -> None:
    """See that neither a resolved config nor a file that it names holds a secret.

    To mask it instead would change what is asked, and what a resumed run reads back.

    Raises:
        ConfigError: one does; it says which variable's.
    """
    for key, text in texts_of(config):
        if variable := redactor.variable_in(text):
            raise ConfigError(f"{key}: holds the value of {variable}, which no run folder keeps.", hint=_HINT)
        if redactor.mask(text) != text:
            raise ConfigError(f"{key}: holds what looks like a key, which no run folder keeps.", hint=_HINT)
        if variable := _variable_in_file(text, workspace, redactor):
            raise ConfigError(f"{key}: {text} holds the value of {variable}, which no run folder keeps.", hint=_HINT)


def _variable_in_file(name: str, workspace: Workspace, redactor: Redactor) -> str | None:
    """The variable whose value a file holds. Larger ones are models; what cannot be read is its reader's to refuse."""
    try:
        path = workspace.resolve(name[:_LONGEST_PATH])
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return None
        with open_file(path) as file:
            return redactor.variable_in(file.read(_LARGEST_FILE).decode("utf-8", errors="ignore"))
    except (OSError, ValueError, ConfigError):
        return None
