"""Personas that cannot be told apart fail the check."""

import pytest

from agentlab.errors import UsageError
from agentlab.persona.ping import Ping, cast_of_server
from agentlab.persona.talk import SpeakerAnswer


def answers(**texts: str) -> dict[str, SpeakerAnswer | str]:
    return {
        name: SpeakerAnswer(
            speaker=name, model=name, text=text, finish="stop", input_tokens=1, output_tokens=2, cost_usd=None,
            first_seconds=None, seconds=0.5,
        )
        for name, text in texts.items()
    }  # fmt: skip


def test_all_alike_fail_and_some_alike_are_named() -> None:
    alike = Ping.of("?", answers(a="Yes.", b="Yes. "), answers(a="Yes.", b="Yes. "), {})
    error = alike.gate()
    assert error is not None
    assert (error.exit_code, "a, b" in error.message) == (5, True)
    some = Ping.of("?", answers(a="Yes.", b="No.", c="Yes."), answers(a="Yes.", b="No.", c="Yes."), {})
    assert some.gate() is None
    assert some.warnings() == ["these personas give the same answer: a, c"]


def test_one_persona_alone_is_like_nobody() -> None:
    assert Ping.of("?", answers(a="Yes."), answers(a="Yes."), {}).gate() is None


def test_who_answers_an_equal_request_otherwise_is_named() -> None:
    ping = Ping.of("?", answers(a="Yes.", b="No."), answers(a="Yes.", b="Never."), {})
    assert ping.warnings() == ["two identical requests got different answers: b"]
    assert [entry.repeats for entry in ping.personas] == [True, False]


def test_who_does_not_answer_has_a_row_with_the_reason() -> None:
    first = {**answers(a="Yes."), "b": "its factors contain infinite or NaN values."}
    ping = Ping.of("?", first, first, {"c": "it was trained on another base model."})
    assert [(entry.persona, entry.error) for entry in ping.personas] == [
        ("a", None),
        ("b", "its factors contain infinite or NaN values."),
        ("c", "it was trained on another base model."),
    ]
    error = ping.gate()
    assert error is not None
    assert (error.exit_code, "2 of 3 personas did not answer: b, c" in error.message) == (4, True)
    assert ping.warnings() == []
    rows = ping.blocks()[0].rows  # type: ignore[union-attr] # it is a table
    assert [("infinite" in str(row), "another base" in str(row)) for row in rows] == [
        (False, False), (True, False), (False, True),
    ]  # fmt: skip


def test_a_server_is_asked_by_the_names_that_it_knows_its_models_under() -> None:
    cast = cast_of_server("http://127.0.0.1:8000/v1", ["org/a", "b"], {})
    assert [speaker.name for speaker in cast.speakers] == ["org/a", "b"]
    assert [cast.config.models[speaker.model or ""].id for speaker in cast.speakers] == ["org/a", "b"]


def test_a_key_goes_nowhere_without_tls() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        cast_of_server("http://example.com/v1", ["a"], {"VLLM_API_KEY": "k"})
    with pytest.raises(UsageError, match="is not an HTTP URL"):
        cast_of_server("nonsense", ["a"], {})
