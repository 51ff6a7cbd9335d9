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

    name: PersonaName = Field(description="Of the adapter's folder.")
    data: EnvPath = Field(description="Conversations to learn from.")
    eval_data: EnvPath | None = Field(None, description="Held-out conversations; null takes a share of `data`.")


class ReportConfig(StrictModel):
    """What is found out about the adapters once they are trained."""

    separability: int = Field(
        24, ge=0, le=1000, description="Held-out turns scored under every persona; 0 leaves it out."
    )
    forgetting: int = Field(24, ge=0, le=1000, description="Items of the base task, before and after; 0 leaves it out.")
    samples: tuple[str, ...] = Field(
        ("What should I do on a rainy Sunday?", "Is a heavier stone falling faster than a light one?"),
        max_length=16,
        description="Questions that base and personas answer side by side.",
    )
    sample_tokens: int = Field(48, ge=1, le=1024, description="Tokens of such an answer, at most.")
    dtype: Figures = Field(
        "float32", description="Type that figures are computed in; bfloat16 leaves the base as precision loads it."
    )


class PersonaConfig(StrictModel):
    """One `agentlab train-persona` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, order and split.")
    base: EnvPath = Field("smollm2-135m", description="A model's name or the path of a checkpoint folder.")
    personas: tuple[Persona, ...] = Field((), max_length=64, description="What is trained, on one load of the base.")
    out: EnvPath | None = machine_field(
        None, description="The adapter's folder, for one persona; null is adapters/NAME."
    )
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="Of each process that trains; null is OMP_NUM_THREADS, or one per core."
    )
    together: bool = Field(
        False, description="Train all personas in the same steps, their rows side by side in one batch."
    )
    lora: LoraConfig = Field(LoraConfig(), description="The shape of the adapters.")
    training: TrainingConfig = Field(TrainingConfig(), description="The training of each of them.")
    report: ReportConfig = Field(ReportConfig(), description="What is found out about them.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        names = [persona.name for persona in self.personas]
        if not names:
            yield ("personas",), "there is nobody to train: give --data FILE, or `personas` in a file"
        folders = [name.lower() for name in names]  # not every disk tells apart by case
        for index, name in enumerate(names):
            key = ("personas", str(index), "name")
            if folders[index] in folders[:index]:
                case = "" if name in names[:index] else ", but for case"
                yield key, f"two personas are called {name}{case}"
            if folders[index] == BASE_NAME:
                yield key, f"{name} is what reports call the base model: choose another name (--out gives its folder's)"
        if self.out is not None and len(names) > 1:
            yield ("out",), "names one folder, and several personas are trained; they go to adapters/NAME"


MEASURED = Basis(  # the seed draws what is held out
    data_keys=("personas",),
    keys=("base", "seed", "training.eval_fraction", "training.max_length", "report.separability"),
    event=("data.checked", "sha256", "eval_sha256"),
)
