"""Templates that ask for the day always hear the same one, and only as long as they should."""

from collections.abc import Iterator

import pytest
from transformers.utils import chat_template_utils

from agentlab.hf.clock import stop_clock, stopped_clock


@pytest.fixture(autouse=True)
def _own_clock() -> Iterator[None]:
    before = chat_template_utils.datetime  # type: ignore[attr-defined] # its own import, not exported
    yield
    chat_template_utils.datetime = before  # type: ignore[attr-defined] # as above


def told() -> str:
    """What a template writes that asks for the time."""
    template = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}"
    talk = [{"role": "user", "content": "Hi"}]
    return str(chat_template_utils.render_jinja_template([talk], chat_template=template)[0][0])


def test_a_template_hears_the_same_moment_within_the_block_and_the_time_after_it() -> None:
    with stopped_clock():
        assert told() == "2025-01-01 00:00:00"
    with pytest.raises(KeyError), stopped_clock():
        raise KeyError
    assert told() > "2025-01-01 00:00:00"


def test_a_clock_that_is_stopped_for_good_stays_so() -> None:
    stop_clock()
    with stopped_clock():
        pass
    assert told() == "2025-01-01 00:00:00"
