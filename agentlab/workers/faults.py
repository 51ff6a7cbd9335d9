"""Errors of agentlab as messages: what a worker raises arrives at its parent under its own class."""

from typing import Any

from agentlab import errors
from agentlab.errors import AgentlabError

# Classes that a message and a hint make whole. What else a worker names is not the protocol.
_PLAIN: dict[str, type[AgentlabError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, AgentlabError) and kind.__init__ is AgentlabError.__init__
}


def as_message(error: AgentlabError) -> dict[str, Any]:
    """The fields kind, message and hint. A class with more to it than that goes by its nearest plain base."""
    kind = next(base.__name__ for base in type(error).__mro__ if _PLAIN.get(base.__name__) is base)
    return {"kind": kind, "message": error.message, "hint": error.hint}


def from_message(fields: dict[str, Any]) -> AgentlabError:
    """The error of such fields; a KeyError if they do not name one."""
    return _PLAIN[fields["kind"]](fields["message"], hint=fields["hint"])
