"""What `agentlab pipeline models` answers."""

from collections.abc import Mapping

from agentlab.pipeline.config import ModelEntry, PipelineConfig
from agentlab.pipeline.registry import Availability
from agentlab.runs.document import Block, Document, Table, Text


class ModelLine(Document):
    """One model. `quantization` is what the config says, `stored_as` what most of the file's weights are."""

    name: str
    provider: str
    file: str
    wanted: bool
    usable: bool
    quantization: str | None
    stored_as: str | None
    parameters: int | None
    context: int | None
    bytes: int | None
    problem: str | None
    hint: str | None


class RegistryView(Document):
    """The answer of `pipeline models`."""

    models: list[ModelLine]

    @classmethod
    def of(cls, config: PipelineConfig, availability: Mapping[str, Availability]) -> "RegistryView":
        """The models in the order of the config."""
        return cls(models=[_line(config.models[name], model) for name, model in availability.items()])

    def blocks(self) -> list[Block]:
        """A table, and below it what is wrong."""
        columns = ("model", "needed", "file", "weights", "parameters", "context", "size", "usable")
        wrong = [Text(f"{m.name}: {m.problem}{f' {m.hint}' if m.hint else ''}") for m in self.models if m.problem]
        return [Table(columns, [_cells(model) for model in self.models]), *wrong]


def _line(entry: ModelEntry, model: Availability) -> ModelLine:
    read = model.metadata
    return ModelLine(
        name=model.name,
        provider=model.provider,
        file=str(model.path or entry.file or entry.model),
        wanted=model.wanted,
        usable=model.error is None,
        quantization=entry.quantization,
        stored_as=read.quantisation if read else None,
        parameters=read.parameters if read else None,
        context=read.context_length if read else None,
        bytes=read.file_bytes if read else None,
        problem=model.problem,
        hint=model.hint,
    )


def _cells(model: ModelLine) -> tuple[str, ...]:
    weights = model.stored_as or "–"
    if model.quantization is not None and model.quantization != model.stored_as:
        weights = f"{model.quantization} ({weights})"
    return (
        model.name,
        "yes" if model.wanted else "no",
        model.file,
        weights,
        "–" if model.parameters is None else f"{model.parameters / 1e6:.0f}M",
        "–" if model.context is None else str(model.context),
        "–" if model.bytes is None else f"{model.bytes / 1e6:.0f} MB",
        "yes" if model.usable else "no",
    )
