"""A whole evolution: the same generations after a kill at any event, sealed questions opened once and last."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from agentlab.answers.choices import Scored
from agentlab.errors import DataError, MissingFileError, ModelFileError, RunMismatchError, StorageError, UsageError
from agentlab.evolve.genome import PARENT
from agentlab.evolve.result import EVOLVED, RANDOM, EvolveResult, narrate, standing_table
from agentlab.evolve.verdict import _bred_from
from agentlab.lora.blend import concatenate
from agentlab.lora.reading import Adapter
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.types import Proposal
from agentlab.study.events import results
from agentlab.study.state import TrialState
from tests.unit.evolve.small import Planted, new_run, prepared, scripted, workspace
from tests.unit.lora.folders import write_folder

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("evolve"))


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[EvolveResult, list[Event]]:
    with new_run(place, "whole") as run:
        return scripted(place).run(run)[0], run.events


def told(events: Sequence[Event]) -> list[Any]:
    """What a run came to, without what passes: times, sessions."""
    passing = ("run.", "study.opened", "trial.started")
    found = {(e.type, e.id): without_seconds(e.data) for e in events if not e.type.startswith(passing)}
    return sorted(found.items(), key=str)


def without_seconds(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: without_seconds(value) for key, value in data.items() if key != "seconds"}
    return data


def test_a_kill_between_any_two_events_changes_nothing(place: Path) -> None:
    few = {"population": 4, "tasks": {"file": "quiz.jsonl", "train": 10, "test": 8}, "max_items": 60}
    experiment = scripted(place, **few)
    with new_run(place, "short") as run:
        whole, events = experiment.run(run)[0], run.events
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        new_run(place, "cut").close()
        (place / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[:kept]))
        with OpenRun.resume(place / "runs" / "cut", RunEnvironment()) as cut:
            result, _ = experiment.run(cut)
            assert told(cut.events) == told(events), f"cut after {lines[kept - 1]!r}"
        assert result == whole
        shutil.rmtree(place / "runs" / "cut")


@pytest.mark.parametrize("last", ["split.scored", "split.opened"])
def test_a_run_of_an_earlier_version_goes_on_with_what_it_knows(place: Path, last: str) -> None:
    """It kept no likelihoods of choices: what it had sealed questions marked by is the mean alone."""
    few = {"population": 4, "tasks": {"file": "quiz.jsonl", "train": 10, "test": 8}, "max_items": 60}
    with new_run(place, f"new-{last}") as run:
        whole, _ = scripted(place, **few).run(run)
        lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    for event in lines:
        if event["type"] == "split.scored":  # green is right, the second choice
            rows = event["data"]["choices"].items()
            event["data"]["marks"] = {
                name: [int(Scored(*each).likeliest_index() == 1) for each in row] for name, row in rows
            }
        for data in (
            event["data"],
            *(each.get("metrics", {}) for each in event["data"].values() if type(each) is dict),
        ):
            data.pop("choices", None)
    cut = next(n for n, event in enumerate(lines) if event["type"] == last) + 1
    new_run(place, f"old-{last}").close()
    text = "".join(f"{json.dumps(event)}\n" for event in lines[:cut])
    (place / "runs" / f"old-{last}" / "events.jsonl").write_text(text)
    with OpenRun.resume(place / "runs" / f"old-{last}", RunEnvironment()) as old:
        result, _ = scripted(place, **few).run(old)
    if last == "split.opened":
        assert result == whole
    else:
        assert [list(each.tests) for each in result.standings] == [["mean"]] * 5
        assert [each.test for each in result.standings] == [each.test for each in whole.standings]
        assert (result.control, result.sentence) == (whole.control, whole.sentence)
        assert {row[list(standing_table(result).columns).index("by sum")] for row in standing_table(result).rows} == {
            "–"
        }


def test_mean_and_sum_stand_side_by_side_and_where_they_disagree_it_is_said(place: Path) -> None:
    """Children that answer at length are right by mean alone."""

    class Wordy(Planted):
        def _scored(self, child: Any, question: Any) -> Scored:
            scored, long = super()._scored(child, question), max(child.params.values()) not in (0.0, 1.0)
            right = scored.totals[1]
            return (
                scored._replace(totals=(scored.totals[0], 40 * right, scored.totals[2]), tokens=(1, 40, 1))
                if long
                else scored
            )

    experiment = scripted(place)
    object.__setattr__(experiment, "_answers", lambda _: nullcontext(Wordy()))
    with new_run(place, "wordy") as run:
        result, _ = experiment.run(run)
    evolved, parent = result.standings[0], next(each for each in result.standings if each.name == PARENT)
    assert evolved.tests["mean"] == evolved.test
    assert evolved.tests["sum"].value < parent.tests["sum"].value < evolved.test.value
    assert parent.gains["mean"] == parent.gain
    assert parent.gains["sum"].value < 0 < parent.gains["mean"].value
    assert set(result.controls) == {"mean", "sum", "byte"}
    assert any(
        remark.startswith(f"The evolved adapter {evolved.what} against the best parent: +") for remark in result.remarks
    )
    page = (run.path / "report.md").read_text()
    assert "Who is better depends on how choices are scored." in page
    assert "log-probability of a text's tokens decides" in page


def test_the_sealed_split_is_opened_after_all_winners_are_named(whole: tuple[EvolveResult, list[Event]]) -> None:
    types = [event.type for event in whole[1]]
    assert types.count("split.opened") == types.count("split.scored") == 1
    assert max(place for place, kind in enumerate(types) if kind == "trial.proposed") < types.index("split.opened")


def test_everything_that_happens_can_be_told_while_it_happens(whole: tuple[EvolveResult, list[Event]]) -> None:
    lines = [told.line for event in whole[1] if (told := narrate(event)) and told.line]
    assert lines[-2:] == ["  all winners are named; the sealed split is opened", "  the sealed questions are answered"]


def test_the_winner_stands_beside_its_controls(whole: tuple[EvolveResult, list[Event]]) -> None:
    result, _ = whole
    assert [each.name for each in result.standings] == [EVOLVED, RANDOM, PARENT, "blend", "base"]
    assert result.standings[0].gain is None
    assert result.control.verdict in ("no_measurable_help", "hurt")  # a single search may not say that it helped
    assert "sealed questions" in result.sentence
    assert result.sentence.endswith("--control full repeats both.")


def test_both_searches_spend_alike_and_the_known_are_not_asked_again(place: Path) -> None:
    with new_run(place, "spent") as run:
        scripted(place).run(run)
        measured = [(event.id.rpartition("/")[0], results(event).values()) for event in run.events]
    spent = dict.fromkeys(("", "random-0"), 0)
    for search, ended in measured:
        spent[search] = spent.get(search, 0) + sum(each.metrics["items"] for each in ended)
    assert all(200 - 16 < items <= 200 for items in spent.values())


def test_losers_stop_early_and_are_charged_what_they_were_asked(whole: tuple[EvolveResult, list[Event]]) -> None:
    result, _ = whole
    asked = {child.items for child in result.trials}
    assert asked == {8, 16}
    assert all(child.generation > 0 for child in result.trials if child.items == 8)
    assert result.items == sum(child.items for child in result.trials)


def test_the_real_model_gives_the_same_bits_after_a_kill(place: Path) -> None:
    few = {"max_items": 200, "tasks": {"file": "quiz.jsonl", "train": 8, "test": 8}, "race": {"first": 99}}
    with new_run(place, "real") as run:
        expected = prepared(place, **few).run(run)[0]
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
        events = told(run.events)
    batch = next(n for n, line in enumerate(lines) if b'"batch.finished"' in line)
    for kept in (batch, batch + 4, len(lines) - 2):
        new_run(place, f"real-{kept}").close()
        (place / "runs" / f"real-{kept}" / "events.jsonl").write_bytes(b"".join(lines[:kept]))
        with OpenRun.resume(place / "runs" / f"real-{kept}", RunEnvironment()) as cut:
            found, _ = prepared(place, resumes=cut.path, **few).run(cut)
            assert told(cut.events) == events
        assert found == expected


@pytest.mark.parametrize("left", [24, 48, 72])
def test_a_full_disk_stops_it_and_it_goes_on_where_there_is_room(
    place: Path, tmp_path: Path, whole: tuple[EvolveResult, list[Event]], left: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        run = OpenRun.create(disk, RunSpec("evolve", "", "", "h", 0, name="full"), RunEnvironment())
        with (disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (4 << 20) - (left << 10))
        with run, pytest.raises(StorageError, match="full") as caught:
            scripted(place).run(run)
        assert caught.value.exit_code == 3
        (disk / "ballast").unlink()
        with OpenRun.resume(disk / "full", RunEnvironment()) as again:
            result, _ = scripted(place).run(again)
            assert told(again.events) == told(whole[1])
        assert result == whole[0]
        lineage = [(folder / "lineage.json").read_bytes() for folder in (disk / "full", place / "runs" / "whole")]
        assert lineage[0] == lineage[1]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_opened_split_cannot_be_searched_on(place: Path, whole: tuple[EvolveResult, list[Event]]) -> None:
    with pytest.raises(UsageError, match="The sealed split of this run is open"):
        prepared(place, resumes=place / "runs" / "whole", max_items=400)


def test_other_questions_are_refused(place: Path, whole: tuple[EvolveResult, list[Event]]) -> None:
    lines = (place / "quiz.jsonl").read_text()
    try:
        (place / "quiz.jsonl").write_text(lines.replace("hue 3?", "hue three?"))
        with pytest.raises(RunMismatchError, match="The questions are not what they were"):
            prepared(place, resumes=place / "runs" / "whole")
    finally:
        (place / "quiz.jsonl").write_text(lines)


def test_missing_parents_are_told_with_what_makes_them(place: Path) -> None:
    with pytest.raises(MissingFileError, match="no adapter named 'three'") as error:
        prepared(place, parents=["one", "three"])
    assert "make personas" in str(error.value.hint)


def test_questions_without_labels_are_refused(place: Path) -> None:
    (place / "bare.jsonl").write_text('{"question": "What is 2 + 2?", "answer": 4}\n' * 1)
    with pytest.raises(DataError, match="questions without choices or answer: line-1"):
        prepared(place, tasks={"file": "bare.jsonl", "train": 8, "test": 8})


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
ODD: dict[str, tuple[str, Any]] = {  # what is wrong with a parent, in its config, card or tensors
    "(?i)dora": ("adapter_config.json", {"use_dora": True}),
    "the fingerprints differ": ("card.json", {"base": {"fingerprint": "sha256:0"}}),
    "q_proj is .* in another adapter": (f"{QUERY}A.weight", lambda factor: factor[:, 1:].contiguous()),
    "has factors of rank . and .,": (f"{QUERY}A.weight", lambda factor: factor[1:].contiguous()),
    "names another/model as its base model": ("adapter_config.json", {"base_model_name_or_path": "another/model"}),
    "hold numbers up to 1e.30": (f"{QUERY}B.weight", lambda factor: factor * 0 + 1e30),
    "numbers that are infinite or none": (f"{QUERY}B.weight", lambda factor: factor / 0),
}


@pytest.mark.parametrize("said", ODD)
def test_parents_that_cannot_be_bred_are_refused(place: Path, said: str) -> None:
    other, (what, change) = place / "adapters" / "odd", ODD[said]
    shutil.copytree(place / "adapters" / "one", other)
    if what.endswith(".json"):
        known = json.loads((other / what).read_text()) if (other / what).is_file() else {}
        (other / what).write_text(json.dumps({**known, **change}))
    else:
        tensors = load_file(other / "adapter_model.safetensors")
        save_file({**tensors, what: change(tensors[what])}, other / "adapter_model.safetensors")
    try:
        with pytest.raises((UsageError, DataError, ModelFileError), match=said):
            prepared(place, parents=["one", "odd"])
    finally:
        shutil.rmtree(other)


def test_parents_of_other_ranks_are_welcome(place: Path) -> None:
    with Adapter(place / "adapters" / "one") as adapter:
        changes = {name: concatenate([adapter.delta(name)] * 2, (0.5, 0.5)) for name in adapter.modules}
    write_folder(
        place / "adapters" / "wide", changes, target_modules=list(changes), base_model_name_or_path="elsewhere/Llama"
    )
    assert prepared(place, parents=["one", "wide"]).genome.parents == ("one", "wide")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{nope", "the line is not JSON"),
        ("", "holds no question"),
        ('{"question": "a?", "choices": ["x", "y"], "answer": "z"}', "the answer 'z' is none of the choices"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(place: Path, text: str, said: str) -> None:
    (place / "wrong.jsonl").write_text(text)
    with pytest.raises(DataError, match=said):
        prepared(place, tasks={"file": "wrong.jsonl", "train": 8, "test": 8})


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_fitness_that_is_no_number_is_a_failed_child(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    from tests.unit.evolve.small import Planted

    whole = Planted._chances

    def chances(self: Planted, child: Any, question: Any) -> list[float]:
        return [broken] * 3 if next(iter(child.params.values())) == 1.0 else whole(self, child, question)

    monkeypatch.setattr(Planted, "_chances", chances)
    with new_run(place, f"broken-{broken}") as run:
        result, _ = scripted(place).run(run)
    assert result.trials[0].failed.startswith("the objective returned")
    assert {each.what for each in result.standings if each.name == PARENT} == {"run_0001 (two)"}


def test_full_control_repeats_both_searches_over_seeds(place: Path) -> None:
    tasks = {"file": "quiz.jsonl", "train": 10, "test": 8}
    few = {"population": 4, "tasks": tasks, "max_items": 60, "race": {"first": 99}}
    with new_run(place, "full") as run:
        result, outcome = scripted(place, control="full", control_seeds=6, **few).run(run)
        studies = {event.id.partition("/")[0] for event in run.events if "/" in event.id}
    assert studies == {"random-0", *(f"{kind}-{n}" for kind in ("evolve", "random") for n in range(1, 6))}
    assert [pair.seed for pair in result.pairs] == list(range(6))
    assert (result.control.n, result.control.level) == (6, 0.95)
    assert "on 6 pairs of searches" in result.sentence
    assert outcome.control == result.control
    (opened,) = [event for event in run.events if event.type == "split.opened"]
    assert len(opened.data["named"]) == 2 * 6 + 3


def test_a_language_model_proposes_half_and_is_held_against_the_algorithm(place: Path) -> None:
    llm = {
        "providers": {"script": {"kind": "scripted", "mode": "first"}},
        "models": {"clerk": {"provider": "script", "id": "c", "tier": "pick", "price": {"input": 0, "output": 0}}},
        "roles": {"primary": ["clerk"]},
    }
    with new_run(place, "llm") as run:
        result, _ = scripted(place, llm=llm, max_items=400).run(run)
    bred = [child for child in result.trials if child.arm != "shared"]
    assert {child.arm for child in bred} == {"agent", "control"}
    assert result.agent is not None
    assert result.models[0].task == "evolve.propose"
    assert result.agent_note
    assert not [event for event in run.events if event.type == "llm.called" and "/" in event.id]  # nor in the control


@pytest.mark.parametrize(("source", "parents"), [("ga", [3, 7]), ("llm", []), ("llm->ga", []), ("human", [])])
def test_only_the_algorithm_says_who_the_parents_are(place: Path, source: str, parents: list[int]) -> None:
    """A language model's reason may say what it likes."""
    experiment = scripted(place, algorithm="ga")
    trial = TrialState(9, Proposal({}, source, "crossover of trials 3 and 7"), "agent", 0.5)
    assert _bred_from(trial, experiment.config, experiment.genome) == parents
