"""How votes are read, counted and settled."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import MalformedReplyError
from agentlab.pipeline.aggregation.base import Chosen, StageCandidate
from agentlab.pipeline.aggregation.pick import FirstValid
from agentlab.pipeline.aggregation.vote import Extract, Vote
from tests.unit.pipeline.aggregation.conftest import Scripted

WORD = Vote(extract=Extract(regex=r"\w+"))


def vote(candidates, config):
    return config.choose(candidates, Scripted())


def answers(*texts, models=()):
    return [StageCandidate(models[i] if models else "m", i + 1, text) for i, text in enumerate(texts)]


def test_the_first_candidate_of_the_largest_group_answers_and_the_tally_is_written():
    chosen = vote(answers("no", "Yes, it is.", "yes!", "?!"), WORD)
    assert chosen == Chosen(
        "Yes, it is.",
        {
            "method": "vote",
            "tally": [
                {"vote": "yes", "weight": 2.0, "candidates": [1, 2]},
                {"vote": "no", "weight": 1.0, "candidates": [0]},
            ],
            "abstained": 1,
            "tie": False,
            "chosen": 1,
        },
    )


@pytest.mark.parametrize(
    ("extract", "texts", "winner"),
    [
        (Extract(kind="number"), ["so 3+4 = 7", "The answer is 8.", "It is 7.0"], 0),
        (Extract(kind="letter", labels=("A", "B")), ["B", "Answer: A", "I say (A)."], 1),
        (Extract(kind="label", labels=("spam", "ham")), ["It is ham", "HAM.", "spam"], 0),
        (Extract(kind="short"), ["Answer: Rome", "Paris", "**Paris**."], 1),
        (Extract(pointer="/a~1b/0/~0"), ['{"a/b": [{"~": 1}]}', '```json\n{"a/b": [{"~": 1.0}]}\n```', "no"], 0),
        (Extract(regex=r"vote: (\w+)"), ["vote: x", "vote: y", "My vote: Y"], 1),
    ],
)
def test_what_of_an_answer_is_its_vote(extract, texts, winner):
    chosen = vote(answers(*texts), Vote(extract=extract))
    assert chosen.why["chosen"] == winner


def test_with_a_schema_the_whole_value_votes():
    ballots = [
        StageCandidate("m", i, str(value), json=value) for i, value in enumerate([{"v": 1}, {"v": 2}, {"v": 2.0}, None])
    ]
    chosen = vote(ballots, Vote())
    assert (chosen.why["chosen"], chosen.why["abstained"]) == (1, 1)


def test_weights_are_added_as_they_stand_there():
    weights = {"a": 0.1, "b": 0.2, "c": 0.3}
    ballots = answers("x", "x", "y", models="abc")
    assert vote(ballots, Vote(extract=WORD.extract, weights=weights)).why["tie"] is True
    assert vote(ballots, Vote(extract=WORD.extract, weights={**weights, "c": 0.31})).why["chosen"] == 2
    assert vote(ballots, Vote(extract=WORD.extract, weights={"c": 0})).why["chosen"] == 0


def test_a_tie_goes_by_its_rule():
    ballots = answers("a", "b", "b", "a", "c")
    assert vote(ballots, WORD).text == "a"
    abstains = vote(ballots, WORD.model_copy(update={"ties": "abstain"}))
    assert (abstains.text, abstains.why["chosen"]) == ("", None)
    scene = Scripted(lambda prompt: '{"best": "B"}' if "A>\na\n" in prompt else '{"best": "A"}')
    end = WORD.model_copy(update={"ties": "judge", "judge": "m"}).choose(ballots, scene)
    assert (end.text, end.why["chosen"], end.why["tie_rule"], end.why["judge"]["method"]) == ("b", 1, "judge", "judge")
    assert len(scene.asked) == 2


def test_no_vote_at_all():
    for weights in ({}, {"m": 0}):
        with pytest.raises(MalformedReplyError, match="None of the 2 answers contains a valid vote"):
            vote(answers("?", "!") if not weights else answers("a", "b"), Vote(extract=WORD.extract, weights=weights))
    assert vote(answers("?", "!"), WORD.model_copy(update={"ties": "abstain"})).text == ""


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), st.integers(0, 99))
def test_the_order_of_candidates_decides_nothing_but_ties(votes, seed):
    chosen = vote(answers(*votes), WORD)
    shuffled = random.Random(seed).sample(votes, len(votes))
    second = vote(answers(*shuffled), WORD)
    assert second.why["tie"] == chosen.why["tie"]
    if not chosen.why["tie"]:
        assert second.text == chosen.text
    assert votes.count(chosen.text) == max(votes.count(letter) for letter in "abc")


@given(st.text(), st.sampled_from(["number", "short"]))
def test_whatever_an_answer_says_it_is_counted_or_abstains(text, kind):
    chosen = vote(answers(text), Vote(extract=Extract(kind=kind), ties="abstain"))
    assert chosen.text in (text, "")


def test_hostile_patterns_and_answers_abstain():
    start = time.process_time()
    stuck = Vote(extract=Extract(regex="(a|aa)+$"), ties="abstain")
    assert vote(answers("a" * 60 + "b"), stuck).why["abstained"] == 1
    assert time.process_time() - start < 5
    deep = Vote(extract=Extract(pointer="/0"), ties="abstain")
    assert vote(answers("[" * 50_000), deep).why["abstained"] == 1
    assert vote(answers('["' + "9" * 10_000 + '"]', "[" + "9" * 10_000 + "]"), deep).why["abstained"] == 1


@pytest.mark.parametrize("pointer", ["/01", "/-", "/2", "/a", "/0/a", "/ 0"])
def test_a_pointer_to_nothing_abstains(pointer):
    assert vote(answers("[1, 2]"), Vote(extract=Extract(pointer=pointer), ties="abstain")).why["abstained"] == 1


@pytest.mark.parametrize(
    ("config", "schema", "wrong"),
    [
        (Vote(), False, [((), "free text cannot be voted on")]),
        (Vote(extract=Extract(kind="number")), False, []),
        (Vote(), True, []),
        (Vote(weights={"a": 2, "c": 1}), True, [(("weights", "c"), "There is no model of this stage named 'c'")]),
    ],
)
def test_a_vote_has_to_go_with_its_stage(config, schema, wrong):
    problems = list(config.misfits(("a", "b"), schema=schema))
    assert [location for location, _ in problems] == [location for location, _ in wrong]
    assert all(sentence in str(problem) for (_, problem), (_, sentence) in zip(problems, wrong, strict=True))


@pytest.mark.parametrize(
    ("aggregation", "field", "sentence"),
    [
        (Vote(extract=Extract(regex="(a")), "regex", "not a valid regular expression"),
        (Vote(extract=Extract(pointer="vote")), "pointer", "must begin with /"),
        (Vote(extract=Extract(pointer="/a~2")), "pointer", "write ~0 for ~"),
        (Vote(extract=Extract(kind="letter", labels=("AB",))), "labels", "single letters"),
        (Vote(extract=Extract(kind="label", labels=(" ",))), "labels", "must not be empty"),
        (FirstValid(pattern="["), "pattern", "not a valid regular expression"),
        (FirstValid(pattern="(?:" * 25 + "a" + ")+" * 25), "pattern", "too deeply nested"),
    ],
)
def test_patterns_and_pointers_are_checked_before_the_run(aggregation, field, sentence):
    ((where, problem),) = aggregation.problems()
    assert where[-1] == field
    assert sentence in problem


def test_good_patterns_and_pointers_pass():
    assert not list(Vote(extract=Extract(pointer="")).problems())
    assert not list(FirstValid(pattern=r"\d").problems())
