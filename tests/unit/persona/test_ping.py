"""Personas that cannot be told apart fail the check."""

import pytest

from agentlab.errors import UsageError
from agentlab.persona.ping import Ping, served
from agentlab.persona.talk import Answer


def answers(**texts: str) -> list[Answer]:
    return [
        Answer(
            speaker=name, model=name, text=text, finish="stop", input_tokens=1, output_tokens=2, cost_usd=None,
            first_seconds=None, seconds=0.5,
        )
        for name, text in texts.items()
    ]  # fmt: skip


def test_all_alike_fail_and_some_alike_are_named() -> None:
    alike = Ping.of("?", answers(a="Yes.", b="Yes. "), answers(a="Yes.", b="Yes. "))
    error = alike.gate()
    assert error is not None
    assert (error.exit_code, "a, b" in error.message) == (5, True)
    some = Ping.of("?", answers(a="Yes.", b="No.", c="Yes."), answers(a="Yes.", b="No.", c="Yes."))
    assert some.gate() is None
    assert some.warnings() == ["these answer alike: a, c"]


def test_one_persona_alone_is_like_nobody() -> None:
    assert Ping.of("?", answers(a="Yes."), answers(a="Yes.")).gate() is None


def test_who_answers_an_equal_request_otherwise_is_named() -> None:
    found = Ping.of("?", answers(a="Yes.", b="No."), answers(a="Yes.", b="Never."))
    assert found.warnings() == ["two equal requests got different answers: b"]
    assert [each.repeats for each in found.personas] == [True, False]


def test_a_server_is_asked_by_the_names_that_it_knows_its_models_under() -> None:
    cast = served("http://127.0.0.1:8000/v1", ["org/a", "b"], {})
    assert [speaker.name for speaker in cast.speakers] == ["org/a", "b"]
    assert [cast.config.models[speaker.model or ""].id for speaker in cast.speakers] == ["org/a", "b"]


def test_a_key_goes_nowhere_without_tls() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        served("http://example.com/v1", ["a"], {"VLLM_API_KEY": "k"})
    with pytest.raises(UsageError, match="is not a URL"):
        served("nonsense", ["a"], {})
