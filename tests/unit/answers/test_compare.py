"""When answers mean the same."""

import pytest

from agentlab.answers.compare import normal, same_fields, same_results, same_texts


@pytest.mark.parametrize(
    "same",
    [
        (7, 7.0, "7", " 7 ", "7.00", "+7", "７", "7e0"),
        (1000, "1,000", "1e3", 1000.0),
        (0, -0.0, "-0", "0.000"),
        ("Straße", "STRASSE", " strasse\n"),
        ("a  b", "A\tb", "a\u00a0b"),
        (True, "true", "TRUE"),
        ({"a": 1, "b": ["X"]}, {"b": ["x"], "a": 1.0}),
    ],
)
def test_answers_that_mean_the_same_have_one_normal_form(same):
    assert len({normal(value) for value in same}) == 1


def test_those_that_do_not_have_their_own():
    different = [7, 7.1, "seven", "7 apples", "1,00", None, "", ["7"], {"a": 7}, "9" * 65, "9" * 66, 0.1 + 0.2, 0.3]
    assert len({normal(value) for value in different}) == len(different)


@pytest.mark.parametrize(
    ("texts", "same"),
    [(["Yes.", " yes"], True), (["a b", "a\n\tb"], True), (["yes", "no"], False), (["x", "x", "y"], False)],
)
def test_texts_that_nobody_has_to_judge(texts, same):
    assert same_texts(texts) is same


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [("  Ann  LEE ", "ann lee", True), (["A", 1], ["a", 1], True), (["a"], ["a", "b"], False), ("1", 1, False)],
)
def test_fields_go_by_their_words(actual, expected, same):
    assert same_fields(actual, expected) is same


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [(0.1 + 0.2, 0.3, True), (2, 2.0, True), (True, 1, False), ("2", 2, False), ([1], [1], True), (1.001, 1, False)],
)
def test_results_go_by_type_and_to_a_billionth(actual, expected, same):
    assert same_results(actual, expected) is same
