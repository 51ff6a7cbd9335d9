"""What language models did, told from events: who was asked, what was usable, what won, what it cost."""

from typing import Any

from agentlab.llm.types import Usage
from agentlab.nas.study import TERMS
from agentlab.runs.events import Event
from agentlab.study.calls import ModelRow, Planner, model_rows, totals

PRICED = Usage(10, 2, 0.5)
UNKNOWN = Usage(10, 2, None)


class Story:
    """Writes events the way the router and the steps do."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, type_: str, id_: str, **data: Any) -> "Story":
        self.events.append(Event(len(self.events), 0.0, type_, id_, data))
        return self

    def called(
        self, model: str, *failed: str, task: str = "nas.propose", usage: Usage = PRICED, ok: bool = True
    ) -> "Story":
        """A call that `failed` models could not answer before `model` did, or did not (`ok` false)."""
        tried = [(name, "LLMTimeoutError", Usage()) for name in failed] + [
            (model, None if ok else "SchemaError", usage)
        ]
        attempts = [
            {"model": name, "error": error, "message": "", "usage": _plain(attempt_usage)}
            for name, error, attempt_usage in tried
        ]
        error = None if ok else {"kind": "AllModelsFailedError"}
        data = {"task": task, "model": model if ok else "", "attempts": attempts, "usage": _plain(usage)}
        return self.add("llm.called", f"call {len(self.events)}", **data, error=error)

    def proposed(self, name: str, source: str, arm: str = "agent") -> "Story":
        """A trial; `alone` is the arm of a study in which no model could have proposed it."""
        probability = 0.0 if arm in ("shared", "alone") else 0.5
        assignment = {"arm": "control" if arm == "alone" else arm, "probability": probability}
        return self.add("trial.proposed", name, number=0, params={}, source=source, note="", **assignment)

    def judged(self, name: str, accepted: bool) -> "Story":
        return self.add("decision.made", name, accepted=accepted, reason="", by="rule")


def _plain(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }


def rows(story: Story) -> dict[tuple[str, str], ModelRow]:
    return {(row.model, row.task): row for row in model_rows(story.events, TERMS)}


def test_an_opinion_is_held_against_the_trainings_that_followed() -> None:
    """The first training is no witness: it was looked at before the question. A study beside the main one counts."""

    def asked(story: Story, name: str, lasts: bool, *repeat_values: float | None) -> None:
        story.add("trial.finished", name, value=0.45, metrics={})
        story.called("judge", task="nas.evaluate")
        story.add("repeat.wanted", name, count=1, reason="", opinion={"model": "judge", "lasts": lasts, "beat": 0.5})
        for turn, value in enumerate(repeat_values, 1):
            kind = "failed" if value is None else "finished"
            story.add(f"trial.{kind}", f"{name}-r{turn}", value=value, error="", metrics={})

    story = Story()
    asked(story, "run_0001", True, 0.48, 0.49)
    asked(story, "run_0002", False, 0.4)
    asked(story, "agent-1/run_0001", False, 0.52)
    asked(story, "run_0003", False, None)  # nothing has tested it
    story.add("repeat.wanted", "run_0004", count=1, reason="", by="rule")  # of an earlier version
    row = rows(story)["judge", "nas.evaluate"]
    assert (row.calls, row.checked, row.agreed) == (4, 3, 2)


def shared() -> Story:
    return Story().proposed("run_0000", "default", "shared").judged("run_0000", True)


def test_a_model_is_credited_with_the_trials_that_its_proposals_became() -> None:
    story = shared().called("a").proposed("run_0001", "llm").judged("run_0001", True)
    story.proposed("run_0002", "gp", "control").judged("run_0002", True)
    story.called("a").proposed("run_0003", "llm").judged("run_0003", False)
    story.proposed("run_0004", "gp", "control").judged("run_0004", False)
    (row,) = rows(story).values()
    assert (row.calls, row.answered, row.usable, row.accepted) == (2, 2, 2, 1)
    assert row.share == 0.5  # two of the four after the first
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (20, 4, 1.0)


def test_an_answer_that_became_no_trial_was_not_usable() -> None:
    story = shared().called("a").proposed("run_0001", "llm->gp").judged("run_0001", True)
    (row,) = rows(story).values()
    assert (row.calls, row.answered, row.usable, row.share, row.accepted) == (1, 1, 0, 0.0, 0)


def test_what_a_person_edited_is_not_the_models_trial() -> None:
    story = shared().called("a").proposed("run_0001", "human").judged("run_0001", True)
    assert rows(story)["a", "nas.propose"].usable == 0


def test_a_refused_proposal_leaves_its_call_unusable() -> None:
    story = shared().called("a").add("proposal.refused", "refused_0000", params={}, source="llm", note="")
    story.called("b").proposed("run_0001", "llm").judged("run_0001", False)
    call_rows = rows(story)
    assert call_rows["a", "nas.propose"].usable == 0
    assert call_rows["b", "nas.propose"].usable == 1


def test_a_call_that_failed_was_neither_answered_nor_usable() -> None:
    story = shared().called("a", ok=False).proposed("run_0001", "llm->gp")
    (row,) = rows(story).values()
    assert (row.calls, row.answered, row.usable) == (1, 0, 0)


def test_a_stand_in_gets_the_credit_and_the_model_before_it_the_call() -> None:
    story = shared().called("b", "a").proposed("run_0001", "llm").judged("run_0001", True)
    call_rows = rows(story)
    first, second = call_rows["a", "nas.propose"], call_rows["b", "nas.propose"]
    assert (first.calls, first.answered, first.usable, first.accepted) == (1, 0, 0, 0)
    assert (second.calls, second.answered, second.usable, second.accepted) == (1, 1, 1, 1)
    assert list(call_rows) == [("a", "nas.propose"), ("b", "nas.propose")]  # in order of appearance


def test_a_trial_of_the_optimiser_is_not_credited_to_an_earlier_call() -> None:
    """The call's own proposal came between; a later `llm` trial without a call is nobody's."""
    story = shared().called("a").proposed("run_0001", "llm->gp").proposed("run_0002", "llm")
    assert rows(story)["a", "nas.propose"].usable == 0


def test_a_kill_between_call_and_proposal_loses_no_credit() -> None:
    story = shared().called("a").add("run.resumed", "").add("study.opened", "").proposed("run_0001", "llm")
    assert rows(story)["a", "nas.propose"].usable == 1


def test_every_judgement_is_usable_and_proposes_nothing() -> None:
    story = shared().called("a").proposed("run_0001", "llm")
    story.called("a", task="nas.evaluate").called("a", task="nas.evaluate", ok=False)
    row = rows(story)["a", "nas.evaluate"]
    assert (row.calls, row.answered, row.usable, row.share, row.accepted) == (2, 1, 1, None, None)


def test_cost_is_counted_per_model_and_an_unknown_one_stays_unknown() -> None:
    story = shared().called("free", usage=UNKNOWN).proposed("run_0001", "llm")
    story.called("paid").proposed("run_0002", "llm").called("paid").proposed("run_0003", "llm")
    call_rows = rows(story)
    assert call_rows["free", "nas.propose"].cost_usd is None
    assert call_rows["free", "nas.propose"].input_tokens == 10
    assert call_rows["paid", "nas.propose"].cost_usd == 1.0


def test_studies_beside_the_main_one_count_and_keep_their_trials_apart() -> None:
    story = shared().called("a").proposed("run_0001", "llm").judged("run_0001", False)
    story.proposed("agent-1/run_0000", "default", "shared")
    story.called("a").proposed("agent-1/run_0001", "llm").judged("agent-1/run_0001", True)
    (row,) = rows(story).values()
    assert (row.usable, row.share, row.accepted) == (2, 1.0, 1)


def test_trials_that_no_model_could_have_proposed_do_not_lower_its_share() -> None:
    story = shared().called("a").proposed("run_0001", "llm").proposed("run_0002", "gp", "control")
    for number in range(3):
        story.proposed(f"control-0/run_{number:04d}", "gp", "alone")
    assert rows(story)["a", "nas.propose"].share == 0.5


def test_nobody_was_asked() -> None:
    assert model_rows(shared().events, TERMS) == []
    assert totals([], Usage()) == Planner(calls=0, answered=0, input_tokens=0, output_tokens=0, cost_usd=0.0)


def test_totals_count_calls_and_keep_an_unknown_cost_unknown() -> None:
    story = Story().called("a").called("a", ok=False)
    total = totals(story.events, Usage(input_tokens=5, output_tokens=1, cost_usd=None))
    assert (total.calls, total.answered, total.input_tokens, total.cost_usd) == (2, 1, 5, None)
