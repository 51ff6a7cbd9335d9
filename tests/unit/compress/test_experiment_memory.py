"""Experiments are files; what is said of them is counted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.experiment_memory import (
    CompressMemory,
    RememberedExperiment,
    on_one_text,
    query_memory,
    statements,
)
from agentlab.compress.goal import read_goal
from agentlab.errors import ModelFileError, StorageError, UnknownNameError


def experiment(kl: float, size: float = 0.5, **recipe: Any) -> RememberedExperiment:
    shares = {"size": size, "speed": 1.0, "loss": kl, "kl": kl}
    metrics = {"shares": shares, "size": int(size * 100), "kl": kl, "loss": kl, "seconds": 2.0, "joules": 4.0}
    return RememberedExperiment(
        key="-".join(map(str, recipe.values())),
        base="small",
        texts="t",
        training="",
        recipe=recipe,
        status="finished",
        error="",
        metrics=metrics,
        objectives=[size, kl],
        windows=[],
        run="r",
    )


def grid() -> list[RememberedExperiment]:
    """GPTQ halves what RTN loses, whatever the group."""
    return [
        experiment(kl / divisor, quantizer=quantizer, quantization_bits=4, group=group)
        for quantizer, divisor in (("rtn", 1), ("gptq", 2))
        for group, kl in ((32, 0.2), (64, 0.3), (128, 0.4))
    ]


def test_a_statement_is_made_of_all_pairs_that_differ_in_one_setting() -> None:
    measurements = [(remembered.parsed_recipe, remembered.objectives, remembered.texts) for remembered in grid()]
    (statement,) = [line for line in statements(measurements) if line.startswith("quantizer")]
    assert statement == "quantizer gptq -> rtn: bytes x 1.0000 [1.0000, 1.0000], KL x 2.0000 [2.0000, 2.0000], n = 3"
    assert all("too few for an interval" in line for line in statements(measurements) if line.startswith("group"))
    assert statements(measurements[:1]) == []
    assert statements([(recipe, objectives, index) for index, (recipe, objectives, _) in enumerate(measurements)]) == []


def test_an_experiment_is_kept_once_as_it_was_first_found(tmp_path: Path) -> None:
    memory = CompressMemory(tmp_path)
    memory.keep([experiment(0.2, quantizer="rtn", quantization_bits=8)], {})
    memory.keep([experiment(0.9, quantizer="rtn", quantization_bits=8)], {"rtn-8": tmp_path / "absent"})
    (remembered,) = memory.experiments()
    assert remembered.metrics["kl"] == 0.2
    assert memory.export("rtn-8") is None
    (tmp_path / "absent").mkdir()
    assert memory.export("rtn-8") == tmp_path / "absent"
    assert remembered.result(read_goal("minimise kl"), None).metrics["then"]["seconds"] == 2.0


def test_questions_are_of_settings_and_goals(tmp_path: Path) -> None:
    memory = CompressMemory(tmp_path)
    memory.keep(grid(), {})
    assert len(query_memory(memory, "small", {"quantizer": "gptq"}).experiments) == 3
    assert query_memory(memory, "other", {}).experiments == []
    (best,) = query_memory(memory, None, {}, read_goal("minimise kl")).experiments
    assert best.metrics["kl"] == 0.1
    with pytest.raises(UnknownNameError):
        query_memory(memory, None, {"bits": "4"})


@pytest.mark.parametrize(
    "change",
    [
        {"base": "../../elsewhere"},
        {"key": "another"},
        {"recipe": {"quantizer": "none of them"}},
        {"recipe": {"bits": 4}},
        {"metrics": {}},
        {"objectives": [0.5]},
        {"objectives": [float("nan"), 0.1]},
        {"metrics": {"shares": {"size": 1, "speed": 1, "loss": 0, "kl": float("inf")}, "size": 1, "joules": 1}},
        {"windows": None},
    ],
    ids=str,
)
def test_what_is_no_experiment_is_named_before_a_run_begins(tmp_path: Path, change: dict[str, Any]) -> None:
    memory, good = CompressMemory(tmp_path / "memory"), experiment(0.2, quantizer="rtn", quantization_bits=8)
    memory.check()
    memory.keep([good], {})
    memory.check()
    path = tmp_path / "memory" / "experiments" / "rtn-8.json"
    path.write_text(json.dumps({**good.model_dump(), **change}))
    with pytest.raises(ModelFileError, match=r"rtn-8.json is not a valid experiment"):
        memory.check()
    path.unlink()
    os.mkfifo(path)  # which would be read for ever
    with pytest.raises(ModelFileError, match=r"rtn-8.json is not a valid experiment"):
        memory.check()


def test_a_memory_that_cannot_be_written_is_named_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(StorageError, match="is not a writable folder"):
            CompressMemory(tmp_path / name).check()


def test_figures_of_two_texts_are_not_put_side_by_side() -> None:
    one, two = grid(), [remembered.model_copy(update={"texts": "u", "run": "s"}) for remembered in grid()[:2]]
    assert on_one_text([*two, *one], "small") == (one, two)
    assert on_one_text([*two, *one], "small", "s") == (two, one)
    assert on_one_text([*two, *one], "small", "x") == ([], [*two, *one])
    assert on_one_text(one, "other") == ([], one)
