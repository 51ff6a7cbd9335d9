"""Answers and recipes that users have kept are found by the versions to come."""

import json

from tests.unit.frozen import vectors

FROZEN = json.loads(vectors.VECTORS_FILE.read_text(encoding="utf-8"))


def test_kept_answers_and_recipes_are_found_under_the_keys_that_they_had() -> None:
    assert vectors.compute_vectors() == FROZEN


def test_the_draws_differ() -> None:
    """A fixture of equal keys would show nothing."""
    assert (len(FROZEN["questions"]), len(FROZEN["recipes"])) == (vectors.QUESTIONS, vectors.RECIPES)
    for kind in ("replay", "kept", "pipeline"):
        assert len({question[kind] for question in FROZEN["questions"]}) == vectors.QUESTIONS
    assert len(set(FROZEN["recipes"])) > vectors.RECIPES / 2
