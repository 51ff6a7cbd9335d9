"""Rules are followed to the letter or broken."""

import pytest

from agentlab.tasks.check import broken


@pytest.mark.parametrize(
    ("rule", "value", "obeying_text", "breaking_text"),
    [
        ("words", 3, "a big-hearted dog - !", "a dog"),
        ("lines", 2, "one\n\n two\n", "one"),
        ("commas", 1, "yes, sir", "yes sir"),
        ("contains", "apple", "An APPLE, please", "pineapples"),
        ("avoids", "apple", "pineapples", "an apple."),
        ("avoids", "e", "a bird", "a bEe"),
        ("starts", "Today", '"today, it rains"', "It rains today"),
        ("ends", "?", "is it?", "is it? yes"),
        ("ends", "paper", "on Paper.", "paper boats"),
        ("case", "lower", "all small, 3 words", "All small"),
        ("case", "upper", "LOUD 3!", "LOUd"),
    ],
)
def test_a_rule_tells_texts_apart(rule, value, obeying_text, breaking_text):
    rules = [{"rule": rule, "value": value}]
    assert broken(obeying_text, rules) == []
    assert broken(breaking_text, rules) == [f"{rule} {value}"]


def test_emphasis_around_the_whole_does_not_count():
    assert broken('**"big red dog"**', [{"rule": "words", "value": 3}, {"rule": "starts", "value": "big"}]) == []


def test_every_broken_rule_is_named():
    rules = [{"rule": "words", "value": 9}, {"rule": "case", "value": "upper"}, {"rule": "contains", "value": "dog"}]
    assert broken("dog", rules) == ["words 9", "case upper"]
