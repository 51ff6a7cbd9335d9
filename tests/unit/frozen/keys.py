"""Keys as they are computed, for fixed inputs: under these, answers, recipes and trainings of earlier runs are found.

A key is a hash of field names and values. Whoever renames a field that is hashed, or a class or docstring that a
language model is shown in a schema, makes every answer that was kept under it impossible to find.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from agentlab.commands import COMMANDS
from agentlab.compress.config import CompressConfig
from agentlab.compress.experiment_memory import hash_parts
from agentlab.compress.recipe import recipe_of
from agentlab.config.base import config_hash
from agentlab.debate import wave
from agentlab.gguf.fingerprint import fingerprint
from agentlab.gguf.memory import MemoryShape as EngineShape
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.llm.completions import build_call
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.question import ResponseCache, candidate_of
from agentlab.llm.types import Message, ToolCall
from agentlab.lora.card import content_hash
from agentlab.nas import checkpoint as nas_checkpoint
from agentlab.nas.config import TrialConfig
from agentlab.nas.series import Scaler, Series
from agentlab.nas.series import Split as Split
from agentlab.nas.time_features import Frequency
from agentlab.pipeline import answer as pipeline_answer
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.step_questions import call_id, derive_seed, seed_of
from agentlab.runs.comparability import MeasuredRun, digest
from agentlab.runs.events import Event
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.tasks import questions
from agentlab.tasks.items import TaskItem, set_digest
from agentlab.train import checkpoints as train_checkpoints
from agentlab.train.base import TrainingBase
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import Example
from agentlab.train.sft import origin_of
from tests.unit.frozen.shown import ANSWER_MODELS, ANSWER_SCHEMA, TOOL, list_compress_actions


def compute_keys(folder: Path) -> dict[str, str]:
    """Every key by what it is of. Files that are hashed are made in `folder`, which is empty."""
    keys: dict[str, str] = {}
    for compute in (
        _compute_call_keys,
        _compute_pipeline_keys,
        _compute_config_hashes,
        _compute_compress_keys,
        _compute_question_digests,
        _compute_nas_keys,
        _compute_training_keys,
    ):
        keys |= compute()
    return keys | _compute_file_fingerprints(folder)


def make_llm_config() -> LLMConfig:
    """Three providers with a model each."""
    return LLMConfig.model_validate(
        {
            "providers": {
                "script": {"kind": "scripted", "mode": "replies", "replies": ["Po"]},
                "api": {"kind": "openai_compat", "base_url": "http://localhost:1/v1", "api_key": "${RIVER_API_KEY}"},
                "claude": {"kind": "anthropic", "api_key": "${RIVER_API_KEY}"},
            },
            "models": {
                "one": {"provider": "script", "id": "first", "caps": ["schema", "tools"]},
                "two": {"provider": "api", "id": "second", "caps": ["schema", "tools"]},
                "three": {"provider": "claude", "id": "third", "caps": ["schema", "tools"]},
            },
            "roles": {"primary": ["one"], "fallback": ["two", "three"]},
        },
        context={"env": {}},
    )


def _compute_call_keys() -> dict[str, str]:
    """Of calls of language models: in a run's events, and in the cache of answers."""
    config = make_llm_config()
    calls = {
        "plain": Options(),
        "sampled": Options(temperature=0.7, top_p=0.9, seed=3, max_tokens=40, stop=("\n",)),
        "of one model, by strategy": Options(model="two", strategy="fastest"),
        "with a JSON schema": Options(json_schema=ANSWER_SCHEMA),
        "with any JSON": Options(json_only=True),
        "with a tool": Options(tools=(TOOL,), tool_choice="look_up"),
    }
    messages = [
        Message("system", "Be brief."),
        Message("user", "Which river?"),
        Message("assistant", "", (ToolCall("c1", "look_up", "{}"),)),
        Message("tool", "Po", tool_call_id="c1"),
    ]
    keys: dict[str, str] = {}
    for name, options in calls.items():
        keys[f"call {name}"] = build_call(config, messages, "rivers", None, options, "run_0001").key
    for name, model in ANSWER_MODELS.items():
        keys[f"call for {name}"] = build_call(config, messages, "rivers", model, Options(), "run_0001").key
    for action in list_compress_actions():
        options = Options(tools=(action.tool,))
        keys[f"call with {action.name}"] = build_call(config, messages, "rivers", None, options, "run_0001").key
    cache = ResponseCache(config, MemoryLedger())
    question = build_call(config, messages, "rivers", None, Options(tools=(TOOL,)), "").question
    for name in config.models:
        keys[f"kept answer of {config.models[name].provider}"] = cache._key(question, candidate_of(config, name))
    return keys


