"""A whole compression with a workshop that measures by a formula: resume, budgets, the portfolio, the verdict."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.config import CompressConfig
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Measures, Workshop
from agentlab.compress.recipe import Recipe
from agentlab.compress.result import BASE, TEXTS
from agentlab.compress.run import CompressExperiment, Part, prepare
from agentlab.config.workspace import Workspace
from agentlab.errors import GateError, MissingFileError, RunMismatchError, UsageError
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events
from agentlab.runs.run import Edge, Run, RunSpec
from tests.unit.compress.scripted import calls, llm
from tests.unit.train.tiny_base import tiny_checkpoint

DENSE, SOURCE = 2_000_000, 900_000


class Formula:
    """Fewer bits are smaller, faster and worse; a cut costs most. Every recipe takes 10 seconds of a clock."""

    def __init__(self, part: Part, meter: Meter) -> None:
        self.meter = meter
        part.run.emit_once(TEXTS, part.name, source="text", sha256="text", fingerprint="weights")
        part.run.emit_once(BASE, part.name, dense=DENSE, source=SOURCE)

    @property
    def dense(self) -> int:
        return DENSE

    def make(self, recipe: Recipe, out: Path) -> Measures:
        self.meter.stage("quantize")
        out.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            Clock.now += 2.0
            self.meter.check()
        out.write_text(str(recipe))
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
            10**6,
            (kl, kl),
            "Paris",
        )


class Clock:
    now = 0.0


class Scripted(CompressExperiment):
    """The experiment without a model."""

    def _opened(self, part: Part, threads: int, meter: Meter) -> Workshop:
        return Formula(part, meter)

    def _meter(self, run: Run, source: Any) -> Meter:
        return by_formula(super()._meter(run, source))


def by_formula(meter: Meter) -> Meter:
    """On the clock of the formula."""
    meter._clock, meter._seconds = (lambda: Clock.now), Clock.now
    meter._joules, meter._energy = (lambda: 20 * Clock.now), 20 * Clock.now
    return meter


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agentlab.compress.run.write_compress_report", lambda run, result: None)
    tiny_checkpoint(tmp_path / "models" / "small")
    return tmp_path


def scripted(place: Path, **changes: Any) -> Scripted:
    config = CompressConfig.model_validate({"base": "small", "budget": {"trials": 10}, "remember": False, **changes})
    found = prepare(config, Context(Workspace(place, place), {}))
    return Scripted(found.config, found.context, found.bases, found.goal)


def new_run(place: Path, name: str = "run") -> Run:
    return Run.create(place / "runs", RunSpec("compress", "", "", "h", 0, name=name), Edge())


def told(events: Sequence[Event]) -> list[Any]:
    passing = ("run.", "study.opened", "trial.started", "energy.spent")
    return [(e.type, e.id, without_cost(e.data)) for e in events if not e.type.startswith(passing)]


def without_cost(data: Any) -> Any:
    """Sums of floats differ in the last bit with where they were cut."""
    if isinstance(data, dict):
        return {key: without_cost(value) for key, value in data.items() if key not in ("seconds", "joules", "grams")}
    return data


def test_a_search_begins_with_the_portfolio_and_is_held_against_all_of_it(place: Path) -> None:
    with new_run(place) as run:
        result, outcome = scripted(place).run(run)
    searched = [row for row in result.models[0].rows if row.arm == "search"]
    assert [row.source for row in searched[:4]] == ["portfolio"] * 4
    assert {row.source for row in searched[4:]} <= {"tpe", "lhs"}
    assert len(searched) == 10
    assert len({row.recipe for row in result.models[0].rows}) == len(result.models[0].rows)
    assert [each.name for each in result.models[0].volumes] == ["portfolio"]
    assert result.models[0].volumes[0].joules == 20 * 80  # eight recipes of the portfolio, ten seconds each
    assert result.models[0].winner is not None
    best = next(row for row in result.models[0].rows if row.id == result.models[0].winner)
    assert best.front
    assert (best.loss or 1) <= 0.05
    assert best.size == min(row.size or 0 for row in result.models[0].rows if not row.broken and not row.failed)
    assert outcome.metrics["size"].value == best.size
    assert {each.name for each in (run.path / "exports").iterdir()} == {
        row.file for row in result.models[0].rows if row.front
    }


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
def test_a_kill_between_any_two_events_changes_no_trial(place: Path, few: dict[str, Any]) -> None:
    with new_run(place, "whole") as run:
        Clock.now = 0.0
        whole, _ = scripted(place, **few).run(run)
        events = run.events
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines), 1 + len(lines) // 16):
        new_run(place, "cut").close()
        (place / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[:kept]))
        with Run.resume(place / "runs" / "cut", Edge()) as cut:
            again, _ = scripted(place, **few).run(cut)
            assert told(cut.events) == told(events), lines[kept - 1]
        assert [without_cost(row.model_dump()) for row in again.models[0].rows] == [
            without_cost(r.model_dump()) for r in whole.models[0].rows
        ]
        assert again.seconds >= whole.seconds - 1e-6  # what was lost is charged
        shutil.rmtree(place / "runs" / "cut")


def test_an_agent_plans_proposes_and_reflects_and_the_report_says_what_it_was_worth(place: Path) -> None:
    script = calls(("show_front", {}), ("finish", ADVICE))
    with new_run(place) as run:
        result, outcome = scripted(place, budget={"trials": 12}, llm=llm(**script)).run(run)
    model = result.models[0]
    assert model.plan is not None
    assert (model.plan.output, model.plan.by) == ("Six bits are enough.", "m")
    assert [row.source for row in model.rows if row.params == Q6] == ["llm"]
    assert model.reflection is not None
    assert model.control is not None
    assert outcome.control == model.control
    assert any("share of the trials" in each or "was not measured" in each for each in model.remarks)
    assert result.calls.answered == result.calls.calls > 0
    todo = (run.path / "todo.md").read_text().splitlines()
    assert "- [x] look at six bits (said by m)" in todo
    assert all(line.startswith("- [x]") for line in todo)


@pytest.mark.parametrize("mode", ["garbage", "stuck", "refuse"])
@pytest.mark.parametrize("tier", ["pick", "full"])
def test_a_model_that_fails_costs_no_trial(place: Path, tier: str, mode: str) -> None:
    with new_run(place) as run:
        result, _ = scripted(place, budget={"trials": 8}, llm=llm(tier, mode=mode)).run(run)
    searched = [row for row in result.models[0].rows if row.arm == "search"]
    assert len(searched) == 8
    assert not [row for row in searched if row.failed]
    assert "llm" not in {row.source for row in searched}  # what the rules propose is not credited to the model
    assert {row.source.partition("->")[0] for row in searched} >= {"portfolio", "llm"}


@pytest.mark.parametrize("budget", [{"seconds": 35}, {"joules": 700}, {"carbon": "0.08g"}])
def test_a_hard_budget_ends_the_work_and_keeps_the_best(place: Path, budget: dict[str, Any]) -> None:
    with new_run(place) as run:
        result, _ = scripted(place, budget={"trials": 10, **budget}).run(run)
    assert len([row for row in result.models[0].rows if not row.failed]) == 3
    assert result.seconds <= 36 + 2  # an interval of checking
    assert any(remark.startswith("The budget ended the work") for remark in result.remarks)
    assert result.models[0].winner is not None


def test_nothing_feasible_within_the_budget_is_a_missed_gate(place: Path) -> None:
    with new_run(place) as run, pytest.raises(GateError, match="No recipe reaches the goal") as caught:
        scripted(place, goal="smallest with loss < 0.001 %", budget={"trials": 3}, first=1).run(run)
    assert caught.value.exit_code == 5
    with new_run(place, "none") as run, pytest.raises(GateError):
        scripted(place, budget={"trials": 3, "seconds": 4}).run(run)


def test_more_budget_goes_on_where_it_ended(place: Path) -> None:
    with new_run(place) as run:
        scripted(place, budget={"trials": 10, "seconds": 35}).run(run)
    with Run.resume(place / "runs" / "run", Edge()) as run:
        result, _ = scripted(place, budget={"trials": 10}).run(run)
    with new_run(place, "whole") as whole:
        expected, _ = scripted(place, budget={"trials": 10}).run(whole)
    assert [row.recipe for row in result.models[0].rows] == [row.recipe for row in expected.models[0].rows]


def test_what_alone_reaches_the_goal_wins_and_stays_though_others_are_smaller_and_closer(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Formula.make

    def careless_is_fast(self: Formula, recipe: Recipe, out: Path) -> Measures:
        careful = recipe.importance or recipe.quantizer in ("gptq", "awq")
        return replace(made(self, recipe, out), decode=20.0 if careful else 100.0)

    monkeypatch.setattr(Formula, "make", careless_is_fast)
    kquant: dict[str, Any] = {"quantizer": "kquant", "quantization_bits": 4}
    portfolio = [kquant, {**kquant, "importance": True}]
    with new_run(place) as run:
        few = {"portfolio": portfolio, "first": 2, "budget": {"trials": 2}}
        result, _ = scripted(place, goal="smallest with speed > 2x", **few).run(run)
    fast, close = result.models[0].rows
    assert (fast.front, close.front) == (False, True)
    assert result.models[0].winner == fast.id
    assert {each.name for each in (run.path / "exports").iterdir()} == {fast.file, close.file}


def test_numbers_that_are_not_finite_fail_the_recipe(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Formula.make
    monkeypatch.setattr(Formula, "make", lambda *asked: replace(made(*asked), kl=math.nan, loss=math.nan))
    with new_run(place) as run, pytest.raises(GateError):
        scripted(place, goal="smallest at any loss", budget={"trials": 1}, first=1).run(run)
    with Run.resume(run.path, Edge()) as again, pytest.raises(GateError):
        scripted(place, goal="smallest at any loss", budget={"trials": 1}, first=1).run(again)
    assert "not finite" in (run.path / "events.jsonl").read_text()


def test_a_point_of_an_own_space_that_means_nothing_fails_alone(place: Path) -> None:
    space = {
        "quantizer": {"type": "categorical", "choices": ["kquant"]},
        "quantization_bits": {"type": "categorical", "choices": [7, 8]},
    }
    eight = [{"quantizer": "kquant", "quantization_bits": 8}]
    with new_run(place) as run:
        own = scripted(place, space=space, constraints=[], portfolio=eight, first=1, budget={"trials": 2})
        result, _ = own.run(run)
    assert ["llama.cpp has" in row.failed for row in result.models[0].rows] == [False, True]


def test_what_is_not_there_is_named_before_work(place: Path) -> None:
    with pytest.raises(MissingFileError):
        scripted(place, text={"file": "absent.txt"})


def test_bases_of_one_name_are_refused(place: Path) -> None:
    shutil.copytree(place / "models" / "small", place / "elsewhere" / "small")
    with pytest.raises(UsageError, match="Two bases are called small"):
        scripted(place, models=["small", str(place / "elsewhere" / "small")])


def test_a_run_begins_with_what_earlier_ones_have_measured(place: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 4}}
    with new_run(place, "first") as run:
        first, _ = scripted(place, **few).run(run)
    shutil.rmtree(place / "runs" / "first" / "exports")
    with new_run(place, "second") as run:
        second, _ = scripted(place, **few).run(run)
        kept, events = {each.name for each in (run.path / "exports").iterdir()}, run.events
    (one,), (two,) = first.models, second.models
    old = [row for row in two.rows if row.remembered]
    assert {row.recipe for row in old} | {row.recipe for row in two.rows if row.arm == "made"} == {
        row.recipe for row in one.rows
    }
    assert {row.remembered for row in old} == {"first"}
    assert sum(row.seconds for row in old) == 0
    assert len([row for row in two.rows if row.arm == "search" and not row.remembered]) == 4
    assert f"{len(old)} of {len(two.rows)} recipes were measured by earlier runs, and not again: first." in two.remarks
    winner = next(row for row in two.rows if row.id == two.winner)
    assert winner.file in kept  # its export was gone, so that it was made again
    assert two.volumes[0].search >= two.volumes[0].other
    before = len(list((place / "memory" / "experiments").iterdir()))
    with new_run(place, "third") as run:  # meanwhile there is more to remember
        scripted(place, **few).run(run)
    assert len(list((place / "memory" / "experiments").iterdir())) == before + 4
    lines = (place / "runs" / "second" / "events.jsonl").read_bytes().splitlines(keepends=True)
    new_run(place, "cut").close()
    (place / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    with Run.resume(place / "runs" / "cut", Edge()) as run:
        scripted(place, **few).run(run)
        assert told(run.events) == told(events)
    new_run(place, "lost").close()
    (place / "runs" / "lost" / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    shutil.rmtree(place / "memory")
    with (
        Run.resume(place / "runs" / "lost", Edge()) as run,
        pytest.raises(RunMismatchError, match="are gone from its memory"),
    ):
        scripted(place, **few).run(run)


def test_what_cannot_be_remembered_costs_no_result(place: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 2}}
    with new_run(place) as run:
        work = scripted(place, **few)
        (place / "memory").mkdir()
        (place / "memory" / "knowledge").touch()  # no folder
        result, _ = work.run(run)
    assert result.models[0].remarks[-1].startswith("Nothing was remembered")


def test_a_mask_in_the_portfolio_hides_nothing_of_the_memory(place: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 2}, "first": 1}
    with new_run(place, "first") as run:
        scripted(place, **few).run(run)
    mask = {"pruner": "wanda", "pruning_sparsity": 0.5, "quantizer": "kquant", "quantization_bits": 8}
    with new_run(place, "second") as run:
        known = scripted(place, **few).config.recipes
        portfolio = [*(each.model_dump(exclude_defaults=True) for each in known), mask]
        result, _ = scripted(place, **few | {"portfolio": portfolio}).run(run)
    assert [row.remembered for row in result.models[0].rows].count("first") >= 2


def test_an_export_that_still_lies_in_an_earlier_run_is_not_made_again(place: Path) -> None:
    few: dict[str, Any] = {"remember": True, "memory": "memory", "budget": {"trials": 3}}
    few["goal"] = "smallest with kl < 0.1"
    with new_run(place, "first") as run:
        scripted(place, **few).run(run)
    with new_run(place, "second") as run:
        result, _ = scripted(place, **few | {"budget": {"trials": 1}}).run(run)
    (model,) = result.models
    winner = next(row for row in model.rows if row.id == model.winner)
    assert winner.remembered == "first"
    assert str(place / "runs" / "first" / "exports") in model.loads[0]


def test_the_graph_makes_the_same_trials_as_the_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langgraph", reason="needs the extra langgraph")
    from agentlab.integrations.langgraph import compress_graph

    tools = llm(**calls(("finish", ADVICE)))
    config = {"base": "small", "budget": {"trials": 6}, "remember": False, "first": 2, "llm": tools}
    with new_run(place, "command") as run:
        expected, _ = scripted(place, **config).run(run)
    monkeypatch.setenv("AGENTLAB_HOME", str(place))
    monkeypatch.setattr(CompressExperiment, "_opened", Scripted._opened)
    metered = CompressExperiment._meter
    monkeypatch.setattr(CompressExperiment, "_meter", lambda self, run, source: by_formula(metered(self, run, source)))
    graph = compress_graph(CompressConfig.model_validate(config))
    drawn = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    assert {("planner", "executor"), ("executor", "evaluator"), ("evaluator", "update")} <= drawn
    state = graph.invoke({})
    rows = [without_cost(row) for row in state["result"]["models"][0]["rows"]]
    assert rows == [without_cost(row.model_dump(mode="json")) for row in expected.models[0].rows]
    assert state["trials"] == 6
    assert told(read_events(Path(state["run"]) / "events.jsonl")) == told(run.events)


def test_a_graph_whose_budget_is_spent_reports_all_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langgraph", reason="needs the extra langgraph")
    from agentlab.integrations.langgraph import compress_graph

    monkeypatch.setenv("AGENTLAB_HOME", str(place))
    monkeypatch.setattr(CompressExperiment, "_opened", Scripted._opened)
    metered = CompressExperiment._meter
    monkeypatch.setattr(CompressExperiment, "_meter", lambda self, run, source: by_formula(metered(self, run, source)))
    config = {"base": "small", "budget": {"trials": 6, "seconds": 25}, "remember": False}
    state = compress_graph(CompressConfig.model_validate(config)).invoke({})
    assert "has passed the budget of 25 seconds" in state["over"] or "is expected to pass" in state["over"]
    assert state["trials"] == 2


KQUANT = {"quantizer": "kquant", "quantization_bits": 4}


def test_what_a_base_cannot_go_through_is_left_out_of_the_plan_and_refused_if_nothing_is_left(place: Path) -> None:
    file = place / "models" / "small" / "config.json"
    config = json.loads(file.read_text())
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    file.write_text(json.dumps({**config, "rope_parameters": rope}))
    plan = scripted(place).plan()
    assert "k-quants (Rotary embeddings of type dynamic" in plan.left_out["small"]
    assert plan.portfolio
    assert not [recipe for recipe in plan.portfolio if "Q4_K" in recipe or "Q8_0" in recipe]
    with pytest.raises(UsageError, match="No recipe of the portfolio can be carried out on small") as caught:
        scripted(place, portfolio=[KQUANT], first=1)
    assert caught.value.exit_code == 2


def test_what_a_base_cannot_go_through_is_not_searched_and_the_report_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, limits = Run.emit_once, [({"forbids": {"quantizer": ["kquant"]}}, "k-quants (no name)")]

    def emit_once(run: Run, type_: str, id_: str = "", **data: Any) -> Any:
        return tell(run, type_, id_, **data, **({"limits": limits} if type_ == BASE else {}))

    monkeypatch.setattr(Run, "emit_once", emit_once)
    with new_run(place) as run:
        result, _ = scripted(place, goal="smallest").run(run)
    rows = result.models[0].rows
    assert len(rows) >= 10
    assert "kquant" not in {row.params["quantizer"] for row in rows}
    assert "Left out, for this base cannot go through it: k-quants (no name)." in result.models[0].remarks
