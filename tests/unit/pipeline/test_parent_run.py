"""What a rerun takes over, and what it refuses to change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import MissingFileError, RunMismatchError, UnknownNameError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.items import PipelineInput, copy_of
from agentlab.pipeline.parent_run import Parent, check_unchanged, following, parent_of
from tests.unit.pipeline.workshop import Workshop, workshop

__all__ = ["workshop"]

LLM = {
    "providers": {"there": {"kind": "openai_compat", "base_url": "https://example.org/v1"}},
    "models": {"cloud": {"provider": "there", "id": "x"}},
    "roles": {"primary": ["cloud"]},
}
MODELS = {
    "m": {"file": "m.gguf"},
    "n": {"file": "n.gguf"},
    "far": {"provider": "router", "model": "cloud"},
}


def config(*stages: Mapping[str, Any], **fields: Any) -> PipelineConfig:
    stage_configs = [{"model": "m", **stage} if "models" not in stage else stage for stage in stages]
    data = {"models": MODELS, "llm": LLM, "base_pipeline": {"stages": stage_configs}, **fields}
    return PipelineConfig.model_validate(data)


FORK = ({"id": "a"}, {"id": "b"}, {"id": "c", "input_from": "a"}, {"id": "d", "input_from": ["b", "c"]})


def test_what_follows_from_a_stage_runs_again() -> None:
    stages = config(*FORK).stages
    assert following(stages, "b") == {"b", "d"}
    assert following(stages, "a") == {"a", "b", "c", "d"}


def test_a_mention_in_a_template_is_a_dependence() -> None:
    stages = config({"id": "a"}, {"id": "b", "input_from": "input", "prompt": "{{ stages.a.output }}"}).stages
    assert following(stages, "a") == {"a", "b"}


def test_stages_of_a_loop_run_again_together() -> None:
    loop = {"condition": "true", "start": "a"}
    stages = config({"id": "a"}, {"id": "b", "repeat_until": loop}, {"id": "c", "input_from": "a"}).stages
    assert following(stages, "b") == {"a", "b", "c"}


def test_an_unknown_stage_is_named() -> None:
    with pytest.raises(UnknownNameError):
        following(config(*FORK).stages, "z")


def test_a_change_before_the_first_stage_is_refused() -> None:
    changed = config({"id": "a", "max_tokens": 5}, *FORK[1:])
    with pytest.raises(RunMismatchError, match="a changed"):
        check_unchanged(config(*FORK), changed, "b")
    check_unchanged(config(*FORK), changed, "a")


DRAFT = {"id": "a", "prompt": "{{ input }} {{ params.tone }}", "temperature": 1}
GREEDY = {"id": "a"}
REMOTE = {"id": "a", "model": "far"}
JUDGED = {"id": "a", "models": ["m", "m"], "aggregation": {"method": "judge", "model": "n"}}
PLAIN: dict[str, Any] = {"params": {"tone": "kind"}}


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (DRAFT, {"seed": 5}, "seed changed, which affects the answer of a"),
        (REMOTE, {"seed": 5}, "seed changed"),
        (JUDGED, {"seed": 5}, "seed changed"),
        (DRAFT, {"params": {"tone": "stern"}}, "params changed"),
        (GREEDY, {"defaults": {"temperature": 0.9}}, "the sampling settings of m changed"),
        (GREEDY, {"defaults": {"kv_type": "q8_0"}}, "the engine settings of m changed"),
        (GREEDY, {"models_directory": "elsewhere"}, "models_directory changed"),
        (GREEDY, {"models": {**MODELS, "m": {"file": "other.gguf"}}}, "the model m changed"),
        (JUDGED, {"models": {**MODELS, "n": {"file": "other.gguf"}}}, "the model n changed"),
        (JUDGED, {"models": {**MODELS, "n": {"file": "n.gguf", "overrides": {"n_ctx": 512}}}}, "the context size of n"),
        (
            REMOTE,
            {"llm": {**LLM, "providers": {"there": {"kind": "scripted"}}}},
            "llm.models.cloud changed, which affects the answer of a",
        ),
        (
            {**GREEDY, "fallback_models": ["n"]},
            {"models": {**MODELS, "n": {"file": "other.gguf"}}},
            "the model n changed",
        ),
        (GREEDY, {"input": "else"}, "`input` changed, but the parent's answer for a would be reused"),
        (GREEDY, {"input_file": "else.txt"}, "`input_file` changed"),
        (GREEDY, {"inputs": "else.jsonl"}, "`inputs` changed"),
    ],
)
def test_whatever_decides_an_answer_that_is_taken_over_may_not_change(
    stage: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    before, after = config(stage, {"id": "b"}, **PLAIN), config(stage, {"id": "b"}, **{**PLAIN, **changes})
    with pytest.raises(RunMismatchError, match=message) as caught:
        check_unchanged(before, after, "b")
    assert caught.value.hint
    check_unchanged(before, after, "a")  # nothing is taken over


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (GREEDY, {"seed": 5}),
        ({**DRAFT, "seed": 1}, {"seed": 5}),
        (GREEDY, {"params": {"tone": "stern"}}),
        (DRAFT, {"defaults": {"temperature": 0.9}}),
        (GREEDY, {"defaults": {"n_ctx": 8192, "timeout_s": 9}}),
        (GREEDY, {"models": {**MODELS, "n": {"file": "other.gguf"}}}),
        (GREEDY, {"llm": {**LLM, "models": {"cloud": {"provider": "there", "id": "y"}}}}),
        (REMOTE, {"llm": {**LLM, "defaults": {"retries": 3}}}),
    ],
)
def test_what_decides_nothing_of_it_may(stage: dict[str, Any], changes: dict[str, Any]) -> None:
    check_unchanged(
        config(stage, {"id": "b"}, **PLAIN), config(stage, {"id": "b", "model": "n"}, **{**PLAIN, **changes}), "b"
    )


def test_a_stage_that_reads_something_else_was_changed() -> None:
    with pytest.raises(RunMismatchError, match="the input of b changed"):
        check_unchanged(config({"id": "a"}, {"id": "b"}, {"id": "c"}), config({"id": "b"}, {"id": "c"}), "c")


# -- from its folder ----------------------------------------------------------------------------------------------

TWO = ({"id": "a", "model": "m"}, {"id": "b", "model": "m"})


def folder(
    shop: Workshop, ends: Sequence[tuple[str, Mapping[str, Any]]], inputs: int = 1, stages: Sequence[Any] = TWO
) -> Path:
    """The folder of a run of which these steps ended, with their `why`."""
    run_config = {"models": {"m": {"file": "m.gguf"}}, "input": "x", "base_pipeline": {"stages": list(stages)}}
    with shop.open("parent", config=run_config) as run:
        run.start({})
        run.write_text("inputs.jsonl", copy_of([PipelineInput("", "x")]))
        run.emit("inputs.taken", count=inputs)
        for name, explanation in ends:
            run.emit("call.answered", name, key="k")
            run.emit("stage.finished", name, sha="0", status="done", why=dict(explanation), seconds=0.0)
    return shop.runs_dir / "parent"


def child(path: Path, first: str, stages: Sequence[Any] = TWO, **changes: Any) -> PipelineConfig:
    branch = {"run": str(path), "stage": first}
    data = {"models": {"m": {"file": "m.gguf"}}, "input": "x", "base_pipeline": {"stages": list(stages)}}
    return PipelineConfig.model_validate({**data, "branch": branch, **changes})


def test_stages_that_ended_are_taken_over(workshop: Workshop) -> None:
    path = folder(workshop, [("a", {}), ("b", {})])
    parent = parent_of(child(path, "b"), {})
    assert (parent.run, parent.path, parent.inputs, parent.gone) == ("parent", path, path, False)
    assert parent.taken == {"a"}
    assert [event.id for event in parent.inherited if event.type == "call.answered"] == ["a"]


@pytest.mark.parametrize(
    ("ends", "inputs"),
    [
        ([], 1),
        ([("a", {"error": {"kind": "E", "message": ""}})], 1),
        ([("a", {"failed": {"a/m": "no"}})], 1),
        ([("0001:a", {})], 2),
    ],
)
def test_a_stage_that_has_to_be_asked_again_is_not(
    workshop: Workshop, ends: list[tuple[str, dict[str, Any]]], inputs: int
) -> None:
    assert parent_of(child(folder(workshop, ends, inputs), "b"), {}).taken == frozenset()


def test_a_loop_is_taken_over_when_all_its_visits_ended(workshop: Workshop) -> None:
    stages = ({**TWO[0], "repeat_until": {"condition": "true", "max_visits": 2}}, TWO[1])
    path = folder(workshop, [("a", {}), ("a@2", {})], stages=stages)
    assert parent_of(child(path, "b", stages), {}).taken == {"a"}


def test_another_input_is_read_when_everything_runs_again(workshop: Workshop) -> None:
    path = folder(workshop, [("a", {}), ("b", {})])
    assert parent_of(child(path, "a", input="else"), {}).inputs is None
    assert parent_of(child(path, "a"), {}).inputs == path


def test_a_resumed_run_goes_on_without_a_parent_that_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "parent"
    assert parent_of(child(path, "b"), {}, resumed=True) == Parent("parent", path, gone=True)
    with pytest.raises(MissingFileError, match="whose answers this run reuses, does not exist"):
        parent_of(child(path, "b"), {})
