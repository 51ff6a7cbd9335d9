"""What is said of debates: planted effects come out as what they are, and too little says nothing."""

import pytest

from agentlab.debate.result import DebateResult
from agentlab.debate.verdict import verdict
from agentlab.debate.voting import fitted
from tests.unit.debate.scripted import Script, config, questions


def held(script: Script, count: int = 240, dev: int = 0, **vote) -> DebateResult:
    conf = config(len(script.right), script.rounds, vote)
    turns, asked = script.turns(questions(dev + count)), questions(dev + count)
    found = fitted(asked[:dev], [turn for turn in turns if turn.question < f"q{dev:04d}"], conf)
    return verdict(asked[dev:], turns, [], found, conf, {"debate": 9.0, "length": 3.0, "samples": 4.0})


def test_a_hundred_questions_are_needed():
    script = Script(debate=(0.6, 0.0))
    few, enough = held(script, 99), held(script, 100)
    assert (few.control.verdict, enough.control.verdict) == ("not_measured", "helped")
    assert "99 of at least 100 questions; less than " in few.sentence


@pytest.mark.parametrize(
    ("debate", "verdict_"), [((0.6, 0.0), "helped"), ((0.0, 0.6), "hurt"), ((0.0, 0.0), "no_measurable_help")]
)
def test_what_debating_does_is_what_is_said_of_it(debate, verdict_):
    result = held(Script(debate=debate), against="vote")
    assert result.control.verdict == verdict_
    assert result.sentence.startswith({"helped": "Debating helped", "hurt": "Debating hurt"}.get(verdict_, "No measur"))
