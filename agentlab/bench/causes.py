"""What lies behind a call that failed at every model it could ask. Pure."""

from agentlab import errors
from agentlab.errors import AgentlabError, AllModelsFailedError


def cause_of(error: AgentlabError) -> type[AgentlabError]:
    """The class of an error; of `AllModelsFailedError`, that of the last failure."""
    return _last_failure(error)[0]


def message_of(error: AgentlabError) -> str:
    """The message of an error; of `AllModelsFailedError`, that of the last failure."""
    return _last_failure(error)[1]


def _last_failure(error: AgentlabError) -> tuple[type[AgentlabError], str]:
    if isinstance(error, AllModelsFailedError) and error.failures:
        words = error.failures[-1].split(": ")  # model: kind: message
        for place, word in enumerate(words):
            found = getattr(errors, word, None)
            if isinstance(found, type) and issubclass(found, AgentlabError):
                return found, ": ".join(words[place + 1 :])
    return type(error), error.message
