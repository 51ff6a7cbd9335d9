"""Goals in other languages: a model's reading is held against the sentence, and counts only when somebody agrees."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.config import CompressConfig
from agentlab.compress.goal import read_goal
from agentlab.compress.goal_reader import GoalPart, goal_of, refusal, settle
from agentlab.config.workspace import Workspace
from agentlab.errors import UsageError
from agentlab.llm.config import LLMConfig
from agentlab.runs.context import Context
from tests.unit.compress.scripted import llm

Said = tuple[str, str, str]
GERMAN = "so klein wie möglich, höchstens 5 % Verlust"
SMALL, LITTLE = (
    ("objective", "so klein wie möglich", "least size"),
    ("bounds", "höchstens 5 % Verlust", "loss at most 5 %"),
)
DEFAULT = "loss at most 5% by default"
GOALS: list[tuple[str, list[Said], str]] = [
    (GERMAN, [SMALL, LITTLE], "least size, loss at most 5%"),
    (
        "le plus rapide possible, perte sous 2,5 %",
        [("objective", "le plus rapide possible", "most speed"), ("bounds", "perte sous 2,5 %", "loss at most 2.5 %")],
        "most speed, loss at most 2.5%",
    ),
    ("lo más pequeño posible", [("objective", "lo más pequeño posible", "least size")], f"least size, {DEFAULT}"),
    (
        "できるだけ小さく、損失は５％以下",
        [("objective", "できるだけ小さく", "least size"), ("bounds", "損失は５％以下", "loss at most 5 %")],
        "least size, loss at most 5%",
    ),
    (
        "在100MB以内质量最好",
        [("bounds", "在100MB以内", "size at most 100 MB"), ("objective", "质量最好", "least kl")],
        "least kl, size at most 100 MB",
    ),
    (
        "самая маленькая модель для телефона",
        [("objective", "самая маленькая модель", "least size"), ("device", "для телефона", "for edge devices")],
        f"least size for edge devices, {DEFAULT}",
    ),
    (
        "il più veloce, qualità almeno 95 %",
        [("objective", "il più veloce", "most speed"), ("bounds", "qualità almeno 95 %", "quality at least 95 %")],
        "most speed, loss at most 5%",
    ),
    (
        "zo klein mogelijk zonder merkbaar verlies",
        [
            ("objective", "zo klein mogelijk", "least size"),
            ("bounds", "zonder merkbaar verlies", "not noticeably worse"),
        ],
        f"least size, {DEFAULT}",
    ),
    (
        "بأصغر حجم مع خسارة أقل من ٥ %",
        [("objective", "بأصغر حجم", "least size"), ("bounds", "مع خسارة أقل من ٥ %", "loss at most 5 %")],
        "least size, loss at most 5%",
    ),
    (
        "가장 작게 kl < 0.3",
        [("objective", "가장 작게", "least size"), ("bounds", "kl < 0.3", "kl at most 0.3")],
        "least size, kl at most 0.3",
    ),
]


def parts(readings: list[Said]) -> list[GoalPart]:
    return [GoalPart(slot=slot, quote=quote, rule=rule) for slot, quote, rule in readings]  # type: ignore[arg-type]


def config(goal: str, readings: list[Said], tier: str = "full") -> CompressConfig:
    answer = json.dumps({"parts": [part.model_dump() for part in parts(readings)]})
    return CompressConfig.model_validate({"goal": goal, "llm": llm(tier, mode="replies", replies=[answer])})


@pytest.mark.parametrize(("text", "readings", "goal"), GOALS)
def test_other_languages_are_read_by_a_model_that_somebody_agrees_with(
    tmp_path: Path, text: str, readings: list[Said], goal: str
) -> None:
    prompts_seen: list[str] = []
    context = Context(Workspace(tmp_path, tmp_path), {}, ask_consent=lambda text: not prompts_seen.append(text))
    settled = settle(config(text, readings), context)
    assert settled.goal == goal == str(read_goal(goal))
    assert goal in prompts_seen[0]
    assert settle(settled, Context(context.workspace, {})) is settled  # nobody is asked again


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        ([SMALL], "not covered by any part: 'höchstens', '5 %', 'verlust'"),
        ([SMALL, ("bounds", "höchstens 5 % Verlust", "loss at most 3 %")], "numbers"),
        ([SMALL, ("bounds", "höchstens 5 % Verlust", "size at most 5 MB")], "numbers"),
        ([SMALL, ("bounds", "höchstens 5 % Verlust", "not noticeably worse")], "numbers"),
        ([SMALL, ("bounds", "at most 5 %", "loss at most 5 %")], "does not occur in the goal"),
        ([SMALL, SMALL, LITTLE], "in two parts"),
        ([SMALL, LITTLE, ("bounds", " ", "least kl")], "does not occur in the goal"),
        ([SMALL, ("bounds", "höchstens 5 % Verlust", "speed at most 5 %")], "reverse the comparison"),
        ([SMALL, ("data", "höchstens 5 % Verlust", "on MMLU 5 %")], "held-out text"),
        ([("objective", "so klein wie möglich", "so klein"), LITTLE], "contains unknown words"),
    ],
)
def test_a_reading_that_does_not_hold_is_refused(readings: list[Said], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        goal_of(GERMAN, parts(readings))


def test_a_thousand_in_one_country_is_one_in_another() -> None:
    with pytest.raises(UsageError, match="numbers"):
        goal_of("unter 1,500 MB", parts([("bounds", "unter 1,500 MB", "size at most 1.5 MB")]))


def test_without_a_yes_nothing_is_done_and_the_rule_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="least size, loss at most 5%") as caught:
        settle(config(GERMAN, [SMALL, LITTLE]), Context(workspace, {}))
    assert "--yes" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="must be confirmed"):
        settle(config(GERMAN, [SMALL, LITTLE]), Context(workspace, {}, ask_consent=lambda _: False))
    with pytest.raises(UsageError, match=r"'klein'.*could not interpret it"):
        settle(config(GERMAN, [SMALL]), Context(workspace, {}, ask_consent=lambda _: True))


def model(provider: dict[str, Any], name: str, tier: str = "pick") -> LLMConfig:
    models = {"m": {"provider": "p", "id": name, "tier": tier}}
    return LLMConfig.model_validate({"providers": {"p": provider}, "models": models, "roles": {"primary": ["m"]}})


HOSTED = {"kind": "openai_compat", "base_url": "https://openrouter.ai/api/v1"}
OLLAMA = {"kind": "openai_compat", "base_url": "http://127.0.0.1:11434/v1"}


@pytest.mark.parametrize(
    ("models", "reads"),
    [
        (LLMConfig(), False),
        (model(HOSTED, "vendor/name"), True),
        (model(OLLAMA, "qwen2.5:7b-instruct"), True),
        (model(OLLAMA, "qwen2.5:0.5b", "full"), False),
        (model(OLLAMA, "mystery"), False),
        (model(OLLAMA, "mystery", "edit"), True),
        (model({"kind": "gguf", "model_path": "smollm2-135m"}, "smollm2-135m", "full"), False),
        (model({"kind": "gguf", "model_path": "models/Qwen2.5-1.5B-Q4_K_M.gguf"}, "smollm2-135m"), True),
    ],
)
def test_only_hosted_models_and_large_ones_read_goals(models: LLMConfig, reads: bool) -> None:
    assert ("1B" not in refusal(GERMAN, models)) == reads
    assert ("klein" not in refusal(GERMAN, models)) == reads
    assert refusal("smallest", models) == ""
