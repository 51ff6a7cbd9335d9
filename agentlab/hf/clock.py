"""The clock that chat templates read, stopped: neither what is learnt nor an answer may depend on the day.

Some templates write today's date into the prompt. They cannot be given a clock, so the one that they read is exchanged.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Self


class OneDay(datetime):
    """A clock on which it is always the same moment."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Midnight, 1 January 2025."""
        return cls(2025, 1, 1, tzinfo=tz)


def stop_clock() -> None:
    """For good: in a process that does nothing but answer."""
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = OneDay  # type: ignore[attr-defined] # its own import, not exported


@contextlib.contextmanager
def stopped_clock() -> Iterator[None]:
    """Inside the `with` block; afterwards the clock goes on."""
    from transformers.utils import chat_template_utils

    before = chat_template_utils.datetime  # type: ignore[attr-defined] # its own import, not exported
    stop_clock()
    try:
        yield
    finally:
        chat_template_utils.datetime = before  # type: ignore[attr-defined] # as above
