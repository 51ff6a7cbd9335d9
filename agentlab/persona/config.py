"""What `agentlab train-persona` can be told: personas and their conversations, the base model, the training."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from agentlab.config.base import EnvPath, StrictModel, machine_field
from agentlab.config.keys import Key
from agentlab.runs.comparability import Basis
from agentlab.train.config import Figures, LoraConfig, TrainingConfig

BASE_NAME = "base"  # in tables, beside the names of personas

PersonaName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Persona(StrictModel):
    """One adapter: `adapters/NAME`, trained from a JSONL file with one conversation (`messages`) per line."""

    name: PersonaName = Field(description="Name of the adapter's folder.")
    data: EnvPath = Field(description="JSONL file of conversations to train on.")
    eval_data: EnvPath | None = Field(
        None, description="JSONL file of held-out conversations; null holds out a share of `data`."
    )


class ReportConfig(StrictModel):
    """What is measured once the adapters are trained."""

    separability: int = Field(
        24, ge=0, le=1000, description="Held-out turns scored under every persona; 0 turns this off."
    )
    forgetting: int = Field(
        24, ge=0, le=1000, description="Base task items scored before and after training; 0 turns this off."
    )
    samples: tuple[str, ...] = Field(
        ("What should I do on a rainy Sunday?", "Is a heavier stone falling faster than a light one?"),
        max_length=16,
        description="Questions that the base and the personas answer side by side.",
    )
    sample_tokens: int = Field(48, ge=1, le=1024, description="Maximum tokens per sample answer.")
    dtype: Figures = Field(
        "float32", description="Data type for measuring; bfloat16 keeps the base as training.precision loads it."
    )


class PersonaConfig(StrictModel):
    """One `agentlab train-persona` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for weights, data order and split.")
    base: EnvPath = Field("smollm2-135m", description="A model name, or the path of a checkpoint folder.")
    personas: tuple[Persona, ...] = Field(
        (), max_length=64, description="The personas to train; the base is loaded once."
    )
    out: EnvPath | None = machine_field(
        None, description="Folder of the adapter when training one persona; null means adapters/NAME."
    )
    threads: int | None = machine_field(
        None,
        ge=1,
        le=1024,
        description="CPU threads per training process; null means OMP_NUM_THREADS, or one per core.",
    )
    together: bool = Field(False, description="Train all personas in the same steps, with their rows in one batch.")
    lora: LoraConfig = Field(LoraConfig(), description="Shape of the adapters.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training settings for each adapter.")
    report: ReportConfig = Field(ReportConfig(), description="Measurements after training.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        names = [persona.name for persona in self.personas]
        if not names:
            yield ("personas",), "no persona to train: pass --data FILE, or `personas` in a config file"
        folders = [name.lower() for name in names]  # not every disk tells apart by case
        for index, name in enumerate(names):
            key = ("personas", str(index), "name")
            if folders[index] in folders[:index]:
                case = "" if name in names[:index] else " (names must differ by more than case)"
                yield key, f"two personas are called {name}{case}"
            if folders[index] == BASE_NAME:
                yield (
                    key,
                    f"{name} is reserved for the base model in reports: choose another name, or another --out folder",
                )
        if self.out is not None and len(names) > 1:
            yield ("out",), "can only be set for a single persona; several are written to adapters/NAME"


MEASURED = Basis(  # the seed draws what is held out
    data_keys=("personas",),
    keys=("base", "seed", "training.eval_fraction", "training.max_length", "report.separability"),
    event=("data.checked", "sha256", "eval_sha256"),
)
