"""Two runs against each other: what changed is found, what did not is not, what cannot be compared is refused."""

from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from agentlab.bench.compare.result import CompareResult, figure
from agentlab.bench.compare.runs import compare_runs, verdict_of
from agentlab.bench.load.aggregate import StageFacts, row_of
from agentlab.bench.load.config import SloConfig
from agentlab.bench.load.records import Record, to_lines
from agentlab.bench.load.result import LoadResult
from agentlab.bench.load.schedule import LoadStage
from agentlab.bench.quality.asking import ANSWERS_FILE
from agentlab.bench.quality.result import LEVEL, BenchAnswer, JudgeNote, QualityResult, summarise
from agentlab.bench.result import BenchResult
from agentlab.errors import GateError, RunUnreadableError, UnknownNameError, UsageError
from agentlab.llm.types import Usage
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.stats.control import Interval

LOAD = {"prompt_tokens": 64, "output_tokens": 64, "prefix_cache": False, "faults": {"share": 0.0}}


def write(
    tmp_path: Path, name: str, result: BenchResult, files: dict[str, str], *, load=LOAD, command="llm-bench", done=True
) -> Path:
    spec = RunSpec(command, yaml.safe_dump({"load": load}), "", "h", 0, name=name)
    with OpenRun.create(tmp_path, spec, RunEnvironment()) as run:
        for file, text in files.items():
            run.write_text(file, text)
        run.write_json("result.json", result.model_dump(mode="json"))
        if done:
            run.complete(RunOutcome())
    return tmp_path / name


def record(index: int, first: float, last: float, error: str | None = None) -> Record:
    stamps = array("d", [] if error else [index + first, index + last])
    end = index + last
    return Record(index, float(index), float(index), stamps, None, end, 40, Usage(8, 10), None, error, "")


def loaded(
    tmp_path: Path,
    name: str,
    slower: float = 1.0,
    *,
    seed: int = 0,
    n: int = 300,
    failed: int = 0,
    targets=("m",),
    at_once: float = 4,
    **fields,
) -> Path:
    """A load run whose latencies are log-normal around 0.2 s and 1 s."""
    rng = np.random.default_rng(seed)
    rows, files = [], {}
    for index, target in enumerate(targets):
        times = np.exp(0.2 * rng.normal(size=(n, 2))) * (0.2, 0.8) * slower
        records = [
            record(i, a, a + b, "ServerFaultError" if i < failed else None) for i, (a, b) in enumerate(times.tolist())
        ]
        stage, file = LoadStage(f"{index}", target, "closed", at_once, n, 0), f"requests/{index}.jsonl"
        rows.append(row_of(StageFacts(stage, "whole", 0.1, file, True, None), records, SloConfig(), None, rng))
        files[file] = to_lines(records)
    load = LoadResult(mode="closed", objective="", stages=rows, capacities=[], ceiling=None, notes=[])
    return write(tmp_path, name, BenchResult(measure="load", load=load), files, **fields)


def answer(target: str, item: int, kind: str, score: float | None, seconds: float = 1.0) -> BenchAnswer:
    return BenchAnswer(
        target=target, item=f"{kind}-{item:02d}", digest=f"{kind}{item}", type=kind, level=1, text="x", model=target,
        score=score, valid=None, reason="", error="", message="", first_seconds=None, total_seconds=seconds,
        input_tokens=1, output_tokens=1, cost_usd=None,
    )  # fmt: skip


def scored(
    tmp_path: Path, name: str, scores: dict[str, list[float | None]], *, items="i", judge=None, kind="exact"
) -> Path:
    answers = [answer(target, i, kind, score) for target, row in scores.items() for i, score in enumerate(row)]
    quality = QualityResult(
        item_set=items,
        items=len(next(iter(scores.values()))),
        level=LEVEL,
        targets=[summarise(target, [a for a in answers if a.target == target]) for target in scores],
        judge=JudgeNote(model=judge, judged=0, agreed=0, unusable=0, note=""),
    )
    lines = "".join(f"{a.model_dump_json()}\n" for a in answers)
    return write(tmp_path, name, BenchResult(measure="quality", quality=quality), {ANSWERS_FILE: lines})