def _compute_pipeline_keys() -> dict[str, str]:
    """Of kept answers of local models, of calls, and of the seeds that they draw from."""
    fields: dict[str, Any] = {
        "messages": (("system", "Be brief."), ("user", "Which river?")),
        "model": "one",
        "fingerprint": "sha256:1",
        "numerics": {"flash": True, "kv_type": "f16", "batch": 128, "gpu_layers": 0, "build": "b1"},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 20,
        "seed": 7,
    }
    plain = pipeline_answer.PipelineQuestion(**fields)
    shaped = pipeline_answer.PipelineQuestion(**fields, schema=ANSWER_SCHEMA, stop=("\n",), logprob=True)
    step_config = {"id": "draft", "models": ["one", "two"], "samples": 2, "aggregation": "concat"}
    config = PipelineConfig.model_validate(
        {
            "models": {"one": {"file": "one.gguf"}, "two": {"file": "two.gguf"}},
            "base_pipeline": {"stages": [step_config]},
        }
    )
    step = unroll(config.stages)[0]
    return {
        "pipeline answer": pipeline_answer.key_of(plain),
        "pipeline answer by schema": pipeline_answer.key_of(shaped),
        "pipeline call": call_id(step, "two", 1),
        "pipeline seed": str(seed_of(5, step, 1)),
        "pipeline seed of a judge": str(derive_seed(5, "judge", 1)),
        "debate seed": str(wave._turn_seed(5, "hue-1", 2)),
    }


def _compute_config_hashes() -> dict[str, str]:
    """Of each command's config as it stands, and of what its figures were measured on."""
    keys: dict[str, str] = {}
    for name, command in COMMANDS.items():
        config = command.config_model()()
        keys[f"config of {name}"] = config_hash(config)
        basis = command.basis()
        event_type, *hashes = basis.event
        events = [Event(0, 0.0, event_type, "it", dict.fromkeys(hashes, "sha256:1"))] if event_type else []
        tree = config.model_dump(mode="json")
        keys[f"data of {name}, seen"] = digest(MeasuredRun(name, tree, events), basis)
        keys[f"data of {name}, named"] = digest(MeasuredRun(name, tree), basis)
    return keys


def _compute_compress_keys() -> dict[str, str]:
    """Of recipes in the memory that runs share, and of what recovers them."""
    config = CompressConfig()
    recipes: dict[str, dict[str, Any]] = {
        "kquant": {"quantizer": "kquant", "quantization_bits": 4, "importance": True, "cache": "q8_0"},
        "grid": {"quantizer": "gptq", "quantization_bits": 4, "group": 128},
        "cut": {"structure": "width", "kept": 0.75, "recovery": "distil"},
        "zeros": {"pruner": "wanda", "pruning_sparsity": "2:4", "vocabulary": "seen"},
    }
    keys: dict[str, str] = {}
    for name, params in recipes.items():
        recipe = recipe_of(params)
        keys[f"recipe {name}"] = hash_parts("texts", "training", recipe.model_dump(exclude_defaults=True))
        keys[f"recipe {name}, as JSON"] = hash_parts(recipe.model_dump_json())
    keys["recovery"] = hash_parts(config.recovery.model_dump(), config.seed)
    keys["texts"] = hash_parts("fingerprint", "sha256", config.text.model_dump(exclude={"file"}))
    return keys


