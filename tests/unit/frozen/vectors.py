"""Keys of many drawn questions and recipes: under these, kept answers, replays and measured recipes are found again.

`keys` says which fields are hashed; here their values vary: 200 questions over six kinds of providers, texts in several
scripts, schemas, tools and parameters, and 50 recipes. `python -m tests.unit.frozen.vectors` prints the present keys;
`vectors.json` holds those of the version that users have answers of. Types may change: then `key_question` and
`key_recipe` build the same from the new ones.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentlab.compress.experiment_memory import hash_parts
from agentlab.compress.recipe import Recipe
from agentlab.llm.completions import build_call
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.question import ResponseCache, candidate_of
from agentlab.llm.types import Message, Tool, ToolCall
from agentlab.pipeline.answer import PipelineQuestion, key_of

VECTORS_FILE = Path(__file__).with_name("vectors.json")
QUESTIONS, RECIPES = 200, 50

_PROVIDERS: dict[str, dict[str, Any]] = {
    "script": {"kind": "scripted", "mode": "replies", "replies": ["Po"]},
    "api": {"kind": "openai_compat", "base_url": "http://localhost:1/v1", "api_key": "${RIVER_API_KEY}"},
    "claude": {"kind": "anthropic", "api_key": "${RIVER_API_KEY}"},
    "file": {"kind": "gguf", "model_path": "river.gguf"},
    "base": {"kind": "hf", "model_path": "river"},
    "adapted": {"kind": "hf", "model_path": "river", "adapter": "danube"},
}
_TEXTS = (
    "Which river?",
    "",
    "Où est l'Oder\N{NO-BREAK SPACE}?",
    "長江",
    "a\nb\r\n\tc",
    "x" * 5_000,
    "\ud83d",
    '{"a": "\\u00e9"}',
)
_SCHEMAS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
    {"properties": {"z": {"type": "integer"}, "a": {"type": "integer"}}, "type": "object"},
    {"type": "object", "properties": {"one": {"enum": ["Po", "Rhône"]}}, "additionalProperties": False},
)
_TOOL = {"name": "look_up", "description": "A river's length.", "parameters": {"type": "object", "properties": {}}}


def draw_question(generator: random.Random) -> dict[str, Any]:
    """A question in plain data: whom it goes to, what it says, and how it is to be answered."""
    roles = ["user", *generator.choices(["system", "user", "assistant"], k=generator.randrange(4))]
    return {
        "model": generator.choice([*_PROVIDERS]),
        "task": generator.choice(["rivers", "nas.propose", "debate.turn"]),
        "call": generator.choice(["", "run_0001", "wave-001"]),
        "messages": [(role, generator.choice(_TEXTS)) for role in roles],
        "schema": generator.choice(_SCHEMAS),
        "tools": generator.choice([[], [_TOOL]]),
        "tool_choice": generator.choice(["auto", "required"]),
        "temperature": generator.choice([0.0, 0.7, 1.0]),
        "top_p": generator.choice([None, 0.9]),
        "max_tokens": generator.choice([1, 40, 512]),
        "seed": generator.randrange(2**31),
        "stop": generator.choice([[], ["\n"], ["###", "長"]]),
        "logprob": generator.random() < 0.3,
        "numerics": generator.choice([{}, {"flash": True, "kv_type": "q8_0", "batch": 128, "gpu_layers": 3}]),
    }


def draw_recipe(generator: random.Random) -> dict[str, Any]:
    """Settings that fit each other."""
    choices: dict[str, list[Any]] = {
        "structure": ["none", "width", "layers"],
        "kept": [1.0, 0.7, 0.9],
        "vocabulary": ["all", "seen"],
        "pruner": ["none", "wanda", "sparsegpt", "magnitude"],
        "pruning_sparsity": [None, 0.5, "2:4"],
        "recovery": ["none", "lora", "distil"],
        "quantizer": ["none", "rtn", "gptq", "awq", "bitsandbytes", "kquant"],
        "quantization_bits": [2, 3, 4, 5, 6, 8, 16],
        "group": [32, 64, 128],
        "importance": [False, True],
        "cache": ["f16", "q8_0"],
    }
    while True:
        params = {name: generator.choice(values) for name, values in choices.items()}
        try:
            Recipe.model_validate(params)
        except ValidationError:
            continue
        return params


def key_question(question: dict[str, Any]) -> dict[str, str]:
    """What an answer is found under: in a run's events, in the cache of the router, in a pipeline's store."""
    config = _make_config()
    options = Options(
        model=question["model"],
        json_schema=question["schema"],
        tools=tuple(Tool(**tool) for tool in question["tools"]),
        tool_choice=question["tool_choice"],
        temperature=question["temperature"],
        top_p=question["top_p"],
        max_tokens=question["max_tokens"],
        seed=question["seed"],
        stop=tuple(question["stop"]),
    )
    messages = [Message(role, text) for role, text in question["messages"]]
    messages.append(Message("assistant", "", (ToolCall("c1", "look_up", "{}"),)))
    call = build_call(config, messages, question["task"], None, options, question["call"])
    cache = ResponseCache(config, MemoryLedger())
    local = PipelineQuestion(
        messages=tuple(question["messages"]),
        model=question["model"],
        fingerprint=f"sha256:{question['model']}",
        numerics=question["numerics"],
        temperature=question["temperature"],
        top_p=question["top_p"],
        max_tokens=question["max_tokens"],
        seed=question["seed"],
        stop=tuple(question["stop"]),
        schema=question["schema"],
        logprob=question["logprob"],
    )
    return {
        "replay": call.key,
        "kept": cache._key(call.question, candidate_of(config, question["model"])),
        "pipeline": key_of(local),
    }


def key_recipe(params: dict[str, Any]) -> str:
    """What a measured recipe is found under in the memory of runs."""
    return hash_parts("texts", "training", Recipe.model_validate(params).model_dump(exclude_defaults=True))


def compute_vectors() -> dict[str, Any]:
    """All keys, in the order in which questions and recipes are drawn."""
    generator = random.Random(31)
    questions = [key_question(draw_question(generator)) for _ in range(QUESTIONS)]
    return {"questions": questions, "recipes": [key_recipe(draw_recipe(generator)) for _ in range(RECIPES)]}


def _make_config() -> LLMConfig:
    models = {name: {"provider": name, "id": f"{name}-id", "caps": ["schema", "tools"]} for name in _PROVIDERS}
    tree = {"providers": _PROVIDERS, "models": models, "roles": {"primary": [*models]}}
    return LLMConfig.model_validate(tree, context={"env": {}})


if __name__ == "__main__":
    json.dump(compute_vectors(), sys.stdout, indent=0)