def verdicts(result: CompareResult) -> dict[str, str]:
    return {row.metric: row.verdict for row in result.rows}


def test_a_slower_system_is_worse_and_the_gate_says_so(tmp_path):
    result = compare_runs(loaded(tmp_path, "a"), loaded(tmp_path, "b", 1.5, seed=1))
    assert verdicts(result) == {
        "time to first token p50": "worse",
        "time to first token p90": "worse",
        "time to first token p99": "no evidence",
        "latency p50": "worse",
        "latency p90": "worse",
        "latency p99": "no evidence",
        "share answered": "no evidence",
    }
    p50 = result.rows[0]
    assert p50.low < 1.5 < p50.high
    assert p50.second / p50.first == pytest.approx(p50.estimate)
    p99 = next(row for row in result.rows if row.metric == "latency p99")
    assert (p99.low, p99.note) == (None, "too few answers: 500 needed on each side")
    error = result.gate()
    assert isinstance(error, GateError)
    assert error.exit_code == 5
    assert "time to first token p50 of m at 4 at a time" in error.message
    assert "worse" in str(result.blocks())


def test_a_faster_system_is_better_and_passes(tmp_path):
    result = compare_runs(loaded(tmp_path, "a"), loaded(tmp_path, "b", 0.7, seed=1))
    assert verdicts(result)["latency p90"] == "better"
    assert result.gate() is None


def test_a_gate_that_could_judge_nothing_is_not_passed(tmp_path):
    few = compare_runs(loaded(tmp_path, "a", n=9), loaded(tmp_path, "b", 9.0, seed=1, n=9))
    assert set(verdicts(few).values()) == {"no evidence"}
    answers = (scored(tmp_path, name, {"m": [1.0, 1.0]}) for name in ("c", "d"))
    for result in (few, compare_runs(*answers), few.model_copy(update={"rows": []})):
        error = result.gate()
        assert isinstance(error, GateError)
        assert "cannot be compared" in error.message


def test_the_same_system_measured_again_seldom_fails(tmp_path):
    """Of 20 pairs with seven figures each hardly one is called worse, though the tolerance is zero."""
    runs = [loaded(tmp_path, f"r{i}", seed=i, n=60) for i in range(21)]
    failed = sum(compare_runs(a, b, tolerance=0.0).gate() is not None for a, b in pairwise(runs))
    assert failed <= 2


def test_a_difference_within_the_tolerance_is_none(tmp_path):
    a, b = loaded(tmp_path, "a", n=1000), loaded(tmp_path, "b", 1.045, seed=1, n=1000)
    assert compare_runs(a, b, tolerance=0.0).gate() is not None
    assert compare_runs(a, b).gate() is None


def test_failures_are_compared_too(tmp_path):
    result = compare_runs(loaded(tmp_path, "a"), loaded(tmp_path, "b", failed=60))
    assert verdicts(result)["share answered"] == "worse"


def test_a_seed_repeats_the_comparison(tmp_path):
    a, b = loaded(tmp_path, "a"), loaded(tmp_path, "b", seed=1)
    assert compare_runs(a, b) == compare_runs(a, b)


def test_two_targets_of_one_run(tmp_path):
    run = loaded(tmp_path, "a", targets=("m", "strategy:best_of_two"))
    result = compare_runs(run, run, targets=("m", "strategy:best_of_two"))
    assert {row.target for row in result.rows} == {"m / strategy:best_of_two"}
    with pytest.raises(UsageError, match="with itself"):
        compare_runs(run, run)
    with pytest.raises(UnknownNameError, match="n"):
        compare_runs(run, run, targets=("m", "n"))


def test_single_targets_of_other_names_are_compared_and_many_are_not(tmp_path):
    a, b = loaded(tmp_path, "a", targets=("old",)), loaded(tmp_path, "b", targets=("new",))
    assert {row.target for row in compare_runs(a, b).rows} == {"old / new"}
    with pytest.raises(UsageError, match="no target in common"):
        compare_runs(a, loaded(tmp_path, "c", targets=("x", "y")))


