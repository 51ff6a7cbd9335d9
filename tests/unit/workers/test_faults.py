"""Errors keep their class on the way from a worker."""

import pytest

from agentlab import errors
from agentlab.errors import AgentlabError
from agentlab.workers.faults import as_message, from_message
from agentlab.workers.wire import decode, encode


@pytest.mark.parametrize(
    "kind", [errors.DataError, errors.MissingFileError, errors.ContextOverflowError, AgentlabError]
)
def test_a_class_survives_the_wire(kind: type[AgentlabError]) -> None:
    error = from_message(decode(encode(as_message(kind("What happened.", hint="What to do.")))))
    assert type(error) is kind
    assert (error.message, error.hint) == ("What happened.", "What to do.")


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.UnknownNameError("model", "a", ["b"]), errors.UsageError),
        (errors.RateLimitedError("Slower.", retry_after=3), errors.RemoteError),
        (errors.Interrupted("Stopped."), AgentlabError),
    ],
)
def test_a_class_with_more_than_a_message_goes_by_its_base(error: AgentlabError, base: type[AgentlabError]) -> None:
    assert type(from_message(as_message(error))) is base


def test_a_class_of_somebody_else_goes_by_its_base() -> None:
    class DataError(errors.DataError):
        """Bears a known name and is another class."""

    assert type(from_message(as_message(DataError("No.")))) is errors.DataError


@pytest.mark.parametrize("kind", ["SystemExit", "Sequence", "RateLimitedError"])
def test_anything_else_is_not_an_error_of_ours(kind: str) -> None:
    with pytest.raises(KeyError):
        from_message({"kind": kind, "message": "", "hint": None})
