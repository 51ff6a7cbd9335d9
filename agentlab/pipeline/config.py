"""What `agentlab pipeline` can be told: models, stages, input, and the memory it may use.

The two halves may lie in two files, `models.yaml` (models_directory, defaults, models) and `pipeline.yaml`
(base_pipeline, manual_pipeline), which names the first in `models_file`.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from agentlab.config.base import EnvText, StrictModel, machine_field, preset_field
from agentlab.config.keys import Key
from agentlab.gguf.engine import KvType
from agentlab.llm.config import LLMConfig
from agentlab.pipeline.stage_config import Sampling, Stage
from agentlab.runs.measured import Basis

ModelName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]


class EngineOptions(Sampling):
    """How a model is loaded and sampled; null leaves it to `defaults`, then to the value in brackets."""

    n_ctx: int | None = Field(None, ge=128, le=1 << 20, description="Tokens of prompt and answer together. [2048]")
    n_ubatch: int | None = Field(None, ge=16, le=4096, description="Tokens read at once. [128]")
    n_gpu_layers: int | None = Field(None, ge=-1, le=4096, description="Layers on the GPU, -1 for all. [0]")
    flash_attn: bool | None = Field(None, description="Flash attention: less memory, the same speed. [true]")
    kv_type: KvType | None = Field(None, description="Type of the attention cache: f16, q8_0 or q4_0. [f16]")


class ModelEntry(StrictModel):
    """One model: a GGUF file, or a model of `llm`."""

    provider: Literal["gguf", "router"] = Field("gguf", description="gguf: `file`; router: `model` of `llm`.")
    file: EnvText | None = Field(None, description="A file in models_directory, or a path.")
    quantization: str | None = Field(None, max_length=40, description="Such as Q4_K_M; checked against the file.")
    required_for_base: bool = Field(
        True,
        description="Whether base mode refuses to start without it. When false, a fallback that is not there is passed "
        "over, in both modes; a model that a stage asks first has to be there.",
    )
    overrides: EngineOptions = Field(EngineOptions(), description="What differs from `defaults`.")
    model: str | None = Field(None, description="The name of a model of `llm`.")

    @model_validator(mode="after")
    def _place(self) -> "ModelEntry":
        if self.provider == "gguf" and (self.file is None or self.model is not None):
            raise ValueError("a gguf model has a `file` and no `model`")
        if self.provider == "router" and (self.model is None or self.file is not None or self.quantization is not None):
            raise ValueError("a router model has a `model`, and neither `file` nor `quantization`")
        return self


class StageList(StrictModel):
    """Stages in the order in which they are read; the last one's answer is the pipeline's."""

    stages: tuple[Stage, ...] = Field(min_length=1, max_length=64, description="The stages.")


class Resources(StrictModel):
    """The memory that models may take together. Null asks the machine, and takes what it has times 0.8."""

    ram_gib: float | None = machine_field(None, gt=0, le=65_536, description="Main memory in GiB.")
    vram_gib: float | None = machine_field(None, gt=0, le=65_536, description="GPU memory in GiB.")
    ram_safety: float = machine_field(1.05, ge=1, le=4, description="Estimates of main memory are multiplied by this.")
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="Of a local model; null is OMP_NUM_THREADS, or one per core."
    )
    vram_safety: float = machine_field(1.1, ge=1, le=4, description="Estimates of GPU memory are multiplied by this.")


class Branch(StrictModel):
    """Whose answers a rerun begins with."""

    run: str = Field(description="The parent's folder.")
    stage: str = Field(description="The first stage that is not taken over.")


class PipelineConfig(StrictModel):
    """One `agentlab pipeline` run."""

    includes: ClassVar[tuple[str, ...]] = ("models_file",)  # keys that name a file laid under this one; see config.load

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of all sampling.")
    mode: Literal["base", "manual"] = Field("base", description="Which list of stages runs.")
    input: str | None = Field(None, max_length=32_768, description="What the first stage reads.")
    input_file: EnvText | None = Field(None, description="A text file with it, for longer ones.")
    inputs: EnvText | None = Field(None, description="A JSONL file: one input per line, each run through all stages.")
    params: dict[str, bool | int | float | str] = Field({}, description="Values for templates, as params.NAME.")
    models_directory: EnvText = Field("models", description="Where `file` names are looked up.")
    defaults: EngineOptions = Field(EngineOptions(), description="For every model.")
    models: dict[ModelName, ModelEntry] = Field({}, max_length=64, description="Models by name.")
    base_pipeline: StageList | None = Field(None, description="The stages of base mode.")
    manual_pipeline: StageList | None = Field(None, description="The stages of manual mode.")
    resources: Resources = Field(Resources(), description="The memory that models may take.")
    cache: Literal["use", "refresh", "off"] = machine_field(
        "use", description="use: a question asked before is not asked again; refresh: asked, and kept; off: neither."
    )
    branch: Branch | None = Field(None, description="Written by `pipeline rerun`.")
    llm: LLMConfig = preset_field(
        "llm", LLMConfig(), description="Remote models: a name in configs/llm, or such a mapping."
    )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the mode."""
        chosen = self.base_pipeline if self.mode == "base" else self.manual_pipeline
        return chosen.stages if chosen is not None else ()

    def problems(self) -> Iterator[tuple[Key, str]]:
        """What is wrong between the parts, with its place: unknown stages and models, circles, votes without a rule."""
        from agentlab.pipeline.checks import problems

        return problems(self)


MEASURED = Basis(keys=("input", "input_file", "inputs", "params"))
