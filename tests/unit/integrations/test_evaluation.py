"""What a harness found becomes one table and one file for each model."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import UsageError
from agentlab.integrations.evaluation import BASE, Evaluated, Evaluation, Measure, file_of, unique_names, write
from agentlab.runs.document import Table


def results(right: list[float], perplexity: float) -> dict[str, Any]:
    """As lm-eval says them: a task with a mean, a metric that is none, and a second filter."""
    samples = [
        {
            "doc_id": index,
            "doc": {"q": "secret"},
            "filter": "none",
            "metrics": ["acc", "ppl"],
            "acc": hit,
            "ppl": [1, 2],
        }
        for index, hit in enumerate(right)
    ]
    samples += [{**sample, "filter": "strict", "acc": 0.0} for sample in samples]
    metrics = {"alias": "t", "acc,none": sum(right) / len(right), "acc_stderr,none": "N/A", "acc,strict": 0.0}
    return {
        "results": {"t": {**metrics, "ppl,none": perplexity, "sample_len": len(right)}},
        "n-samples": {"t": {"original": 100, "effective": len(right)}},
        "samples": {"t": samples},
    }


BEFORE, AFTER = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]


def test_metrics_are_compared_item_by_item_where_they_are_means() -> None:
    evaluations = {BASE: Evaluated.of(results(BEFORE, 9.0)), "a": Evaluated.of(results(AFTER, 7.0))}
    accuracy, strict, perplexity = Evaluation.of("tiny", "lm-eval", evaluations, []).lines
    score = accuracy.adapters["a"]
    assert (accuracy.task, accuracy.metric, accuracy.n, accuracy.base) == ("t", "acc", 6, 0.5)
    assert (score.value, score.difference) == pytest.approx((4 / 6, 1 / 6))
    assert score.low < 0 < score.high  # two items of six are better, one is worse
    assert (strict.metric, strict.adapters["a"].difference) == ("acc (strict)", 0.0)
    assert perplexity.adapters["a"].model_dump() == {"value": 7.0, "difference": -2.0, "low": None, "high": None}


def test_a_metric_that_only_looks_like_a_mean_gets_no_interval() -> None:
    tree = results(BEFORE, 9.0)
    tree["results"]["t"]["acc,none"] = 0.7  # such as F1 or Matthews' correlation of the same items
    assert Evaluated.of(tree).measures["t", "acc"] == Measure(0.7, 6, None)


def test_what_is_not_a_number_is_nothing() -> None:
    tree = results(BEFORE, 9.0)
    tree["results"]["t"]["acc,none"] = None
    evaluations = {BASE: Evaluated.of(tree), "a": Evaluated.of(results(AFTER, 7.0))}
    line = Evaluation.of("tiny", "lm-eval", evaluations, []).lines[0]
    assert (line.base, line.adapters["a"].difference) == (None, None)


def test_people_see_a_column_for_each_adapter_and_its_difference() -> None:
    evaluations = {BASE: Evaluated.of(results(BEFORE, 9.0)), "a": Evaluated.of(results(AFTER, 7.0))}
    table = Evaluation.of("tiny", "lm-eval", evaluations, [Path("out/a_eval.json")]).blocks()[0]
    assert isinstance(table, Table)
    assert table.columns == ("task", "metric", "items", "base", "a", "a − base")
    assert list(table.rows[0])[:5] == ["t", "acc", "6", "0.5000", "0.6667"]
    assert table.rows[0][5].startswith("+0.167 [-0.")
    assert table.rows[2][5] == "-2.0000"


def test_each_file_keeps_the_items_without_their_texts(tmp_path: Path) -> None:
    evaluations = {BASE: Evaluated.of(results(BEFORE, 9.0)), "org/a": Evaluated.of(results(AFTER, 7.0))}
    files = write(tmp_path / "out", "tiny", evaluations)
    assert files == [file_of(tmp_path / "out", name) for name in (BASE, "org/a")]
    text = (tmp_path / "out" / "org_a_eval.json").read_text()
    assert "secret" not in text
    tree = json.loads(text)
    assert [sample["acc"] for sample in tree["items"]["t"] if sample["filter"] == "none"] == AFTER
    assert tree["base"] == "tiny"


def test_no_adapter_is_called_as_the_base_is() -> None:
    assert unique_names(["a", "b", "a"]) == ["a", "b"]
    with pytest.raises(UsageError, match="is named base"):
        unique_names(["base"])
