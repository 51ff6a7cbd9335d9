"""Votes by every rule, and what is fitted: equal to what can be computed by hand."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.answers.calibration import Platt
from agentlab.debate.transcript import Ballot
from agentlab.debate.verdict import verdict
from agentlab.debate.voting import Fitted, fit_votes, votes
from tests.unit.debate.scripted import NAMES, TOWNS, Script, config, questions, spoken, turn

NOTHING = Fitted(best="ann", questions=0)
COUNTED = ("majority", "confidence", "softmax", "borda", "trajectory")
ANSWERS = st.lists(
    st.lists(st.sampled_from(["lima", "quito", "oslo", None]), min_size=3, max_size=3), min_size=1, max_size=4
)


def said(*rounds, sure=None):
    """The turns of one question: a list of answers for each round."""
    question = questions(1)[0]
    return [
        [
            turn(question, name, answer, round=n, sure=s)
            for name, answer, s in zip(NAMES, some, sure or [0.6] * 9, strict=False)
        ]
        for n, some in enumerate(rounds)
    ]


def winners(rounds, fitted=NOTHING, conf=None, ballots=()):
    tallies = votes(rounds, fitted, conf or config(), ballots)
    return {rule: tally.winner for rule, tally in tallies[-1].items()}


def patterns(correlation_halves):
    """125 questions on which three agents, right with 3/5, err independently; and as many on which all err as one."""
    marks = [m for m in product((True, False), repeat=3) for _ in range(3 ** sum(m) * 2 ** (3 - sum(m)))]
    return marks + ([(True,) * 3] * 75 + [(False,) * 3] * 50) * correlation_halves


@pytest.mark.parametrize(("halves", "accuracy", "correlation"), [(0, 81 / 125, 0.0), (1, (81 + 75) / 250, 0.5)])
def test_the_vote_of_independent_and_of_alike_agents_is_as_often_right_as_it_should_be(halves, accuracy, correlation):
    marks = patterns(halves)
    quiz = questions(len(marks))
    turns = [
        turn(q, name, q.answer if right else TOWNS[(TOWNS.index(q.answer) + 1) % 4])
        for q, of in zip(quiz, marks, strict=True)
        for name, right in zip(NAMES, of, strict=False)
    ]
    result = verdict(quiz, spoken(turns), NOTHING, config(rounds=0))
    first = result.rounds[0]
    assert result.accuracy == accuracy
    assert {share.value for share in first.agents.values()} == {0.6}
    assert result.correlations["ann"]["bob"] == pytest.approx(correlation, abs=1e-12)
    assert first.oracle.value == (117 + 75 * halves) / len(marks)
    debate = next(arm for arm in result.arms if arm.arm == "debate").accuracy
    z, n = 1.959964, len(marks)
    middle, half = (accuracy + z * z / n / 2), z * (accuracy * (1 - accuracy) / n + z * z / n / n / 4) ** 0.5
    assert (debate.low, debate.high) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)), abs=1e-6
    )


@given(ANSWERS)
def test_a_vote_names_what_was_said_and_what_comes_later_does_not_change_it(rounds):
    turns = said(*rounds)
    for rule, winner in winners(turns).items():
        assert winner is None or any(winner in answers for answers in rounds), rule
    for length in range(1, len(rounds)):
        assert votes(turns, NOTHING, config())[:length] == votes(turns[:length], NOTHING, config())


@given(ANSWERS)
def test_own_answers_alone_are_a_majority_by_every_rule(rounds):
    assert len({winners(said(rounds[0]))[rule] for rule in COUNTED}) == 1


@given(st.sampled_from(["lima", "quito"]), st.integers(1, 4))
def test_where_all_agree_every_rule_agrees(answer, number):
    assert set(winners(said(*[[answer] * 3] * number)).values()) == {answer}


def test_ties_go_to_the_agent_named_first():
    assert set(winners(said(["oslo", "lima", "quito"])).values()) == {"oslo"}
    assert set(winners(said([None, "lima", "quito"])).values()) == {"lima"}


def test_what_cannot_be_read_wins_nothing():
    tallies = votes(said([None, None, None]), NOTHING, config())[0]
    assert {(tally.winner, tally.share) for tally in tallies.values()} == {(None, 0.0)}


def test_confidence_outweighs_number_and_its_calibration_can_turn_that():
    rounds = said(["lima", "quito", "quito"], sure=[0.9, 0.3, 0.3])
    assert (winners(rounds)["majority"], winners(rounds)["confidence"]) == ("quito", "lima")
    boaster = NOTHING.model_copy(update={"calibration": {"logprob": {"ann": Platt(0.0, -3.0)}}})
    assert winners(rounds, boaster)["confidence"] == "quito"
    cold, warm = (NOTHING.model_copy(update={"temperature": temperature}) for temperature in (0.1, 5.0))
    assert (winners(rounds, cold)["softmax"], winners(rounds, warm)["softmax"]) == ("lima", "quito")


def test_an_answer_without_confidence_counts_half_and_one_without_any_a_little():
    assert winners(said(["lima", "quito"], sure=[None, 0.4]))["confidence"] == "lima"
    assert winners(said(["lima", "lima"], sure=[0.0, 0.0]))["confidence"] == "lima"


def test_a_borda_ballot_ranks_what_its_agent_held_before():
    # one voice each now; bob and cid held quito before, which a majority forgets
    rounds = said(["oslo", "quito", "quito"], ["oslo", "lima", "quito"])
    assert (winners(rounds)["majority"], winners(rounds)["borda"]) == ("oslo", "quito")


def test_the_judge_decides_the_rounds_that_it_judged():
    rounds = said(["lima", "quito", "quito"], ["lima", "quito", "quito"])
    tallies = votes(rounds, NOTHING, config(), [Ballot(question="q0000", round=1, answer="lima")])
    assert "judge" not in tallies[0]
    assert tallies[1]["judge"].winner == "lima"
    none = votes(rounds, NOTHING, config(), [Ballot(question="q0000", round=1, answer=None)])
    assert none[1]["judge"].winner is None


# -- fitted ---------------------------------------------------------------------------------------------------------


def test_without_questions_to_fit_on_the_first_agent_is_best_and_confidences_stay():
    fitted = fit_votes([], spoken([]), config())
    assert fitted == NOTHING
    assert fitted.probability(turn(questions(1)[0], "ann", "lima", sure=0.7), "logprob") == 0.7


def test_the_best_agent_is_right_most_often_on_its_own_and_of_equals_the_first():
    quiz = questions(4)
    answers = {"ann": "lima", "bob": "quito", "cid": "oslo"}  # each is right on one of four
    turns = [turn(q, name, answer) for q in quiz for name, answer in answers.items()]
    assert fit_votes(quiz, spoken(turns), config()).best == "ann"
    later = [turn(q, name, q.answer if name == "cid" else None, round=1) for q in quiz for name in answers]
    assert fit_votes(quiz, spoken(turns + later), config()).best == "ann"
    better = [turn(q, name, q.answer if name == "cid" else answer) for q in quiz for name, answer in answers.items()]
    assert fit_votes(quiz, spoken(better), config()).best == "cid"


def test_what_is_fitted_comes_back_from_an_event():
    quiz, script = questions(20), Script()
    fitted = fit_votes(quiz, spoken(script.turns(quiz)), config())
    assert Fitted.model_validate(fitted.model_dump(mode="json")) == fitted


def test_a_boaster_is_taken_at_what_its_word_is_worth():
    """90 % sure and 60 % right: as given ECE is 0.3 and Brier 0.33; fitted on as many others, 0 and 0.24."""
    quiz = questions(400)
    turns = [turn(q, "ann", q.answer if n % 5 < 3 else None, sure=0.9) for n, q in enumerate(quiz)]
    turns += [turn(q, "bob", q.answer, sure=None) for q in quiz]
    conf = config(2, 0)
    fitted = fit_votes(quiz[:200], spoken([t for t in turns if t.question < "q0200"]), conf)
    (row,) = verdict(quiz[200:], spoken(turns), fitted, conf).calibration
    assert (row.before.ece, row.before.brier, row.before.auroc) == pytest.approx((0.3, 0.33, 0.5))
    assert row.after is not None
    assert (row.after.ece, row.after.brier, row.after.auroc) == pytest.approx((0.0, 0.24, 0.5), abs=0.01)
    assert (row.before.answers, row.before.pairs, row.before.within) == (200, 0, None)


def test_confidences_that_tell_right_from_wrong_make_the_softmax_cold_and_noise_leaves_it_warm():
    quiz = questions(64)  # every pattern of right and wrong with every pattern of sure and unsure

    def heard(telling):
        for n, q in enumerate(quiz):
            for bit, name in enumerate(NAMES[:3]):
                right, noise = bool(n >> bit & 1), bool(n >> bit + 3 & 1)
                answer = q.answer if right else TOWNS[(TOWNS.index(q.answer) + 1) % 4]
                yield turn(q, name, answer, sure=0.9 if (right if telling else noise) else 0.1)

    informative, noise = (
        fit_votes(quiz, spoken(list(heard(telling))), config(rounds=0)).temperature for telling in (True, False)
    )
    assert (informative, noise) == (0.05, 2.0)


def test_within_a_question_the_right_answer_should_be_the_surer_one():
    quiz = questions(2)
    sure = [[0.9, 0.4, 0.5], [0.3, 0.3, 0.8]]  # ann is right, the others are wrong
    turns = [
        turn(q, name, q.answer if name == "ann" else None, sure=s)
        for q, of in zip(quiz, sure, strict=True)
        for name, s in zip(NAMES, of, strict=False)
    ]
    (row,) = verdict(quiz, spoken(turns), NOTHING, config(rounds=0)).calibration
    assert (row.before.within, row.before.pairs) == (2.5 / 4, 4)
    assert row.after is None
