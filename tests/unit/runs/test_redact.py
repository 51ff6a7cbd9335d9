"""Masking: known values, common shapes, and nothing else."""

import time

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
    assert Redactor(["abcdef123"]).mask_tree({"abcdef123": [{"x": "abcdef123"}]}) == {MASK: [{"x": MASK}]}


def test_shape_of_a_key_that_never_was_in_the_environment() -> None:
    assert Redactor().scrub("k=sk-abcdefghijklmnop1234") == f"k={MASK}"
    assert Redactor().scrub("Authorization: Bearer abc.def-123456789") == f"Authorization: Bearer {MASK}"


def test_short_values_are_left_alone() -> None:
    assert Redactor(["on"]).scrub("carry on") == "carry on"


@given(st.text(min_size=6, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret]).scrub(before + secret + after).replace(MASK, "\0")


def test_what_may_be_words_is_masked_for_readers_alone() -> None:
    redactor = Redactor.of({"VAULT_PASSPHRASE": "blue whale", "KEY": "q7Rk2mZp9xVt4LwB"})
    assert redactor.scrub("a blue whale q7Rk2mZp9xVt4LwB") == f"a {MASK} {MASK}"
    assert redactor.mask("a blue whale q7Rk2mZp9xVt4LwB") == f"a blue whale {MASK}"
    assert redactor.mask_tree(["blue whale", {"q7Rk2mZp9xVt4LwB": 1}]) == ["blue whale", {MASK: 1}]
    assert redactor.variable_in("x q7Rk2mZp9xVt4LwB.") == "KEY"
    assert redactor.variable_in("a blue whale") is None


_PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "q7Rk2mZp9xVt4LwB",
                "q7Rk2mZp9xVt4LwBlong",
                "blue whale",
                "sk-",
                "abcdefgh1jklmnopq",
                "Bearer ",
                "hf_",
                "ghp_",
                "gh",
                "github_pat_",
                "AKIA",
                "A1B2C3D4E5F6G7H8",
                "xoxb-",
                " ",
                "task-",
                "é",
                "://a:b@",
            ]
        ),
        st.text("q7Rk2mZp9xVt4LwBsk-hf_ Bearer.", max_size=8),
    ),
    max_size=12,
)


@given(_PIECES, st.data())
def test_a_stream_is_masked_as_the_whole_is_wherever_it_is_cut(pieces: list[str], data: st.DataObject) -> None:
    redactor = Redactor(["q7Rk2mZp9xVt4LwB", "q7Rk2mZp9xVt4LwBlong", "blue whale"])
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    stream = redactor.stream()
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join([*(stream.piece(part) for part in parts), stream.end()]) == redactor.mask(text)


def test_a_character_that_comes_in_two_halves_is_whole_and_half_of_one_a_question_mark() -> None:
    stream = Redactor().stream()
    pieces = [stream.piece(piece) for piece in ("Gr\u00fc", "\ud83d", "", "\ude00 a\ude00b", "\ud83d")]
    assert [*pieces, stream.end()] == ["Gr\u00fc", "", "", "\U0001f600 a?b", "", "?"]


def test_a_stream_holds_nothing_back_that_cannot_become_a_secret() -> None:
    stream = Redactor(["q7Rk2mZp9xVt4LwB"]).stream()
    assert [stream.piece(part) for part in ("The ", "answer ", "is ta", "sk", "-", "x q7", "R.")] == [
        "The ",
        "answer ",
        "is ta",
        "sk",
        "-",
        "x ",
        "q7R.",
    ]


@given(st.recursive(st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=10))
def test_scrubbing_a_tree_keeps_its_shape(tree: object) -> None:
    assert Redactor().mask_tree(tree) == tree or "Bearer " in str(tree) or "sk-" in str(tree)


def test_a_number_of_tokens_is_no_secret() -> None:
    env = {"MAX_TOKENS": "100000", "LLM_MAX_NEW_TOKENS": "unlimited", "TOKENIZER": "bert-base", "RATE_TOKEN": "250000"}
    sentence = "100000 of 250000 are unlimited with bert-base"
    assert Redactor.of(env).scrub(sentence) == sentence


def test_a_password_of_digits_is_a_secret_and_so_are_tokens() -> None:
    redactor = Redactor.of({"DB_PASSWORD": "8392017", "AUTH_TOKENS": "abcdef,ghijkl", "SPACED_KEY": " abcdef123\n"})
    assert redactor.scrub("8392017 abcdef,ghijkl abcdef123") == f"{MASK} {MASK} {MASK}"


def test_text_that_keeps_beginning_a_key_takes_time_in_proportion_to_its_length() -> None:
    redactor, text = Redactor(["q7Rk2mZp9xVt4LwB"]), "sk-" * 30_000  # more than a minute where the time is quadratic
    stream, start_time = redactor.stream(), time.process_time()
    assert redactor.mask(text) == stream.piece(text) + stream.end() == text
    assert time.process_time() - start_time < 20


def test_a_digit_behind_the_key_makes_no_key_of_a_name() -> None:
    text = "sk-learn-and-all-its-friends.1"
    assert Redactor().mask(text) == text
