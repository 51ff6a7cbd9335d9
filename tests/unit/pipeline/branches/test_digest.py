"""Configs by the ids of their stages, and the inputs a run kept."""

from agentlab.pipeline.branches.digest import by_id, changes, config_of, describe_change, inputs_of, shorten_value
from tests.unit.pipeline.workshop import STAGES, Workshop


def test_stages_stand_under_their_ids() -> None:
    config = by_id({"base_pipeline": {"stages": STAGES}, "list": [1, 2], "empty": []})
    assert config["base_pipeline"]["stages"]["draft"]["temperature"] == 0.7
    assert (config["list"], config["empty"]) == ([1, 2], [])


def test_a_list_whose_ids_are_not_different_stays_a_list() -> None:
    twins = [{"id": "a", "x": 1}, {"id": "a", "x": 2}]
    assert by_id(twins) == twins


def test_where_a_rerun_begins_is_no_change_of_its_config() -> None:
    first, second = {"seed": 1, "a": {"b": 1}}, {"seed": 1, "a": {"b": 2}, "branch": {"run": "x", "stage": "y"}}
    assert [describe_change(change) for change in changes(first, second)] == ["a.b: 1 → 2"]


def test_a_long_value_is_cut() -> None:
    assert shorten_value("x " * 100, 9) == "x x x x …"
    assert shorten_value(None) == "–"


def test_inputs_are_those_the_run_copied(workshop: Workshop) -> None:
    one = workshop.run("one", {"draft": "d", "final": "f"}, given="the sky")
    many = workshop.run("many", {"draft": "d", "final": "f"}, given=["the sky", "the sea"])
    assert inputs_of(one, config_of(one)) == {"": "the sky"}
    assert inputs_of(many, config_of(many)) == {"0001": "the sky", "0002": "the sea"}


def test_damaged_lines_of_inputs_are_left_out(workshop: Workshop) -> None:
    many = workshop.run("many", {"draft": "d", "final": "f"}, given=["the sky", "the sea", "the sun"])
    lines = (many.path / "inputs.jsonl").read_text().split("\n")
    (many.path / "inputs.jsonl").write_text("\n".join([lines[0], "{torn", '{"input": 5}', '"the sun"']))
    assert inputs_of(many, config_of(many)) == {"0001": "the sky", "0004": "the sun"}


def test_a_run_without_config_and_inputs_has_none(workshop: Workshop) -> None:
    one = workshop.run("one", {"draft": "d", "final": "f"})
    (one.path / "inputs.jsonl").unlink()
    (one.path / "config.yaml").write_text("input: the sky\n")
    assert inputs_of(one, config_of(one)) == {"": "the sky"}
    (one.path / "config.yaml").write_text("a: [torn")
    assert config_of(one) == {}
    assert inputs_of(one, config_of(one)) == {}