def _compute_question_digests() -> dict[str, str]:
    """Of questions with answers, which are hashed field by field."""
    asked_questions = [
        questions.QuizQuestion("a-1", "Which?", "red", ("red", "blue"), "choice"),
        questions.QuizQuestion("a-2", "How many?", "3", (), "number"),
    ]
    item = TaskItem("exact-01", "exact", 1, "6 x 7?", {"answer": 42}, "number", ANSWER_SCHEMA, 32)
    open_item = TaskItem("open-01", "open", 2, "Tell.", None, "judged")
    keys = {
        "questions": questions.digest(asked_questions),
        "item": item.digest,
        "item without a schema": open_item.digest,
        "items": set_digest([item, open_item]),
    }
    for name in questions.SETS:
        keys[f"questions of {name}"] = questions.digest(questions.generate_questions(name, 4, 1))
    return keys


def _compute_nas_keys() -> dict[str, str]:
    """Of a trial and its training."""
    dates = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]").astype("datetime64[s]")
    values = np.linspace(-1.0, 1.0, 20, dtype=np.float32).reshape(10, 2)
    series = Series(
        source="rivers.csv",
        names=("po", "elbe"),
        targets=(1,),
        values=values,
        time=np.zeros((10, 1), dtype=np.float32),
        dates=dates,
        split=Split((0, 6), (6, 8), (8, 10)),
        scaler=Scaler(np.zeros(2), np.ones(2)),
        frequency=Frequency(1440),
    )
    trial = TrialConfig()
    state = nas_checkpoint.TrialCheckpoint(
        origin="origin",
        history=(nas_checkpoint.Epoch(epoch=0, lr=0.01, train_loss=0.5, val_mse=0.25, val_mae=0.5),),
        best_epoch=0,
        best={"weight": torch.zeros(2)},
        model={"weight": torch.ones(2)},
        optimizer={0: {"exp_avg": torch.zeros(2)}},
        generator=torch.zeros(4, dtype=torch.uint8),
        device_generator=None,
        seconds=1.0,
    )
    space = SearchSpace.of(
        SpaceConfig.model_validate(
            {"lr": {"type": "float", "low": 0.001, "high": 0.1}, "heads": {"type": "categorical", "choices": [1, 2]}}
        )
    )
    return {
        "series": series.fingerprint,
        "training of a trial": nas_checkpoint.origin(trial, series, 3),
        "state of a training": _sha_in(nas_checkpoint.to_bytes(state)),
        "point of a space": space.key({"lr": 0.0123456, "heads": 2}),
    }


def _compute_training_keys() -> dict[str, str]:
    """Of the training of an adapter and of its checkpoints."""
    base = TrainingBase(model=None, tokenizer=None, path=Path("base"), precision="fp32", fingerprint="sha256:1")
    split = TrainingSplit((Example(1, (5, 6, 7), (-100, 6, 7), 0),), (Example(2, (5, 8), (-100, 8), 1),))
    job = TrainingJob(LoraConfig(), TrainingConfig(), Path("adapter"), 4)
    progress = train_checkpoints.Progress(origin="origin", step=1, losses=((1, 0.5),), best_step=1, tokens=7)
    return {
        "training of an adapter": origin_of(base, split, job),
        "checkpoint of an adapter": train_checkpoints._digest(progress, {"adapter.a": torch.ones(2)}),
        "shape of an engine": str(EngineShape(2048, 128, flash=True, kv_type="q8_0", gpu_layers=3, repack=False)),
    }


def _compute_file_fingerprints(folder: Path) -> dict[str, str]:
    """Of files: a checkpoint, an adapter, a model in one file."""
    save_file({"weight": torch.ones(2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF" + bytes(100))
    return {
        "checkpoint": fingerprint_of(folder),
        "adapter": content_hash(folder),
        "model file": fingerprint(model),
    }


def _sha_in(blob: bytes) -> str:
    """The SHA-256 that the head of a checkpoint says of the whole."""
    head: dict[str, Any] = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    state: dict[str, Any] = json.loads(next(iter(head["__metadata__"].values())))
    return str(state["sha256"])
