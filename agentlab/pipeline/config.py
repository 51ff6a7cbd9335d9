"""What `agentlab pipeline` can be told: models, stages, input, and the memory it may use.

The two halves may lie in two files, `models.yaml` (models_directory, defaults, models) and `pipeline.yaml`
(base_pipeline, manual_pipeline), which names the first in `models_file`.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from agentlab.config.base import EnvPath, StrictModel, machine_field, preset_field
from agentlab.config.keys import Key
from agentlab.errors import AgentlabError, ConfigError, UnknownNameError
from agentlab.gguf.engine import KvType
from agentlab.llm.config import LLMConfig
from agentlab.pipeline import graph
from agentlab.pipeline.stage_config import Sampling, Stage
from agentlab.pipeline.templates import compile_template, condition
from agentlab.runs.comparability import Basis

Problem = tuple[Key, str]
ModelName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]


class EngineOptions(Sampling):
    """How a model is loaded and sampled; null uses `defaults`, then the value in brackets."""

    n_ctx: int | None = Field(
        None, ge=128, le=1 << 20, description="Context size in tokens, for prompt and answer. [2048]"
    )
    n_ubatch: int | None = Field(None, ge=16, le=4096, description="Prompt tokens per batch. [128]")
    n_gpu_layers: int | None = Field(None, ge=-1, le=4096, description="Layers on the GPU; -1 means all. [0]")
    flash_attn: bool | None = Field(None, description="Use flash attention: less memory, same speed. [true]")
    kv_type: KvType | None = Field(None, description="Type of the KV cache: f16, q8_0 or q4_0. [f16]")


class ModelEntry(StrictModel):
    """One model: a GGUF file, or a model of `llm`."""

    provider: Literal["gguf", "router"] = Field(
        "gguf", description="gguf: set `file`; router: set `model` to a name from `llm`."
    )
    file: EnvPath | None = Field(None, description="A file in models_directory, or a path.")
    quantization: str | None = Field(
        None, max_length=40, description="Expected quantization, such as Q4_K_M; checked against the file."
    )
    required_for_base: bool = Field(
        True,
        description="If true, base mode refuses to start without this model. If false, a missing fallback model is "
        "skipped in both modes; the first model of a stage must exist.",
    )
    overrides: EngineOptions = Field(EngineOptions(), description="Settings that differ from `defaults`.")
    model: str | None = Field(None, description="Name of a model from `llm`.")

    @model_validator(mode="after")
    def _check_provider(self) -> "ModelEntry":
        if self.provider == "gguf" and (self.file is None or self.model is not None):
            raise ValueError("a gguf model needs `file`, and must not set `model`")
        if self.provider == "router" and (self.model is None or self.file is not None or self.quantization is not None):
            raise ValueError("a router model needs `model`, and must not set `file` or `quantization`")
        return self


class StageList(StrictModel):
    """Stages in the order in which they are read; the last one's answer is the pipeline's."""

    stages: tuple[Stage, ...] = Field(min_length=1, max_length=64, description="The stages, in order.")


class Resources(StrictModel):
    """Memory limit for all models together. Null is 80 % of what the machine has."""

    ram_gib: float | None = machine_field(None, gt=0, le=65_536, description="Main memory in GiB.")
    vram_gib: float | None = machine_field(None, gt=0, le=65_536, description="GPU memory in GiB.")
    ram_safety: float = machine_field(1.05, ge=1, le=4, description="Safety factor for main memory estimates.")
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="CPU threads per local model; null means OMP_NUM_THREADS, or one per core."
    )
    vram_safety: float = machine_field(1.1, ge=1, le=4, description="Safety factor for GPU memory estimates.")


class Branch(StrictModel):
    """The run whose answers a rerun reuses."""

    run: str = Field(description="Folder of the parent run.")
    stage: str = Field(description="The first stage to run again.")


class PipelineConfig(StrictModel):
    """One `agentlab pipeline` run."""

    includes: ClassVar[tuple[str, ...]] = ("models_file",)  # keys that name a file laid under this one; see config.load

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for all sampling.")
    mode: Literal["base", "manual"] = Field("base", description="Which list of stages to run.")
    input: str | None = Field(None, max_length=32_768, description="Input to the first stage.")
    input_file: EnvPath | None = Field(None, description="Text file with the input.")
    inputs: EnvPath | None = Field(
        None, description="JSONL file with one input per line; each passes through all stages."
    )
    params: dict[str, bool | int | float | str] = Field({}, description="Values that templates read as params.NAME.")
    models_directory: EnvPath = Field("models", description="Folder in which `file` names are looked up.")
    defaults: EngineOptions = Field(EngineOptions(), description="Settings for every model.")
    models: dict[ModelName, ModelEntry] = Field({}, max_length=64, description="Models by name.")
    base_pipeline: StageList | None = Field(None, description="Stages of base mode.")
    manual_pipeline: StageList | None = Field(None, description="Stages of manual mode.")
    resources: Resources = Field(Resources(), description="Memory limits and threads.")
    cache: Literal["use", "refresh", "off"] = machine_field(
        "use", description="use: reuse stored answers; refresh: ask again and store; off: neither reuse nor store."
    )
    branch: Branch | None = Field(None, description="Written by `pipeline rerun`.")
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Remote models: a name in configs/llm, or a mapping.")

    @property
    def stages(self) -> tuple[Stage, ...]:
        chosen = self.base_pipeline if self.mode == "base" else self.manual_pipeline
        return chosen.stages if chosen is not None else ()

    def problems(self) -> Iterator[Problem]:
        """What is wrong between the parts, such as names that lead nowhere, in the order of the file."""
        input_keys = [name for name in ("input", "input_file", "inputs") if getattr(self, name) is not None]
        for name in input_keys[1:]:
            yield (name,), f"{' and '.join(input_keys)} cannot be combined"
        yield from _models(self)
        if not self.stages:
            yield (f"{self.mode}_pipeline",), f"mode {self.mode} needs {self.mode}_pipeline.stages"
        for name, part in (("base_pipeline", self.base_pipeline), ("manual_pipeline", self.manual_pipeline)):
            if part is not None:
                for key, sentence in stage_problems(part.stages, self):
                    yield (name, "stages", *key), sentence


MEASURED = Basis(keys=("input", "input_file", "inputs", "params"))


def _models(config: PipelineConfig) -> Iterator[Problem]:
    for name, entry in config.models.items():
        if entry.provider == "router" and entry.model not in config.llm.models:
            yield ("models", name, "model"), _unknown("model from `llm`", entry.model or "", list(config.llm.models))
        kv_type = entry.overrides.kv_type or config.defaults.kv_type or "f16"
        flash = entry.overrides.flash_attn if entry.overrides.flash_attn is not None else config.defaults.flash_attn
        if kv_type != "f16" and flash is False:
            yield ("models", name), f"kv_type {kv_type} needs flash_attn: true in llama.cpp"


def stage_problems(stages: Sequence[Stage], config: PipelineConfig) -> Iterator[Problem]:
    """What is wrong with one list of stages; places begin with the index of the stage."""
    names = [stage.id for stage in stages]
    for index, stage in enumerate(stages):
        if stage.id == graph.INPUT:
            yield (str(index), "id"), "`input` is reserved for the input of the run; choose another id"
        elif stage.id in names[:index]:
            yield (str(index), "id"), f"two stages have the id {stage.id}"
    broken = list(_templates(stages))
    yield from broken
    for index, stage in enumerate(stages):
        for key, sentence in _problems_of_stage(index, stage, stages, config, readable=not broken):
            yield (str(index), *key), sentence
    yield from _loops(stages, readable=not broken)


def _templates(stages: Sequence[Stage]) -> Iterator[Problem]:
    for index, stage in enumerate(stages):
        for key, source, make in [
            *((key, source, compile_template) for key, source in graph.templates(stage)),
            *((key, source, condition) for key, source in graph.conditions(stage)),
        ]:
            try:
                make(source)
            except ConfigError as error:
                yield (str(index), *key), error.message


def _problems_of_stage(
    index: int, stage: Stage, stages: Sequence[Stage], config: PipelineConfig, *, readable: bool
) -> Iterator[Problem]:
    """Problems of one stage, whose place is left to the caller."""
    read = graph.sources(stages)
    yield from _references(index, stage, stages, mentioned=graph.mentioned_stages(stage) if readable else frozenset())
    if len(set(read[stage.id])) < len(read[stage.id]):
        yield ("input_from",), "a stage is listed twice"
    for key, name in _asked_models(stage):
        if name not in config.models:
            yield key, _unknown("model", name, list(config.models))
    yield from _aggregation(stage, config)
    if stage.response_schema is not None:
        from agentlab.llm.schemas import validator_of

        try:
            validator_of(stage.response_schema)
        except AgentlabError as error:
            yield ("response_schema",), error.message.rstrip(".")


def _references(index: int, stage: Stage, stages: Sequence[Stage], mentioned: frozenset[str]) -> Iterator[Problem]:
    names, read = [s.id for s in stages], graph.sources(stages)
    before = names[:index]
    for name in dict.fromkeys((*read[stage.id], *sorted(mentioned))):
        key = ("input_from",) if name in read[stage.id] else ("prompt",)
        if name in (graph.INPUT, *before):
            continue
        if name not in names:
            yield key, _unknown("stage", name, [graph.INPUT, *before])
        elif circle := graph.circle({s.id: frozenset(read[s.id]) - {graph.INPUT} for s in stages}):
            yield key, f"the stages form a cycle: {' reads '.join(circle)}"
        else:
            yield key, f"{stage.id} reads {name}, which comes after it; move {name} up"


def _asked_models(stage: Stage) -> Iterator[Problem]:
    """(place, model) of every model a stage may ask."""
    for number, name in enumerate(stage.asked_models):
        yield ("model",) if stage.model is not None else ("models", str(number)), name
    for number, name in enumerate(stage.fallback_models):
        yield ("fallback_models", str(number)), name
    aggregation = stage.aggregation
    if aggregation is not None and aggregation.asks is not None and aggregation.asked is not None:
        yield ("aggregation", aggregation.asks), aggregation.asked


def _aggregation(stage: Stage, config: PipelineConfig) -> Iterator[Problem]:
    aggregation = stage.aggregation
    if aggregation is None:
        return
    misfits = aggregation.misfits(stage.asked_models, schema=stage.response_schema is not None)
    for key, problem in chain(aggregation.problems(), misfits):
        yield ("aggregation", *key), problem if isinstance(problem, str) else _sentence(problem)
    asked_models = (*stage.asked_models, *stage.fallback_models) if aggregation.logprobs else ()
    remote = [name for name in asked_models if name in config.models and config.models[name].provider == "router"]
    if remote:
        yield ("aggregation",), f"{aggregation.method} needs token probabilities, which {remote[0]} does not report"


def _loops(stages: Sequence[Stage], *, readable: bool) -> Iterator[Problem]:
    names = [stage.id for stage in stages]
    looped: dict[str, str] = {}
    for index, stage in enumerate(stages):
        if stage.repeat_until is None:
            continue
        start = stage.repeat_until.start or stage.id
        if start not in names[: index + 1]:
            yield (str(index), "repeat_until", "start"), _unknown("earlier stage", start, names[: index + 1])
            continue
        for name in names[names.index(start) : index + 1]:
            if name in looped:
                yield (str(index), "repeat_until"), f"{name} already belongs to the loop that ends in {looped[name]}"
            looped.setdefault(name, stage.id)
    loop_bounds = graph.blocks(stages)
    for index, stage in enumerate(stages if readable else ()):
        first, last = loop_bounds.get(stage.id, (0, -1))
        inside = names[first : last + 1]
        for key, source in graph.templates(stage):
            for name in sorted(compile_template(source).previous - set(inside)):
                reason = f"is not in a loop with {name}" if inside else "is not in a loop"
                yield (
                    (str(index), *key),
                    f"previous.{name} is the answer from an earlier visit, but {stage.id} {reason}",
                )


def _unknown(kind: str, name: str, known_names: list[str]) -> str:
    return _sentence(UnknownNameError(kind, name, known_names))


def _sentence(error: AgentlabError) -> str:
    return f"{error.message.rstrip('.')}" + (f" ({error.hint.rstrip('.')})" if error.hint else "")
