"""A whole compression with a workshop that measures by a formula: resume, budgets, the portfolio, the verdict."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentlab.compress.config import CompressConfig
from agentlab.compress.goal import Goal
from agentlab.compress.meter import Meter, OverBudgetError
from agentlab.compress.objective import Measures, RecipeObjective, Workshop
from agentlab.compress.recipe import Recipe
from agentlab.compress.result import BASE, TEXTS
from agentlab.compress.run import CompressExperiment, CompressPart, prepare
from agentlab.compress.verdict import _volumes
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, GateError, MissingFileError, RunMismatchError, UsageError
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.types import Proposal, TrialResult
from agentlab.study.state import StudyCandidate, TrialState
from tests.unit.compress.scripted import calls, llm
from tests.unit.train.tiny_base import tiny_checkpoint

DENSE, SOURCE = 2_000_000, 900_000
KQUANT: dict[str, Any] = {"quantizer": "kquant", "quantization_bits": 4}


class Formula:
    """Fewer bits are smaller, faster and worse; a cut costs most. Every recipe takes 10 seconds of a clock."""

    def __init__(self, part: CompressPart, meter: Meter) -> None:
        self.meter = meter
        part.run.emit_once(TEXTS, part.name, source="text", sha256="text", fingerprint="weights")
        part.run.emit_once(BASE, part.name, dense=DENSE, source=SOURCE)

    @property
    def dense(self) -> int:
        return DENSE

    def make(self, recipe: Recipe, out: Path) -> Measures:
        self.meter.stage("quantize")
        out.parent.mkdir(parents=True, exist_ok=True)
        self._work()
        out.write_text(str(recipe))
        return self._measures(recipe, out)

    def _work(self) -> None:
        for _ in range(5):
            Clock.now += 2.0
            self.meter.check()

    def _measures(self, recipe: Recipe, out: Path) -> Measures:
        bits = recipe.quantization_bits
        careful = recipe.importance or recipe.quantizer in ("gptq", "awq")
        kl = 0.4 * 2.0**-bits * (0.5 if careful else 1.0) + 0.3 * (1 - recipe.kept)
        size = int(DENSE * recipe.kept * (bits + 0.25) / 16)
        return Measures(
            out.name,
            size,
            bits + 0.25,
            {f"int{bits}": size},
            kl,
            kl,
            kl,
            kl / 2,
            1 - kl,
            0.1,
            500,
            40 * 8 / bits,
            40,
            (math.log(8 / bits),) * 5,
            10**6,
            (kl, kl),
            (math.log1p(kl / 2),) * 8,
            "Paris",
        )

    def read(self, recipe: Recipe, out: Path, side: str, start: int, stop: int) -> tuple[Any, Any]:
        self.meter.stage("measure")
        self._work()
        losses = self._measures(recipe, out).losses
        return losses[:1] * (stop - start), ()


class Clock:
    now = 0.0


class Scripted(CompressExperiment):
    """The experiment without a model."""

    def _open_workshop(self, part: CompressPart, threads: int, meter: Meter) -> Workshop:
        return Formula(part, meter)

    def _meter(self, run: OpenRun, source: Any) -> Meter:
        return by_formula(super()._meter(run, source))


def by_formula(meter: Meter) -> Meter:
    """On the clock of the formula."""
    meter._clock, meter._seconds = (lambda: Clock.now), Clock.now
    meter._joules, meter._energy = (lambda: 20 * Clock.now), 20 * Clock.now
    return meter


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agentlab.compress.run.compress_report", lambda run, result: None)
    tiny_checkpoint(tmp_path / "models" / "small")
    return tmp_path


def scripted(root: Path, **changes: Any) -> Scripted:
    config = CompressConfig.model_validate({"base": "small", "budget": {"trials": 10}, "remember": False, **changes})
    prepared = prepare(config, Context(Workspace(root, root), {}))
    return Scripted(prepared.config, prepared.context, prepared.bases, prepared.goal, prepared.rooms)


def new_run(root: Path, name: str = "run") -> OpenRun:
    return OpenRun.create(root / "runs", RunSpec("compress", "", "", "h", 0, name=name), RunEnvironment())


def told(events: Sequence[Event]) -> list[Any]:
    passing = ("run.", "study.opened", "trial.started", "energy.spent")
    return [(e.type, e.id, without_cost(e.data)) for e in events if not e.type.startswith(passing)]


def without_cost(data: Any) -> Any:
    """Sums of floats differ in the last bit with where they were cut."""
    if isinstance(data, dict):
        return {key: without_cost(value) for key, value in data.items() if key not in ("seconds", "joules", "grams")}
    return data


def test_a_search_begins_with_the_portfolio_and_is_held_against_all_of_it(root: Path) -> None:
    with new_run(root) as run:
        result, outcome = scripted(root).run(run)
    searched = [row for row in result.models[0].rows if row.arm == "search"]
    assert [row.source for row in searched[:4]] == ["portfolio"] * 4
    assert {row.source for row in searched[4:]} <= {"tpe", "lhs"}
    assert len(searched) == 10
    assert len({row.recipe for row in result.models[0].rows}) == len(result.models[0].rows)
    assert [entry.name for entry in result.models[0].volumes] == ["portfolio"]
    assert result.models[0].volumes[0].joules == 20 * 80  # eight recipes of the portfolio, ten seconds each
    assert result.models[0].winner is not None
    best = next(row for row in result.models[0].rows if row.id == result.models[0].winner)
    assert best.front
    assert (best.loss or 1) <= 0.05
    assert best.size == min(row.size or 0 for row in result.models[0].rows if not row.broken and not row.failed)
    assert outcome.metrics["size"].value == best.size
    assert {entry.name for entry in (run.path / "exports").iterdir()} == {
        row.file for row in result.models[0].rows if row.front
    }


class Scattered(Formula):
    """Windows differ: a recipe of so many bits has these rises of perplexity, to choose by and on fresh text."""

    CHOOSE: ClassVar = {8: 0.004, 6: 0.02, 5: 0.03, 4: 0.048, 3: 0.2}
    CONFIRM: ClassVar = CHOOSE
    WINDOWS = 64

    def make(self, recipe: Recipe, out: Path) -> Measures:
        measures = super().make(recipe, out)
        return replace(measures, losses=self.losses(recipe, "choose")[:8])

    def read(self, recipe: Recipe, out: Path, side: str, start: int, stop: int) -> tuple[Any, Any]:
        self.meter.stage("read")
        Clock.now += 1.0
        return self.losses(recipe, side)[start:stop], ()

    def losses(self, recipe: Recipe, side: str) -> tuple[float, ...]:
        rise = (self.CHOOSE if side == "choose" else self.CONFIRM)[recipe.quantization_bits]
        around = [math.log1p(rise) + 0.02 * math.sin(2.0 * window) for window in range(64)]
        return tuple(around[: self.WINDOWS if side == "confirm" else 64])


KQUANTS = [{"quantizer": "kquant", "quantization_bits": bits} for bits in (8, 6, 5, 4, 3)]
FEW: dict[str, Any] = {"portfolio": KQUANTS, "first": 5, "budget": {"trials": 5}, "planner": "portfolio"}


def scattered(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setattr(Scripted, "_open_workshop", lambda self, part, threads, meter: Scattered(part, meter))
    for name, value in changes.items():
        monkeypatch.setattr(Scattered, name, value)


def test_more_windows_are_read_near_a_bound_alone_and_the_winner_is_confirmed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scattered(monkeypatch)
    with new_run(root) as run:
        result, outcome = scripted(root, **FEW).run(run)
        trials = [event.data["metrics"] for event in run.events if event.type == "trial.finished"]
    (model,) = result.models
    rows = {row.params["quantization_bits"]: row for row in model.rows}
    assert [rows[bits].windows for bits in (8, 3)] == [8, 8]  # far from 5 %: nothing more
    assert [rows[bits].verdict for bits in (8, 6, 5, 3)] == ["meets", "meets", "meets", "misses"]
    assert rows[5].windows in (16, 32)
    assert (rows[4].windows, rows[4].verdict) == (64, "undecided")  # 4.8 % is too near to tell
    assert len(trials[0]["losses"]) == 8
    assert model.winner == rows[5].id
    assert rows[5].confirmed is not None
    assert (rows[5].confirmed.verdict, rows[5].confirmed.windows) == ("meets", 64)
    low, high = rows[5].confirmed.within["loss"]
    assert low < 0.03 < high
    rise = rows[5].confirmed.figures["loss"]
    expected_text = f"perplexity {rise:+.2%} [{low:+.2%}, {high:+.2%}], on 64 held-out windows not used for any choice"
    assert expected_text in model.sentence
    assert outcome.metrics["loss"].value == rows[5].confirmed.figures["loss"]
    assert not [remark for remark in model.remarks if remark.startswith("The figures are not confirmed on fresh text")]


def test_a_look_that_the_budget_has_no_room_for_leaves_its_recipe_undecided(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Scattered, recipe: Recipe, out: Path, side: str, start: int, stop: int) -> tuple[Any, Any]:
        raise OverBudgetError("reference is expected to exceed the budget")

    scattered(monkeypatch, read=read)
    with new_run(root) as run:
        result, _ = scripted(root, **FEW).run(run)
    (model,) = result.models
    rows = {row.params["quantization_bits"]: row for row in model.rows}
    assert (rows[4].windows, rows[4].verdict, rows[4].failed) == (8, "undecided", "")
    assert [rows[bits].verdict for bits in (8, 6, 3)] == ["meets", "meets", "misses"]
    assert any(
        remark.startswith("The figures are not confirmed on fresh text: the run ended first")
        for remark in model.remarks
    )


def test_a_winner_that_other_text_does_not_confirm_makes_way_for_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scattered(monkeypatch, CONFIRM={8: 0.004, 6: 0.02, 5: 0.08, 4: 0.048, 3: 0.2})
    with new_run(root) as run:
        result, _ = scripted(root, **FEW).run(run)
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (model,) = result.models
    rows = {row.params["quantization_bits"]: row for row in model.rows}
    assert rows[5].verdict == "meets"
    assert rows[5].confirmed is not None
    assert rows[5].confirmed.verdict == "misses"
    assert model.winner == rows[6].id
    confirmed = [root for root, line in enumerate(lines) if b'"winner.confirmed"' in line]
    assert len(confirmed) == 2
    for line_count in (confirmed[0], confirmed[1]):  # killed before the one, and between both
        new_run(root, f"cut-{line_count}").close()
        folder = root / "runs" / f"cut-{line_count}"
        (folder / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        shutil.copytree(run.path / "exports", folder / "exports")
        with OpenRun.resume(folder, RunEnvironment()) as cut:
            resumed_result, _ = scripted(root, **FEW).run(cut)
        assert resumed_result.models[0].sentence == model.sentence


def test_after_three_that_are_not_confirmed_nothing_reaches_the_goal(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scattered(monkeypatch, CHOOSE=dict.fromkeys((8, 6, 5, 4, 3), 0.01), CONFIRM=dict.fromkeys((8, 6, 5, 4, 3), 0.09))
    with (
        new_run(root) as run,
        pytest.raises(GateError, match=r"on fresh text: misses, perplexity \+9.* not used for any choice"),
    ):
        scripted(root, **FEW).run(run)
    tried = [event.id for event in run.events if event.type == "winner.confirmed"]
    assert tried == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]


@pytest.mark.parametrize("windows", [0, 2, 7])
def test_where_the_text_is_too_little_the_report_says_that_nothing_was_confirmed(
    root: Path, monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    scattered(monkeypatch, WINDOWS=windows)
    with new_run(root) as run:
        result, _ = scripted(root, **FEW).run(run)
    (model,) = result.models
    assert model.winner is not None
    assert "not used for any choice" not in model.sentence
    assert "The figures are not confirmed on fresh text: the text has too few unused held-out windows." in model.remarks


def test_a_run_of_an_earlier_version_has_no_intervals_and_reports(root: Path) -> None:
    with new_run(root) as run:
        scripted(root, **FEW).run(run)
        lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    early = [line for line in lines if line["type"] != "winner.confirmed"]
    for line in early:
        for name in ("within", "losses", "kls", "ratios"):
            line["data"].get("metrics", {}).pop(name, None)
    new_run(root, "early").close()
    shutil.copytree(run.path / "exports", root / "runs" / "early" / "exports")
    (root / "runs" / "early" / "events.jsonl").write_text(
        "".join(json.dumps({**line, "seq": seq}) + "\n" for seq, line in enumerate(early))
    )
    with OpenRun.resume(root / "runs" / "early", RunEnvironment()) as resumed_run:
        result, _ = scripted(root, **FEW).run(resumed_run)
    (model,) = result.models
    assert [row.within for row in model.rows] == [{}] * 5
    winner = next(row for row in model.rows if row.id == model.winner)
    assert winner.verdict == "meets"  # by its figure, as then
    assert winner.confirmed is not None  # and by what it lacked


@pytest.mark.parametrize(("ratio", "slower"), [(0.8, True), (0.99, False)])
def test_who_may_be_as_fast_as_the_source_is_not_called_slower(
    root: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, slower: bool
) -> None:
    measures = Formula._measures

    def near(self: Formula, recipe: Recipe, out: Path) -> Measures:
        logs = tuple(math.log(ratio) + 0.04 * math.sin(3.0 * turn) for turn in range(30))
        return replace(measures(self, recipe, out), ratios=logs if ratio < 0.9 else logs[:5])

    monkeypatch.setattr(Formula, "_measures", near)
    with new_run(root) as run:
        result, _ = scripted(root, goal="smallest", budget={"trials": 2}).run(run)
    assert any(remark.startswith("Slower than") for remark in result.models[0].remarks) is slower


def test_what_thinking_costs_makes_no_difference_between_equal_recipes() -> None:
    def trials(*joules: float) -> list[TrialState]:
        entries = zip(KQUANTS, joules, strict=False)
        return [
            TrialState(n, Proposal(params, "portfolio"), "shared", 0.0, measured(n, cost))
            for n, (params, cost) in enumerate(entries)
        ]

    def measured(number: int, joules: float) -> TrialResult:
        return TrialResult("finished", 1.0, {"joules": joules}, objectives=(0.5 - number / 10, 0.1 + number / 10))

    volumes, _, same = _volumes(trials(206.0, 203.0, 203.0), {"portfolio": trials(200.0, 203.0, 203.0)})
    assert (volumes, same) == ([], ["portfolio"])
    volumes, _, same = _volumes(trials(288.0, 203.0, 203.0), {"portfolio": trials(262.0)})
    assert (volumes, same) == ([], ["portfolio"])
    volumes, _, same = _volumes(trials(203.0, 203.0), {"portfolio": trials(203.0, 203.0, 203.0)[:1]})
    assert (volumes, same) == ([], ["portfolio"])  # the other recipe had not ended at this cost
    volumes, _, same = _volumes(trials(100.0, 100.0), {"portfolio": trials(203.0)})
    assert (len(volumes), same) == (1, [])


def test_recipes_of_the_portfolio_are_not_compared_with_themselves(root: Path) -> None:
    with new_run(root) as run:
        result, _ = scripted(root, **FEW).run(run)
    (model,) = result.models
    assert model.volumes == []
    assert (
        "At equal cost, the search and portfolio tried the same recipes, so there is nothing to compare."
        in model.remarks
    )
    assert not [remark for remark in model.remarks if remark.startswith("Hypervolume")]


def test_what_was_remembered_near_a_bound_is_measured_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scattered(monkeypatch)
    few = FEW | {"remember": True, "memory": "memory"}
    with new_run(root, "first") as run:
        scripted(root, **few).run(run)
    with new_run(root, "second") as run:
        result, _ = scripted(root, **few | {"goal": "smallest with loss < 1 %"}).run(run)
    rows_by_bits = {row.params["quantization_bits"]: row for row in result.models[0].rows}
    assert not rows_by_bits[8].remembered  # it was far from 5 %, and is near 1 %
    assert rows_by_bits[8].windows > 8
    assert rows_by_bits[5].remembered == "first"


Q6 = {"structure": "none", "quantizer": "kquant", "quantization_bits": 6, "importance": True}
ADVICE = {"output": "Six bits are enough.", "todos": ["look at six bits"], "recipes": [Q6]}


@pytest.mark.parametrize(
    "few",
    [
        {"budget": {"trials": 5}, "first": 2},
        {"budget": {"trials": 7}, "first": 2, "llm": llm(mode="random"), "beside": ["portfolio", "random"]},
        {"budget": {"trials": 7}, "first": 2, "llm": llm(**calls(("finish", ADVICE)))},
    ],
    ids=["optimiser", "random answers", "tools"],
)
def test_a_kill_between_any_two_events_changes_no_trial(root: Path, few: dict[str, Any]) -> None:
    with new_run(root, "whole") as run:
        Clock.now = 0.0
        uninterrupted, _ = scripted(root, **few).run(run)
        events = run.events
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for line_count in range(1, len(lines), 1 + len(lines) // 16):
        new_run(root, "cut").close()
        (root / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        shutil.copytree(root / "runs" / "whole" / "exports", root / "runs" / "cut" / "exports")
        with OpenRun.resume(root / "runs" / "cut", RunEnvironment()) as cut:
            resumed, _ = scripted(root, **few).run(cut)
            assert told(cut.events) == told(events), lines[line_count - 1]
        assert [without_cost(row.model_dump()) for row in resumed.models[0].rows] == [
            without_cost(r.model_dump()) for r in uninterrupted.models[0].rows
        ]
        assert resumed.seconds >= uninterrupted.seconds - 1e-6  # what was lost is charged
        shutil.rmtree(root / "runs" / "cut")


def test_an_agent_plans_proposes_and_reflects_and_the_report_says_what_it_was_worth(root: Path) -> None:
    script = calls(("show_front", {}), ("finish", ADVICE))
    with new_run(root) as run:
        result, outcome = scripted(root, budget={"trials": 12}, llm=llm(**script)).run(run)
    model = result.models[0]
    assert model.plan is not None
    assert (model.plan.output, model.plan.by) == ("Six bits are enough.", "m")
    assert [row.source for row in model.rows if row.params == Q6] == ["llm"]
    assert model.reflection is not None
    assert model.control is not None
    assert outcome.control == model.control
    assert any("of the trials were assigned" in remark or "was not measured" in remark for remark in model.remarks)
    assert result.calls.answered == result.calls.calls > 0
    todo = (run.path / "todo.md").read_text().splitlines()
    assert "- [x] look at six bits (suggested by m)" in todo
    assert all(line.startswith("- [x]") for line in todo)


@pytest.mark.parametrize("mode", ["garbage", "stuck", "refuse"])
@pytest.mark.parametrize("tier", ["pick", "full"])
def test_a_model_that_fails_costs_no_trial(root: Path, tier: str, mode: str) -> None:
    with new_run(root) as run:
        result, _ = scripted(root, budget={"trials": 8}, llm=llm(tier, mode=mode)).run(run)
    searched = [row for row in result.models[0].rows if row.arm == "search"]
    assert len(searched) == 8
    assert not [row for row in searched if row.failed]
    assert "llm" not in {row.source for row in searched}  # what the rules propose is not credited to the model
    assert {row.source.partition("->")[0] for row in searched} >= {"portfolio", "llm"}


@pytest.mark.parametrize("budget", [{"seconds": 35}, {"joules": 700}, {"carbon": "0.08g"}])
def test_a_hard_budget_ends_the_work_and_keeps_the_best(root: Path, budget: dict[str, Any]) -> None:
    with new_run(root) as run:
        result, _ = scripted(root, budget={"trials": 10, **budget}).run(run)
    assert len([row for row in result.models[0].rows if not row.failed]) == 3
    assert result.seconds <= 36 + 2  # an interval of checking
    assert any(remark.startswith("The run ended early because of the budget") for remark in result.remarks)
    assert result.models[0].winner is not None


def test_nothing_feasible_within_the_budget_is_a_missed_gate(root: Path) -> None:
    with new_run(root) as run, pytest.raises(GateError, match="No recipe meets the goal") as caught:
        scripted(root, goal="smallest with loss < 0.001 %", budget={"trials": 3}, first=1).run(run)
    assert caught.value.exit_code == 5
    with new_run(root, "none") as run, pytest.raises(GateError):
        scripted(root, budget={"trials": 3, "seconds": 9}).run(run)


@pytest.mark.parametrize(
    ("budget", "unit"),
    [({"carbon": "0.005g"}, "grams"), ({"joules": 60}, "joules"), ({"seconds": 3}, "seconds")],
)
def test_a_budget_without_room_for_one_recipe_is_refused_before_work(
    root: Path, budget: dict[str, Any], unit: str
) -> None:
    expected = rf"No recipe was measured.* too small for even one recipe of small.* is forecast to take .* {unit}"
    with new_run(root) as run, pytest.raises(GateError, match=expected) as caught:
        scripted(root, budget=budget).run(run)
    assert caught.value.exit_code == 5
    assert "--carbon-budget" in str(caught.value.hint)
    assert not [event for event in run.events if event.type.startswith("trial.") or event.type == TEXTS]
    assert not (run.path / "exports").exists()
    assert scripted(root, budget=budget).plan().forecast["seconds"] > 3  # a dry run says so all the same


def test_what_a_run_spent_of_its_budget_is_said(root: Path) -> None:
    with new_run(root) as run:
        result, _ = scripted(root, budget={"trials": 10, "seconds": 35}).run(run)
    (budget_remark,) = (remark for remark in result.remarks if remark.startswith("Budget: "))
    assert budget_remark == "Budget: 30 of 35 seconds spent, overshoot 0."


def test_the_first_recipes_come_cheapest_first(root: Path) -> None:
    cut = {"structure": "width", "kept": 0.5, "recovery": "distil", "quantizer": "kquant", "quantization_bits": 8}
    gptq = {"quantizer": "gptq", "quantization_bits": 4, "group": 32}
    portfolio = [cut, gptq, {"quantizer": "kquant", "quantization_bits": 8}]
    with new_run(root) as run:
        few = {"portfolio": portfolio, "first": 3, "budget": {"trials": 3}, "recovery": {"steps": 2_000}}
        result, _ = scripted(root, goal="smallest", **few).run(run)
    assert [row.params["structure"] for row in result.models[0].rows] == ["none", "none", "width"]
    assert [row.params["quantizer"] for row in result.models[0].rows] == [
        "gptq",
        "kquant",
        "kquant",
    ]  # alike: as listed


def test_a_plan_says_what_a_run_is_forecast_to_take(root: Path) -> None:
    one = scripted(root, portfolio=[KQUANT], first=1, beside=[], budget={"trials": 1}).plan()
    assert 12 * 20 < one.forecast["joules"] < 16 * 20  # to start what opens, measures and looks twice, at 20 W a core
    assert one.forecast["memory"] > 0
    assert one.forecast["disk"] > 0
    assert "nothing has been measured yet" in one.foreseen
    assert "end early" not in one.foreseen
    tight = scripted(root, portfolio=[KQUANT], first=1, beside=[], budget={"trials": 1, "joules": 100}).plan()
    assert tight.foreseen.endswith("this exceeds the budget of joules, so the run would end early")
    longer = scripted(root, budget={"trials": 20}).plan()
    assert longer.forecast["joules"] > 20 * 5.2 * 20  # seconds that measuring a recipe takes to start
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 4}}
    with new_run(root) as run:
        scripted(root, **few).run(run)

    def seconds_of_one_more(**changes: Any) -> float:
        five, four = (scripted(root, **{**few, **changes, "budget": {"trials": n}}).plan() for n in (5, 4))
        return five.forecast["seconds"] - four.forecast["seconds"]

    assert seconds_of_one_more(text={"held_out": 2}) == pytest.approx(10, rel=0.05)  # what the memory has of others
    assert seconds_of_one_more(remember=False) == pytest.approx(5.2, rel=0.05)


def test_a_known_recipe_is_charged_what_it_cost_with_the_thinking_of_whoever_asks(root: Path) -> None:
    clock = Clock()
    records: list[Any] = []
    meter = Meter(lambda: 10 * clock.now, 400.0, {}, (), lambda *record: records.append(record), lambda: clock.now)
    first = TrialResult("finished", 1.0, {"seconds": 12.0, "joules": 120.0, "grams": 0.0, "thought": {"joules": 20.0}})
    recipes = RecipeObjective(None, Goal("kl"), 8, meter, lambda _: root, lambda _: first, lambda: None)  # type: ignore[arg-type]
    clock.now = Clock.now + 3.0
    (charged,) = recipes([StudyCandidate("run_0000", 0, KQUANT)])
    assert charged.metrics["joules"] == pytest.approx(100 + 30)
    assert charged.metrics["thought"]["joules"] == pytest.approx(30)


def test_more_budget_goes_on_where_it_ended(root: Path) -> None:
    with new_run(root) as run:
        scripted(root, budget={"trials": 10, "seconds": 35}).run(run)
    with OpenRun.resume(root / "runs" / "run", RunEnvironment()) as run:
        result, _ = scripted(root, budget={"trials": 10}).run(run)
    with new_run(root, "whole") as uninterrupted_run:
        expected, _ = scripted(root, budget={"trials": 10}).run(uninterrupted_run)
    assert [row.recipe for row in result.models[0].rows] == [row.recipe for row in expected.models[0].rows]


def test_what_alone_reaches_the_goal_wins_and_stays_though_others_are_smaller_and_closer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Formula.make

    def careless_is_fast(self: Formula, recipe: Recipe, out: Path) -> Measures:
        careful = recipe.importance or recipe.quantizer in ("gptq", "awq")
        return replace(make(self, recipe, out), decode=20.0 if careful else 100.0)

    monkeypatch.setattr(Formula, "make", careless_is_fast)
    kquant: dict[str, Any] = {"quantizer": "kquant", "quantization_bits": 4}
    portfolio = [kquant, {**kquant, "importance": True}]
    with new_run(root) as run:
        few = {"portfolio": portfolio, "first": 2, "budget": {"trials": 2}}
        result, _ = scripted(root, goal="smallest with speed > 2x", **few).run(run)
    fast, close = result.models[0].rows
    assert (fast.front, close.front) == (False, True)
    assert result.models[0].winner == fast.id
    assert {export.name for export in (run.path / "exports").iterdir()} == {fast.file, close.file}


def test_numbers_that_are_not_finite_fail_the_recipe(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Formula.make
    monkeypatch.setattr(Formula, "make", lambda *args: replace(make(*args), kl=math.nan, loss=math.nan))
    with new_run(root) as run, pytest.raises(GateError):
        scripted(root, goal="smallest at any loss", budget={"trials": 1}, first=1).run(run)
    with OpenRun.resume(run.path, RunEnvironment()) as resumed_run, pytest.raises(GateError):
        scripted(root, goal="smallest at any loss", budget={"trials": 1}, first=1).run(resumed_run)
    assert "not finite" in (run.path / "events.jsonl").read_text()


def test_a_point_of_an_own_space_that_means_nothing_fails_alone(root: Path) -> None:
    space = {
        "quantizer": {"type": "categorical", "choices": ["kquant"]},
        "quantization_bits": {"type": "categorical", "choices": [7, 8]},
    }
    eight = [{"quantizer": "kquant", "quantization_bits": 8}]
    with new_run(root) as run:
        experiment = scripted(root, space=space, constraints=[], portfolio=eight, first=1, budget={"trials": 2})
        result, _ = experiment.run(run)
    assert ["llama.cpp supports" in row.failed for row in result.models[0].rows] == [False, True]


def test_what_is_not_there_is_named_before_work(root: Path) -> None:
    with pytest.raises(MissingFileError):
        scripted(root, text={"file": "absent.txt"})


def test_bases_of_one_name_are_refused(root: Path) -> None:
    shutil.copytree(root / "models" / "small", root / "elsewhere" / "small")
    with pytest.raises(UsageError, match="Two bases share the name small"):
        scripted(root, models=["small", str(root / "elsewhere" / "small")])


def test_a_run_begins_with_what_earlier_ones_have_measured(root: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 4}}
    with new_run(root, "first") as run:
        first, _ = scripted(root, **few).run(run)
    shutil.rmtree(root / "runs" / "first" / "exports")
    with new_run(root, "second") as run:
        second, _ = scripted(root, **few).run(run)
        exports, events = {export.name for export in (run.path / "exports").iterdir()}, run.events
    (one,), (two,) = first.models, second.models
    old = [row for row in two.rows if row.remembered]
    assert {row.recipe for row in old} | {row.recipe for row in two.rows if row.arm == "made"} == {
        row.recipe for row in one.rows
    }
    assert {row.remembered for row in old} == {"first"}
    assert sum(row.seconds for row in old) == 0
    assert len([row for row in two.rows if row.arm == "search" and not row.remembered]) == 4
    assert f"{len(old)} of {len(two.rows)} recipes are reused from earlier runs: first." in two.remarks
    winner = next(row for row in two.rows if row.id == two.winner)
    assert winner.file in exports  # its export was gone, so that it was made again
    assert two.volumes[0].search >= two.volumes[0].other
    before = len(list((root / "memory" / "experiments").iterdir()))
    with new_run(root, "third") as run:  # meanwhile there is more to remember
        scripted(root, **few).run(run)
    assert len(list((root / "memory" / "experiments").iterdir())) == before + 4
    lines = (root / "runs" / "second" / "events.jsonl").read_bytes().splitlines(keepends=True)
    new_run(root, "cut").close()
    (root / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    shutil.copytree(root / "runs" / "second" / "exports", root / "runs" / "cut" / "exports")
    with OpenRun.resume(root / "runs" / "cut", RunEnvironment()) as run:
        scripted(root, **few).run(run)
        assert told(run.events) == told(events)
    new_run(root, "lost").close()
    (root / "runs" / "lost" / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    shutil.rmtree(root / "memory")
    with (
        OpenRun.resume(root / "runs" / "lost", RunEnvironment()) as run,
        pytest.raises(RunMismatchError, match="are missing from its memory"),
    ):
        scripted(root, **few).run(run)


def test_what_cannot_be_remembered_costs_no_result(root: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 2}}
    with new_run(root) as run:
        work = scripted(root, **few)
        (root / "memory").mkdir()
        (root / "memory" / "knowledge").touch()  # no folder
        result, _ = work.run(run)
    assert result.models[0].remarks[-1].startswith("The experiments could not be saved to memory")


def test_a_mask_in_the_portfolio_hides_nothing_of_the_memory(root: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 2}, "first": 1}
    with new_run(root, "first") as run:
        scripted(root, **few).run(run)
    mask = {"pruner": "wanda", "pruning_sparsity": 0.5, "quantizer": "kquant", "quantization_bits": 8}
    with new_run(root, "second") as run:
        recipes = scripted(root, **few).config.recipes
        portfolio = [*(recipe.model_dump(exclude_defaults=True) for recipe in recipes), mask]
        result, _ = scripted(root, **few | {"portfolio": portfolio}).run(run)
    assert [row.remembered for row in result.models[0].rows].count("first") >= 2


def test_an_export_that_still_lies_in_an_earlier_run_is_not_made_again(root: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 3}}
    few["goal"] = "smallest with kl < 0.1"
    with new_run(root, "first") as run:
        scripted(root, **few).run(run)
    with new_run(root, "second") as run:
        result, _ = scripted(root, **few | {"budget": {"trials": 1}}).run(run)
    (model,) = result.models
    winner = next(row for row in model.rows if row.id == model.winner)
    assert winner.remembered == "first"
    assert str(root / "runs" / "first" / "exports") in model.loads[0]


def test_the_graph_makes_the_same_trials_as_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langgraph", reason="needs the extra langgraph")
    from agentlab.integrations.langgraph import compress_graph

    tools = llm(**calls(("finish", ADVICE)))
    config = {"base": "small", "budget": {"trials": 6}, "remember": False, "first": 2, "llm": tools}
    with new_run(root, "command") as run:
        expected, _ = scripted(root, **config).run(run)
    monkeypatch.setenv("AGENTLAB_HOME", str(root))
    monkeypatch.setattr(CompressExperiment, "_open_workshop", Scripted._open_workshop)
    metered = CompressExperiment._meter
    monkeypatch.setattr(CompressExperiment, "_meter", lambda self, run, source: by_formula(metered(self, run, source)))
    graph = compress_graph(CompressConfig.model_validate(config))
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    assert {("planner", "executor"), ("executor", "evaluator"), ("evaluator", "update")} <= edges
    state = graph.invoke({})
    rows = [without_cost(row) for row in state["result"]["models"][0]["rows"]]
    assert rows == [without_cost(row.model_dump(mode="json")) for row in expected.models[0].rows]
    assert state["trials"] == 6
    assert told(read_events(Path(state["run"]) / "events.jsonl")) == told(run.events)


def test_a_graph_whose_budget_is_spent_reports_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langgraph", reason="needs the extra langgraph")
    from agentlab.integrations.langgraph import compress_graph

    monkeypatch.setenv("AGENTLAB_HOME", str(root))
    monkeypatch.setattr(CompressExperiment, "_open_workshop", Scripted._open_workshop)
    metered = CompressExperiment._meter
    monkeypatch.setattr(CompressExperiment, "_meter", lambda self, run, source: by_formula(metered(self, run, source)))
    config = {"base": "small", "budget": {"trials": 6, "seconds": 25}, "remember": False}
    state = compress_graph(CompressConfig.model_validate(config)).invoke({})
    assert "exceeded the budget of 25 seconds" in state["over"] or "is expected to exceed" in state["over"]
    assert state["trials"] == 2


def test_what_a_base_cannot_go_through_is_left_out_of_the_plan_and_refused_if_nothing_is_left(root: Path) -> None:
    file = root / "models" / "small" / "config.json"
    config = json.loads(file.read_text())
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    file.write_text(json.dumps({**config, "rope_parameters": rope}))
    plan = scripted(root).plan()
    assert "k-quants (Rotary embeddings of type dynamic" in plan.left_out["small"]
    assert plan.portfolio
    assert not [recipe for recipe in plan.portfolio if "Q4_K" in recipe or "Q8_0" in recipe]
    with pytest.raises(UsageError, match="No recipe in the portfolio can be applied to small") as caught:
        scripted(root, portfolio=[KQUANT], first=1)
    assert caught.value.exit_code == 2


def test_what_a_base_cannot_go_through_is_not_searched_and_the_report_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, limits = OpenRun.emit_once, [({"forbids": {"quantizer": ["kquant"]}}, "k-quants (no name)")]

    def emit_once(run: OpenRun, type_: str, id_: str = "", **data: Any) -> Any:
        return tell(run, type_, id_, **data, **({"limits": limits} if type_ == BASE else {}))

    monkeypatch.setattr(OpenRun, "emit_once", emit_once)
    with new_run(root) as run:
        result, _ = scripted(root, goal="smallest").run(run)
    rows = result.models[0].rows
    assert len(rows) >= 10
    assert "kquant" not in {row.params["quantizer"] for row in rows}
    assert "Excluded because this base does not support them: k-quants (no name)." in result.models[0].remarks


def test_a_full_control_pairs_searches_with_and_without_the_agent_and_measures_no_recipe_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    make = Formula.make
    monkeypatch.setattr(
        Formula, "make", lambda work, recipe, out: (written.append(str(recipe)), make(work, recipe, out))[1]
    )
    few = {"planner": "tpe", "control": "full", "control_seeds": 6, "budget": {"trials": 6}, "first": 2, "beside": []}
    with new_run(root, "whole") as run:
        result, outcome = scripted(root, **few, llm=llm(**calls(("finish", ADVICE)))).run(run)
        events = run.events
    (model,) = result.models
    assert len(written) == len(set(written))
    assert [pair.seed for pair in model.pairs] == list(range(6))
    assert all(pair.agent and pair.control for pair in model.pairs)
    assert all(cost >= 6 * 200 for pair in model.pairs for cost in pair.spent or ())  # ten seconds of 20 W a recipe
    assert outcome.control == model.control
    assert model.control is not None
    assert model.control.n == 6
    assert "1200 J in each search" in model.control.budget
    assert any("on 6 pairs of searches" in remark for remark in model.remarks)
    arms = {
        name: [e.data for e in events if e.id.startswith(f"{name}/run_") and e.type == "trial.proposed"]
        for name in ("agent-0", "control-0")
    }
    assert {data["arm"] for data in arms["control-0"]} == {"shared", "control"}
    assert {data["source"] for data in arms["agent-0"]} & {"llm"}
    assert [data["params"] for data in arms["agent-0"][:2]] == [data["params"] for data in arms["control-0"][:2]]
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    line_count = next(n for n, line in enumerate(lines) if b'"control-2/run_0003"' in line)
    new_run(root, "cut").close()
    (root / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
    with OpenRun.resume(root / "runs" / "cut", RunEnvironment()) as cut:
        resumed, _ = scripted(root, **few, llm=llm(**calls(("finish", ADVICE)))).run(cut)
        assert told(cut.events) == told(events)
    assert resumed.models[0].pairs == model.pairs


PAIRED: dict[str, Any] = {"planner": "tpe", "control": "full", "control_seeds": 6, "first": 2, "beside": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_seeds": 5}, "too few to reach significance"),
        ({"budget": {"trials": 2}}, "more trials than the 2 initial recipes"),
        ({"llm": {}}, "a model in `llm`"),
    ],
)
def test_pairs_that_cannot_show_anything_are_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scripted(root, **{**PAIRED, "llm": llm(**calls(("finish", ADVICE))), "budget": {"trials": 5}, **changes})


def test_a_full_control_that_the_budget_cuts_short_is_not_measured(root: Path) -> None:
    few = {**PAIRED, "llm": llm(**calls(("finish", ADVICE))), "budget": {"trials": 6, "seconds": 95}}
    with new_run(root) as run:
        result, _ = scripted(root, **few).run(run)
    (model,) = result.models
    assert model.control is not None
    assert model.control.verdict == "not_measured"
    assert "of the 6 pairs needed" in model.control.note
    assert model.pairs[-1].agent is None
    assert any("budget of 95 seconds" in remark for remark in result.remarks)
