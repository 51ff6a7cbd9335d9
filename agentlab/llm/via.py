"""The gateways that a request has come through, so that gateways which lead to each other end the circle.

Each adds its own mark to the header `X-Agentlab-Hop` of what it sends on, and refuses a request that bears its mark.
"""

import re
from contextvars import ContextVar

HEADER = "X-Agentlab-Hop"
MOST = 8  # gateways in a row

_MARK = re.compile(r"[0-9a-f]{8,32}")

_passed: ContextVar[tuple[str, ...]] = ContextVar("agentlab.llm.via", default=())


def marks(header: str) -> tuple[str, ...]:
    """The marks in a header. Raises ValueError if it holds anything else."""
    header_marks = tuple(mark.strip() for mark in header.split(",")) if header else ()
    if not all(_MARK.fullmatch(mark) for mark in header_marks):
        raise ValueError(f"{HEADER} must list gateway ids, separated by commas")
    return header_marks


def enter(passed: tuple[str, ...]) -> None:
    """From now on, what this task sends has come through these gateways."""
    _passed.set(passed)


def headers() -> dict[str, str]:
    """The headers that every request to a provider carries; none where no gateway passed it on."""
    passed = _passed.get()
    return {HEADER: ",".join(passed)} if passed else {}