def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path):
    a = loaded(tmp_path, "a")
    with pytest.raises(UsageError, match=r"load\.prompt_tokens: 64 and 128"):
        compare_runs(a, loaded(tmp_path, "longer", load={**LOAD, "prompt_tokens": 128}))
    with pytest.raises(UsageError, match=r"were not measured under the same load: 4 at a time .*, 8 at a time"):
        compare_runs(a, loaded(tmp_path, "wider", at_once=8))
    with pytest.raises(UsageError, match=r"measured load, .* measured quality"):
        compare_runs(a, scored(tmp_path, "q", {"m": [1.0]}))
    with pytest.raises(UsageError, match="is interrupted"):
        compare_runs(a, loaded(tmp_path, "half", done=False))
    with pytest.raises(UsageError, match="a run of nas"):
        compare_runs(a, loaded(tmp_path, "n", command="nas"))
    with pytest.raises(RunUnreadableError):
        compare_runs(a, tmp_path / "nothing")
    (a / "requests" / "0.jsonl").write_text("{}\n")
    with pytest.raises(RunUnreadableError, match=r"0\.jsonl is damaged"):
        compare_runs(a, loaded(tmp_path, "b"))


def test_quality_is_compared_item_by_item(tmp_path):
    first = scored(tmp_path, "a", {"m": [1.0, 0.0] * 20})
    better = scored(tmp_path, "b", {"m": [1.0, 1.0] * 15 + [1.0, 0.0] * 5})
    result = compare_runs(first, better)
    row = next(row for row in result.rows if row.metric == "quality")
    assert (row.first, row.second, row.estimate, row.verdict) == (0.5, 0.875, 0.375, "better")
    assert verdicts(compare_runs(better, first))["quality, exact"] == "worse"
    same = compare_runs(first, scored(tmp_path, "c", {"m": [1.0, 0.0] * 20}))
    assert set(verdicts(same).values()) == {"no evidence"}
    assert all(row.low < 0 < row.high for row in same.rows if row.kind == "difference")


def test_other_items_do_not_compare(tmp_path):
    with pytest.raises(UsageError, match="different items"):
        compare_runs(scored(tmp_path, "a", {"m": [1.0]}), scored(tmp_path, "b", {"m": [1.0]}, items="j"))


def test_scores_of_two_judges_do_not_compare(tmp_path):
    a = scored(tmp_path, "a", {"m": [1.0] * 12}, judge="x", kind="open")
    b = scored(tmp_path, "b", {"m": [0.0] * 12}, judge="y", kind="open")
    assert {row.verdict for row in compare_runs(a, b).rows} == {"no evidence"}
    assert (
        verdicts(compare_runs(a, scored(tmp_path, "c", {"m": [0.0] * 12}, judge="x", kind="open")))["quality"]
        == "worse"
    )


def test_items_without_a_score_are_left_out(tmp_path):
    a, b = scored(tmp_path, "a", {"m": [1.0, None, 0.0]}), scored(tmp_path, "b", {"m": [1.0, 1.0, None]})
    row = compare_runs(a, b).rows[0]
    assert (row.n, row.estimate) == ((1, 1), 0)


@pytest.mark.parametrize(
    ("kind", "direction", "low", "high", "verdict"),
    [
        ("ratio", "lower", 1.06, 1.2, "worse"),
        ("ratio", "lower", 1.04, 1.2, "no evidence"),
        ("ratio", "lower", 0.8, 0.94, "better"),
        ("ratio", "lower", 0.8, 0.96, "no evidence"),
        ("difference", "higher", 0.01, 0.2, "better"),
        ("difference", "higher", -0.2, -0.01, "worse"),
        ("difference", "higher", -0.1, 0.1, "no evidence"),
        ("difference", "higher", 0.0, 0.1, "no evidence"),
    ],
)
def test_a_verdict_takes_the_whole_interval(kind, direction, low, high, verdict):
    row, _ = figure(("m", "", "x"), kind, (1.0, 1.0), (9, 9), None, "")
    assert (row.direction, row.verdict) == (direction, "no evidence")  # as long as nothing is known
    assert verdict_of(kind, Interval((low + high) / 2, low, high, 0.95, ""), 0.05) == verdict
