"""A wave asks what the protocol says, and no more; speakers here follow a script."""

from collections.abc import Callable, Sequence

from agentlab.debate.config import AgentConfig, DebateConfig, ProtocolConfig, VoteConfig
from agentlab.debate.protocol import Form
from agentlab.debate.speakers import Panel, TurnReply, TurnRequest
from agentlab.debate.wave import Setting, Wave
from agentlab.tasks.questions import QuizQuestion

NAMES = ("ann", "bob", "cat")
QUESTIONS = [QuizQuestion(f"q{n}", f"Is {n} even?", "yes", ("yes", "no"), "choice") for n in range(2)]


class Scripted:
    """Answers by a function of what is asked."""

    def __init__(self, script: Callable[[TurnRequest], TurnReply]) -> None:
        self._script = script
        self.calls: list[list[TurnRequest]] = []

    def answer(self, asked: Sequence[TurnRequest]) -> list[TurnReply]:
        self.calls.append(list(asked))
        return [self._script(request) for request in asked]

    def forget(self) -> None:
        """Nothing is held."""

    @property
    def asked(self) -> list[TurnRequest]:
        return [request for call in self.calls for request in call]


def said(answer: str, tokens: int = 10) -> TurnReply:
    return TurnReply(f"Because.\nAnswer: {answer}", choice=answer, input_tokens=tokens, output_tokens=5)


def wave(
    script: Callable[[TurnRequest], TurnReply],
    vote: VoteConfig | None = None,
    form: Form = "scored",
    **protocol: object,
) -> tuple[Wave, Scripted]:
    config = DebateConfig(
        agents=tuple(AgentConfig(name=name) for name in NAMES),
        protocol=ProtocolConfig(**protocol),  # type: ignore[arg-type] # as in YAML
        vote=vote or VoteConfig(),
    )
    fake = Scripted(script)
    return Wave(Setting(config, Panel(dict.fromkeys(NAMES, fake)), [form] * 3), "test-001", QUESTIONS), fake


def debated(the_wave: Wave) -> Wave:
    while the_wave.open:
        the_wave.speak()
    the_wave.judge()
    return the_wave


def split_on_first(request: TurnRequest) -> TurnReply:
    """All say yes, but ann says no to q0 at first."""
    return said(
        "no" if request.agent == "ann" and request.id.startswith("q0") and len(request.messages) == 1 else "yes"
    )


def test_only_questions_on_which_they_differ_are_asked_again() -> None:
    the_wave, fake = wave(split_on_first, rounds=3)
    debated(the_wave)
    assert [len(call) for call in fake.calls] == [6, 3]
    assert [len(the_wave.rounds[q.id]) for q in QUESTIONS] == [2, 1]
    assert {request.id.split("/")[0] for request in fake.calls[1]} == {"q0"}


def test_every_turn_has_a_name_and_a_seed_of_its_own() -> None:
    the_wave, fake = wave(lambda request: said("no" if request.agent == "ann" else "yes"), rounds=2)
    debated(the_wave).control("bob")
    assert len({turn_request.id for turn_request in fake.asked}) == len(fake.asked)
    assert len({turn_request.seed for turn_request in fake.asked}) == len(fake.asked)


def test_the_length_control_speaks_as_often_as_the_debate_did() -> None:
    the_wave, _ = wave(split_on_first, rounds=3)
    debated(the_wave).control("bob")
    length = [turn for turn in the_wave.turns if turn.arm == "length"]
    assert {turn.question for turn in length} == {"q0"}
    assert [turn.round for turn in length] == [1, 1, 1]


def test_the_best_agent_is_asked_alone_until_it_has_spent_what_the_debate_did() -> None:
    the_wave, fake = wave(split_on_first, rounds=3)
    debated(the_wave).control("bob")
    for question, tokens in (("q0", 90), ("q1", 45)):
        samples = [turn for turn in the_wave.turns if turn.arm == "samples" and turn.question == question]
        assert sum(turn.tokens for turn in samples) == tokens
        assert {turn.agent for turn in samples} == {"bob"}
        assert [turn.sample for turn in samples] == list(range(len(samples)))
    assert {request.temperature for request in fake.asked if "/samples/" in request.id} == {0.7}
    assert all(len(request.messages) == 1 for request in fake.asked if "/samples/" in request.id)


