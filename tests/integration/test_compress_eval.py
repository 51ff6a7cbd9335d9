"""The exports of a compression on a task of lm-evaluation-harness. `make test-lm-eval` runs it."""

import json
from pathlib import Path

import pytest

from cli.main import main
from tests.integration.test_compress import SMALL, workspace

pytestmark = pytest.mark.timeout(600)
pytest.importorskip("lm_eval", reason="the extra eval is not installed; `make test-lm-eval` has it")

__all__ = ["workspace"]
PORTFOLIO = [
    {"quantizer": "kquant", "quantization_bits": 8},
    {"quantizer": "rtn", "quantization_bits": 4, "group": 32},
    {"quantizer": "bitsandbytes", "quantization_bits": 4},
]


def test_exports_of_every_format_are_scored_beside_their_base(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"portfolio": PORTFOLIO, "first": 3, "budget": {"trials": 3}, "goal": "smallest at any loss"}
    (workspace / "small.yaml").write_text(json.dumps(SMALL | few))
    assert main(["compress", "./small.yaml", "--json", "-q", "--run-name", "r"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["result"]["models"]
    front = [row["id"] for row in model["rows"] if row["front"]]
    items = [{"q": f"{n} and {n} is", "choices": [str(2 * n), str(3 * n)], "right": n % 2} for n in range(1, 9)]
    (workspace / "items.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in items))
    task = {
        "task": "sums", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(workspace / "items.jsonl")}},
        "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}", "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    (workspace / "tasks").mkdir()
    (workspace / "tasks" / "sums.yaml").write_text(json.dumps(task))
    assert main(["compress", "eval", "r", "--tasks", "sums", "--include-path", "tasks", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    (line,) = result["lines"]
    assert line["n"] == 8
    assert sorted(line["adapters"]) == sorted(front)
    assert {entry.name for entry in (workspace / "out").iterdir()} == {f"{name}_eval.json" for name in ("base", *front)}
    assert main(["compress", "eval", "r", "--tasks", "sums", "--base", "absent"]) == 2
