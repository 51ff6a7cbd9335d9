"""Masking: known values, common shapes, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.redact import MASK, Redactor


def test_known_values_come_from_variables_with_telling_names() -> None:
    redactor = Redactor.of({"MY_API_KEY": "abcdef123", "HF_TOKEN": "tok-123456", "HOME": "/home/somebody"})
    assert redactor.scrub("abcdef123 tok-123456 /home/somebody") == f"{MASK} {MASK} /home/somebody"


def test_any_variable_named_a_key_is_secret_and_a_path_of_one_is_not() -> None:
    redactor = Redactor.of({"CORP_LLM_KEY": "abcdef123", "KEY": "ghijkl456", "SSH_KEY_PATH": "/home/x/.ssh/id"})
    assert redactor.scrub("abcdef123 ghijkl456 /home/x/.ssh/id") == f"{MASK} {MASK} /home/x/.ssh/id"


def test_a_secret_is_masked_as_a_key_of_a_mapping_too() -> None:
    assert Redactor(["abcdef123"]).scrub_tree({"abcdef123": [{"x": "abcdef123"}]}) == {MASK: [{"x": MASK}]}


def test_shape_of_a_key_that_never_was_in_the_environment() -> None:
    assert Redactor().scrub("k=sk-abcdefghijklmnop1234") == f"k={MASK}"
    assert Redactor().scrub("Authorization: Bearer abc.def-123456789") == f"Authorization: Bearer {MASK}"


def test_short_values_are_left_alone() -> None:
    assert Redactor(["on"]).scrub("carry on") == "carry on"


@given(st.text(min_size=6, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret]).scrub(before + secret + after).replace(MASK, "\0")


@given(st.recursive(st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=10))
def test_scrubbing_a_tree_keeps_its_shape(tree: object) -> None:
    assert Redactor().scrub_tree(tree) == tree or "Bearer " in str(tree) or "sk-" in str(tree)


def test_a_number_of_tokens_is_no_secret() -> None:
    env = {"MAX_TOKENS": "100000", "LLM_MAX_NEW_TOKENS": "unlimited", "TOKENIZER": "bert-base", "RATE_TOKEN": "250000"}
    said = "100000 of 250000 are unlimited with bert-base"
    assert Redactor.of(env).scrub(said) == said


def test_a_password_of_digits_is_a_secret_and_so_are_tokens() -> None:
    redactor = Redactor.of({"DB_PASSWORD": "8392017", "AUTH_TOKENS": "abcdef,ghijkl", "SPACED_KEY": " abcdef123\n"})
    assert redactor.scrub("8392017 abcdef,ghijkl abcdef123") == f"{MASK} {MASK} {MASK}"