def test_what_the_judge_took_is_the_samples_to_spend_as_well() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if "/judge/" in request.id:
            return TurnReply(choice="A", input_tokens=15)
        return said("no" if request.agent == "ann" else "yes")

    the_wave, _ = wave(script, VoteConfig(rule="judge"), rounds=1, judge="cat")
    debated(the_wave).control("bob")
    samples = [turn for turn in the_wave.turns if turn.arm == "samples" and turn.question == "q0"]
    assert sum(turn.tokens for turn in samples) == 2 * 3 * 15 + 2 * 15


def test_samples_end_at_their_limit() -> None:
    the_wave, _ = wave(lambda request: said("yes" if request.agent == "ann" else "no"), VoteConfig(samples=4), rounds=4)
    debated(the_wave).control("ann")
    assert sum(turn.arm == "samples" for turn in the_wave.turns) == 8


def test_a_turn_that_fails_harms_no_other() -> None:
    the_wave, _ = wave(
        lambda request: TurnReply(error="LLMTimeoutError: silent") if request.agent == "bob" else said("yes")
    )
    debated(the_wave)
    assert [turn.error for turn in the_wave.rounds["q0"][0]] == ["", "LLMTimeoutError: silent", ""]
    assert [turn.answer for turn in the_wave.rounds["q0"][-1]] == ["yes", None, "yes"]
    assert len(the_wave.rounds["q0"]) == 2


def test_a_chat_that_does_not_fit_is_asked_again_with_less() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if request.agent == "cat" and len(request.messages) > 1 and not request.id.endswith("brief"):
            return TurnReply(error="too long", overflow=True)
        return said("no" if request.agent == "ann" else "yes")

    the_wave, fake = wave(script, rounds=1)
    debated(the_wave)
    assert [len(call) for call in fake.calls] == [6, 6, 2]
    assert the_wave.rounds["q0"][1][2].answer == "yes"


def test_the_judge_sees_both_orders_and_one_who_prefers_a_place_finds_no_difference() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if "/judge/" in request.id:
            return TurnReply(choice="A", input_tokens=7)
        return said("no" if request.agent == "ann" else "yes")

    the_wave, fake = wave(script, judge="cat", rounds=1)
    debated(the_wave)
    assert [len(call) for call in fake.calls] == [6, 6, 4]
    assert [(entry.round, entry.answer, entry.input_tokens) for entry in the_wave.ballots] == [(1, "no", 14)] * 2
    assert all(entry.max_tokens == 0 for entry in fake.calls[-1])


def test_who_cannot_follow_a_schema_is_asked_again_in_words_and_then_at_once() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if request.agent == "bob" and request.schema is not None:
            return TurnReply(error="SchemaError: no JSON", formless=True)
        return said("no" if request.agent == "ann" else "yes")

    the_wave, fake = wave(script, form="json", rounds=1)
    debated(the_wave)
    assert [len(call) for call in fake.calls] == [6, 2, 6]
    assert all(turn_request.id.endswith("/words") == (turn_request.agent == "bob") for turn_request in fake.calls[2])
    assert not any(turn.error for turn in the_wave.turns)
    assert (the_wave.transcript.worded, the_wave.transcript.shortened) == (2, 0)


def test_a_judge_whose_context_is_too_small_compares_the_answers_alone() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if "/judge/" in request.id:
            return (
                TurnReply(choice="A") if request.id.endswith("/brief") else TurnReply(error="too long", overflow=True)
            )
        return said("no" if request.agent == "ann" else "yes")

    the_wave, fake = wave(script, judge="cat", rounds=1)
    debated(the_wave)
    assert "Because" not in fake.calls[-1][0].messages[-1].content
    assert [(ballot.asked, ballot.unread, ballot.error) for ballot in the_wave.ballots] == [(2, 0, "")] * 2


def test_what_the_judge_said_is_kept_and_what_named_no_answer_is_counted() -> None:
    def script(request: TurnRequest) -> TurnReply:
        if "/judge/" in request.id:
            return TurnReply("Neither!") if request.id.endswith("/1") else TurnReply(error="LLMTimeoutError: silent")
        return said("no" if request.agent == "ann" else "yes")

    the_wave, _ = wave(script, judge="cat", rounds=1)
    debated(the_wave)
    (first, _) = the_wave.ballots
    assert (first.agent, first.asked, first.unread, first.answer) == ("cat", 2, 2, "no")
    assert (first.text, first.error) == ("Neither!\n(nothing)", "LLMTimeoutError: silent")
