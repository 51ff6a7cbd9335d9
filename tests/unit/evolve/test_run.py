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
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("evolve"))


@pytest.fixture(scope="module")
def full_run(root: Path) -> tuple[EvolveResult, list[Event]]:
    with new_run(root, "whole") as run:
        return scripted(root).run(run)[0], run.events


def told(events: Sequence[Event]) -> list[Any]:
    """What a run came to, without what passes: times, sessions."""
    passing = ("run.", "study.opened", "trial.started")
    event_data = {(e.type, e.id): without_seconds(e.data) for e in events if not e.type.startswith(passing)}
    return sorted(event_data.items(), key=str)


def without_seconds(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: without_seconds(value) for key, value in data.items() if key != "seconds"}
    return data


def test_a_kill_between_any_two_events_changes_nothing(root: Path) -> None:
    few = {"population": 4, "tasks": {"file": "quiz.jsonl", "train": 10, "test": 8}, "max_items": 60}
    experiment = scripted(root, **few)
    with new_run(root, "short") as run:
        full_run, events = experiment.run(run)[0], run.events
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for line_count in range(1, len(lines)):
        new_run(root, "cut").close()
        (root / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        with OpenRun.resume(root / "runs" / "cut", RunEnvironment()) as cut:
            result, _ = experiment.run(cut)
            assert told(cut.events) == told(events), f"cut after {lines[line_count - 1]!r}"
        assert result == full_run
        shutil.rmtree(root / "runs" / "cut")


@pytest.mark.parametrize("last", ["split.scored", "split.opened"])
def test_a_run_of_an_earlier_version_goes_on_with_what_it_knows(root: Path, last: str) -> None:
    """It kept no likelihoods of choices: what it had sealed questions marked by is the mean alone."""
    few = {"population": 4, "tasks": {"file": "quiz.jsonl", "train": 10, "test": 8}, "max_items": 60}
    with new_run(root, f"new-{last}") as run:
        full_run, _ = scripted(root, **few).run(run)
        lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    for event in lines:
        if event["type"] == "split.scored":  # green is right, the second choice
            rows = event["data"]["choices"].items()
            event["data"]["marks"] = {
                name: [int(Scored(*entry).likeliest_index() == 1) for entry in row] for name, row in rows
            }
        for data in (
            event["data"],
            *(entry.get("metrics", {}) for entry in event["data"].values() if type(entry) is dict),
        ):
            data.pop("choices", None)
    cut = next(n for n, event in enumerate(lines) if event["type"] == last) + 1
    new_run(root, f"old-{last}").close()
    text = "".join(f"{json.dumps(event)}\n" for event in lines[:cut])
    (root / "runs" / f"old-{last}" / "events.jsonl").write_text(text)
    with OpenRun.resume(root / "runs" / f"old-{last}", RunEnvironment()) as old:
        result, _ = scripted(root, **few).run(old)
    if last == "split.opened":
        assert result == full_run
    else:
        assert [list(entry.tests) for entry in result.standings] == [["mean"]] * 5
        assert [entry.test for entry in result.standings] == [entry.test for entry in full_run.standings]
        assert (result.control, result.sentence) == (full_run.control, full_run.sentence)
        assert {
            row[list(standing_table(result).columns).index("test, by sum")] for row in standing_table(result).rows
        } == {"–"}


def test_mean_and_sum_stand_side_by_side_and_where_they_disagree_it_is_said(root: Path) -> None:
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

    experiment = scripted(root)
    object.__setattr__(experiment, "_answers", lambda _: nullcontext(Wordy()))
    with new_run(root, "wordy") as run:
        result, _ = experiment.run(run)
        run.write_report(run.manifest)
    evolved, parent = result.standings[0], next(standing for standing in result.standings if standing.name == PARENT)
    assert evolved.tests["mean"] == evolved.test
    assert evolved.tests["sum"].value < parent.tests["sum"].value < evolved.test.value
    assert parent.gains["mean"] == parent.gain
    assert parent.gains["sum"].value < 0 < parent.gains["mean"].value
    assert set(result.controls) == {"mean", "sum", "byte"}
    assert any(
        remark.startswith(f"The evolved adapter {evolved.what} against the best parent: +") for remark in result.remarks
    )
    page = (run.path / "report.md").read_text()
    assert "The sign depends on how choices are scored." in page
    assert "log-probability of its tokens decides" in page


def test_the_sealed_split_is_opened_after_all_winners_are_named(full_run: tuple[EvolveResult, list[Event]]) -> None:
    types = [event.type for event in full_run[1]]
    assert types.count("split.opened") == types.count("split.scored") == 1
    assert max(root for root, kind in enumerate(types) if kind == "trial.proposed") < types.index("split.opened")


def test_everything_that_happens_can_be_told_while_it_happens(full_run: tuple[EvolveResult, list[Event]]) -> None:
    lines = [narration.line for event in full_run[1] if (narration := narrate(event)) and narration.line]
    assert lines[-2:] == ["  all winners are chosen; opening the sealed split", "  scored the sealed questions"]


def test_the_winner_stands_beside_its_controls(full_run: tuple[EvolveResult, list[Event]]) -> None:
    result, _ = full_run
    assert [standing.name for standing in result.standings] == [EVOLVED, RANDOM, PARENT, "blend", "base"]
    assert result.standings[0].gain is None
    assert result.control.verdict in ("no_measurable_help", "hurt")  # a single search may not say that it helped
    assert "sealed questions" in result.sentence
    assert result.sentence.endswith("--control full repeats both searches.")


def test_both_searches_spend_alike_and_the_known_are_not_asked_again(root: Path) -> None:
    with new_run(root, "spent") as run:
        scripted(root).run(run)
        measured = [(event.id.rpartition("/")[0], results(event).values()) for event in run.events]
    totals = dict.fromkeys(("", "random-0"), 0)
    for search, trials in measured:
        totals[search] = totals.get(search, 0) + sum(trial.metrics["items"] for trial in trials)
    assert all(200 - 16 < items <= 200 for items in totals.values())


def test_losers_stop_early_and_are_charged_what_they_were_asked(full_run: tuple[EvolveResult, list[Event]]) -> None:
    result, _ = full_run
    item_counts = {child.items for child in result.trials}
    assert item_counts == {8, 16}
    assert all(child.generation > 0 for child in result.trials if child.items == 8)
    assert result.items == sum(child.items for child in result.trials)


def test_the_real_model_gives_the_same_bits_after_a_kill(root: Path) -> None:
    few = {"max_items": 200, "tasks": {"file": "quiz.jsonl", "train": 8, "test": 8}, "race": {"first": 99}}
    with new_run(root, "real") as run:
        expected = prepared(root, **few).run(run)[0]
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
        events = told(run.events)
    batch = next(n for n, line in enumerate(lines) if b'"batch.finished"' in line)
    for line_count in (batch, batch + 4, len(lines) - 2):
        new_run(root, f"real-{line_count}").close()
        (root / "runs" / f"real-{line_count}" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        with OpenRun.resume(root / "runs" / f"real-{line_count}", RunEnvironment()) as cut:
            result, _ = prepared(root, resumes=cut.path, **few).run(cut)
            assert told(cut.events) == events
        assert result == expected


@pytest.mark.parametrize("free_kib", [24, 48, 72])
def test_a_full_disk_stops_it_and_it_goes_on_where_there_is_room(
    root: Path, tmp_path: Path, full_run: tuple[EvolveResult, list[Event]], free_kib: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        run = OpenRun.create(disk, RunSpec("evolve", "", "", "h", 0, name="full"), RunEnvironment())
        with (disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (4 << 20) - (free_kib << 10))
        with run, pytest.raises(StorageError, match="full") as caught:
            scripted(root).run(run)
        assert caught.value.exit_code == 3
        (disk / "ballast").unlink()
        with OpenRun.resume(disk / "full", RunEnvironment()) as resumed_run:
            result, _ = scripted(root).run(resumed_run)
            assert told(resumed_run.events) == told(full_run[1])
        assert result == full_run[0]
        lineage = [(folder / "lineage.json").read_bytes() for folder in (disk / "full", root / "runs" / "whole")]
        assert lineage[0] == lineage[1]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_opened_split_cannot_be_searched_on(root: Path, full_run: tuple[EvolveResult, list[Event]]) -> None:
    with pytest.raises(UsageError, match="This run's sealed split has been opened"):
        prepared(root, resumes=root / "runs" / "whole", max_items=400)


def test_other_questions_are_refused(root: Path, full_run: tuple[EvolveResult, list[Event]]) -> None:
    lines = (root / "quiz.jsonl").read_text()
    try:
        (root / "quiz.jsonl").write_text(lines.replace("hue 3?", "hue three?"))
        with pytest.raises(RunMismatchError, match="The questions have changed since"):
            prepared(root, resumes=root / "runs" / "whole")
    finally:
        (root / "quiz.jsonl").write_text(lines)


def test_missing_parents_are_told_with_what_makes_them(root: Path) -> None:
    with pytest.raises(MissingFileError, match="no adapter named 'three'") as error:
        prepared(root, parents=["one", "three"])
    assert "make personas" in str(error.value.hint)


def test_questions_without_labels_are_refused(root: Path) -> None:
    (root / "bare.jsonl").write_text('{"question": "What is 2 + 2?", "answer": 4}\n' * 1)
    with pytest.raises(DataError, match="questions without choices or without an answer: line-1"):
        prepared(root, tasks={"file": "bare.jsonl", "train": 8, "test": 8})


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
ODD: dict[str, tuple[str, Any]] = {  # what is wrong with a parent, in its config, card or tensors
    "(?i)dora": ("adapter_config.json", {"use_dora": True}),
    "the fingerprints differ": ("card.json", {"base": {"fingerprint": "sha256:0"}}),
    "q_proj is .* in another adapter": (f"{QUERY}A.weight", lambda factor: factor[:, 1:].contiguous()),
    "has factors of rank . and .,": (f"{QUERY}A.weight", lambda factor: factor[1:].contiguous()),
    "names another/model as its base model": ("adapter_config.json", {"base_model_name_or_path": "another/model"}),
    "have values up to 1e.30": (f"{QUERY}B.weight", lambda factor: factor * 0 + 1e30),
    "infinite or NaN values": (f"{QUERY}B.weight", lambda factor: factor / 0),
}


@pytest.mark.parametrize("message", ODD)
def test_parents_that_cannot_be_bred_are_refused(root: Path, message: str) -> None:
    odd, (name, change) = root / "adapters" / "odd", ODD[message]
    shutil.copytree(root / "adapters" / "one", odd)
    if name.endswith(".json"):
        content = json.loads((odd / name).read_text()) if (odd / name).is_file() else {}
        (odd / name).write_text(json.dumps({**content, **change}))
    else:
        tensors = load_file(odd / "adapter_model.safetensors")
        save_file({**tensors, name: change(tensors[name])}, odd / "adapter_model.safetensors")
    try:
        with pytest.raises((UsageError, DataError, ModelFileError), match=message):
            prepared(root, parents=["one", "odd"])
    finally:
        shutil.rmtree(odd)


def test_parents_of_other_ranks_are_welcome(root: Path) -> None:
    with Adapter(root / "adapters" / "one") as adapter:
        changes = {name: concatenate([adapter.delta(name)] * 2, (0.5, 0.5)) for name in adapter.modules}
    write_folder(
        root / "adapters" / "wide", changes, target_modules=list(changes), base_model_name_or_path="elsewhere/Llama"
    )
    assert prepared(root, parents=["one", "wide"]).genome.parents == ("one", "wide")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nope", "the line is not JSON"),
        ("", "contains no questions"),
        ('{"question": "a?", "choices": ["x", "y"], "answer": "z"}', "the answer 'z' is neither a choice"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(root: Path, text: str, message: str) -> None:
    (root / "wrong.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        prepared(root, tasks={"file": "wrong.jsonl", "train": 8, "test": 8})


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_fitness_that_is_no_number_is_a_failed_child(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    from tests.unit.evolve.small import Planted

    full_run = Planted._chances

    def chances(self: Planted, child: Any, question: Any) -> list[float]:
        return [broken] * 3 if next(iter(child.params.values())) == 1.0 else full_run(self, child, question)

    monkeypatch.setattr(Planted, "_chances", chances)
    with new_run(root, f"broken-{broken}") as run:
        result, _ = scripted(root).run(run)
    assert result.trials[0].failed.startswith("the objective returned")
    assert {standing.what for standing in result.standings if standing.name == PARENT} == {"run_0001 (two)"}


def test_full_control_repeats_both_searches_over_seeds(root: Path) -> None:
    tasks = {"file": "quiz.jsonl", "train": 10, "test": 8}
    few = {"population": 4, "tasks": tasks, "max_items": 60, "race": {"first": 99}}
    with new_run(root, "full") as run:
        result, outcome = scripted(root, control="full", control_seeds=6, **few).run(run)
        studies = {event.id.partition("/")[0] for event in run.events if "/" in event.id}
    assert studies == {"random-0", *(f"{kind}-{n}" for kind in ("evolve", "random") for n in range(1, 6))}
    assert [pair.seed for pair in result.pairs] == list(range(6))
    assert (result.control.n, result.control.level) == (6, 0.95)
    assert "on 6 pairs of searches" in result.sentence
    assert outcome.control == result.control
    (opened,) = [event for event in run.events if event.type == "split.opened"]
    assert len(opened.data["named"]) == 2 * 6 + 3


def test_a_language_model_proposes_half_and_is_held_against_the_algorithm(root: Path) -> None:
    llm = {
        "providers": {"script": {"kind": "scripted", "mode": "first"}},
        "models": {"clerk": {"provider": "script", "id": "c", "tier": "pick", "price": {"input": 0, "output": 0}}},
        "roles": {"primary": ["clerk"]},
    }
    with new_run(root, "llm") as run:
        result, _ = scripted(root, llm=llm, max_items=400).run(run)
    bred = [child for child in result.trials if child.arm != "shared"]
    assert {child.arm for child in bred} == {"agent", "control"}
    assert result.agent is not None
    assert result.models[0].task == "evolve.propose"
    assert result.agent_note
    assert not [event for event in run.events if event.type == "llm.called" and "/" in event.id]  # nor in the control


@pytest.mark.parametrize(("source", "parents"), [("ga", [3, 7]), ("llm", []), ("llm->ga", []), ("human", [])])
def test_only_the_algorithm_says_who_the_parents_are(root: Path, source: str, parents: list[int]) -> None:
    """A language model's reason may say what it likes."""
    experiment = scripted(root, algorithm="ga")
    trial = TrialState(9, Proposal({}, source, "crossover of trials 3 and 7"), "agent", 0.5)
    assert _bred_from(trial, experiment.config, experiment.genome) == parents
