"""A study is what its events say: whatever was in memory when the process died does not matter."""

from typing import Any

from agentlab.nas.state import agent_state, rebuild, run_id
from agentlab.runs.events import Event


class Story:
    """Writes events the way the steps do."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, type_: str, id_: str = "", **data: Any) -> "Story":
        self.events.append(Event(len(self.events), 0.0, type_, id_, data))
        return self

    def proposed(self, number: int, arm: str = "control", **params: Any) -> "Story":
        fields = {"source": "gp", "note": "", "arm": arm, "probability": 0.5}
        return self.add("trial.proposed", run_id(number), number=number, params=params, **fields)

    def finished(self, number: int, value: float) -> "Story":
        return self.add("trial.finished", run_id(number), value=value, metrics={"parameters": 10})

    def failed(self, number: int) -> "Story":
        return self.add("trial.failed", run_id(number), error="out of memory", metrics={})

    def judged(self, number: int, accepted: bool) -> "Story":
        return self.add(
            "decision.made", run_id(number), accepted=accepted, reason="r", by="rule", val_mse=None, source=""
        )


def test_nothing_happened_yet() -> None:
    state = rebuild([])
    assert (state.best, state.lowest, state.unfinished, state.history) == (None, None, None, [])


def test_a_trial_is_history_only_when_it_was_judged() -> None:
    story = Story().proposed(0).finished(0, 0.5).judged(0, True).proposed(1).finished(1, 0.4)
    state = rebuild(story.events)
    assert [trial.number for trial in state.history] == [0]
    assert state.unfinished is not None
    assert state.unfinished.number == 1
    assert state.lowest == 0.5


def test_best_is_the_last_accepted_not_the_lowest() -> None:
    story = Story().proposed(0).finished(0, 0.5).judged(0, True).proposed(1).finished(1, 0.499).judged(1, False)
    best = rebuild(story.events).best
    assert best is not None
    assert best.id == "run_0000"


def test_a_step_repeated_after_a_kill_counts_once() -> None:
    once = Story().proposed(0, lr=1).finished(0, 0.5).judged(0, True)
    twice = Story().proposed(0, lr=1).finished(0, 0.5).finished(0, 0.5).judged(0, True).judged(0, True)
    assert rebuild(once.events) == rebuild(twice.events)


def test_agent_state_hides_test_figures_of_all_but_the_winner() -> None:
    story = Story().proposed(0).finished(0, 0.5).judged(0, True).proposed(1).failed(1).judged(1, False)
    story.proposed(2).finished(2, 0.3).judged(2, True).add("winner.scored", run_id(2), mse=0.35, mae=0.4)
    stored = agent_state(rebuild(story.events))
    assert stored["best_run_id"] == "run_0002"
    assert [run["test_mse"] for run in stored["runs"]] == [None, None, 0.35]
    assert [run["val_mse"] for run in stored["runs"]] == [0.5, None, 0.3]
    assert stored["runs"][1]["error"] == "out of memory"


def test_a_score_of_an_earlier_winner_is_not_shown_for_the_new_one() -> None:
    story = Story().proposed(0).finished(0, 0.5).judged(0, True).add("winner.scored", run_id(0), mse=0.6, mae=0.4)
    story.proposed(1).finished(1, 0.3).judged(1, True)
    assert [run["test_mse"] for run in agent_state(rebuild(story.events))["runs"]] == [None, None]
