"""What of an answer is shown, and from when on it can be nobody else's."""

import pytest

from agentlab.llm.attempts import Listener
from agentlab.llm.question import RouterQuestion
from agentlab.llm.types import Delta, ModelRequest, Tool, ToolPiece

CALL = Delta(tools=(ToolPiece(0, "c", "look_up", "{}"),))


@pytest.fixture
def listen():
    """Has a listener hear pieces; what was shown, and whether another model may still answer."""

    def make(*deltas, tools=(), tool_choice="auto", thoughts=False):
        pieces = []
        request = ModelRequest("", (), tools=tools, tool_choice=tool_choice)
        question = RouterQuestion("t", request, None, (), 0.0, thoughts=thoughts)
        listener = Listener(lambda _, delta: pieces.append(delta), question)
        for delta in deltas:
            listener.begin() if delta is None else listener.hear("m", delta)
        return pieces, listener.shown

    return make


def test_white_space_in_front_waits_for_words_and_is_lost_with_its_model(listen):
    blank, words = Delta(text="\n "), Delta(text="yes")
    assert listen(blank) == ([], False)
    assert listen(blank, words, blank) == ([blank, words, blank], True)
    assert listen(blank, None, words) == ([words], True)


def test_thoughts_are_shown_to_those_who_show_them(listen):
    thought = Delta(reasoning="Hm.")
    assert listen(thought) == ([], False)
    assert listen(thought, thoughts=True) == ([thought], True)
    assert listen(Delta(text="yes", reasoning="Hm.")) == ([Delta(text="yes")], True)


def test_a_call_is_shown_where_tools_were_offered(listen):
    tool = Tool("look_up", "", {})
    assert listen(CALL) == ([], False)
    assert listen(CALL, tools=(tool,), tool_choice="none") == ([], False)
    assert listen(CALL, tools=(tool,)) == ([CALL], True)
