"""What is found between the parts of a config, each problem with its place."""

from typing import Any

import pytest

from agentlab.pipeline.config import PipelineConfig

MODELS = {"small": {"file": "small.gguf"}, "far": {"provider": "router", "model": "cloud"}}
LLM = {
    "providers": {"there": {"kind": "scripted"}},
    "models": {"cloud": {"provider": "there", "id": "x"}},
    "roles": {"primary": ["cloud"]},
}


def found(*stages: dict[str, Any], **fields: Any) -> dict[str, str]:
    """Problems by dotted place below the stages."""
    data = {"models": MODELS, "llm": LLM, "base_pipeline": {"stages": list(stages)}, **fields}
    config = PipelineConfig.model_validate(data)
    return {".".join(key).removeprefix("base_pipeline.stages."): sentence for key, sentence in config.problems()}


def stage(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "model": "small", **fields} if "models" not in fields else {"id": id_, **fields}


def test_a_sound_pipeline_has_none() -> None:
    assert found(stage("a"), stage("b", prompt="{{ stages.a.output }} {{ input }}")) == {}


@pytest.mark.parametrize(
    ("stages", "location", "part"),
    [
        ([stage("a", model="smal")], "0.model", "Did you mean small"),
        ([stage("a", fallback_models=["tiny"])], "0.fallback_models.0", "no model named 'tiny'"),
        ([stage("a"), stage("a")], "1.id", "two stages have the id a"),
        ([stage("input")], "0.id", "choose another id"),
        ([stage("draft"), stage("b", input_from="draff")], "1.input_from", "Did you mean draft"),
        ([stage("a", input_from="b"), stage("b")], "0.input_from", "a cycle: a reads b reads a"),
        ([stage("a", input_from="c"), stage("b"), stage("c", input_from="input")], "0.input_from", "move c up"),
        ([stage("a", input_from="a")], "0.input_from", "a cycle: a reads a"),
        ([stage("a"), stage("b", input_from=["a", "a"])], "1.input_from", "listed twice"),
        ([stage("a", prompt="{{ stages.z.output }}")], "0.prompt", "no stage named 'z'"),
        ([stage("a", prompt="{{ input")], "0.prompt", "template"),
        ([stage("a", when="1 +")], "0.when", ""),
        ([stage("a", samples=3, aggregation="vote")], "0.aggregation", "free text cannot be voted on"),
        ([stage("a", models=["small", "far"], aggregation="best_of")], "0.aggregation", "far does not report"),
        (
            [stage("a", samples=2, fallback_models=["far"], aggregation="best_of")],
            "0.aggregation",
            "far does not report",
        ),
        ([stage("a", samples=2, aggregation={"method": "judge", "model": "x"})], "0.aggregation.model", "named 'x'"),
        ([stage("a", response_schema={"type": "objekt"})], "0.response_schema", "not a valid JSON schema"),
        ([stage("a", prompt="{{ previous.a.output }}")], "0.prompt", "is not in a loop"),
        (
            [stage("a", repeat_until={"condition": "visit > 1", "start": "b"}), stage("b")],
            "0.repeat_until.start",
            "no earlier stage named 'b'",
        ),
        (
            [
                stage("a"),
                stage("b", repeat_until={"condition": "true", "start": "a"}),
                stage("c", repeat_until={"condition": "true", "start": "b"}),
            ],
            "2.repeat_until",
            "b already belongs to the loop that ends in b",
        ),
    ],
)
def test_problems_name_their_place(stages: list[dict[str, Any]], location: str, part: str) -> None:
    problems = found(*stages)
    assert location in problems
    assert part in problems[location]


def test_the_mode_needs_its_stages() -> None:
    assert "manual_pipeline" in found(stage("a"), mode="manual")["manual_pipeline"]


def test_inputs_exclude_each_other() -> None:
    assert "cannot be combined" in found(stage("a"), input="x", inputs="y.jsonl")["inputs"]


def test_a_router_model_has_to_be_one_of_llm() -> None:
    models = {**MODELS, "far": {"provider": "router", "model": "clout"}}
    assert "Did you mean cloud" in found(stage("a"), models=models)["models.far.model"]


def test_a_small_attention_cache_needs_flash_attention() -> None:
    assert "flash_attn" in found(stage("a"), defaults={"kv_type": "q8_0", "flash_attn": False})["models.small"]
