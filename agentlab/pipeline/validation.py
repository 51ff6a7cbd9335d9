"""What `agentlab pipeline validate` answers: the stages as they were understood, and what may still go wrong."""

from collections.abc import Iterator, Mapping, Sequence

from agentlab.config.workspace import Workspace
from agentlab.pipeline import graph
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.lint import lint
from agentlab.pipeline.registry import asked, registry
from agentlab.pipeline.settings import drawing_of, engine_of
from agentlab.pipeline.stage_config import Stage
from agentlab.runs.document import Block, Document, Table, Text


class StageLine(Document):
    """One stage. `reads` are stages or `input`; `answers` is how many models give in one visit."""

    mode: str
    stage: str
    reads: list[str]
    models: list[str]
    answers: int
    aggregation: str | None
    visits: int


class Validated(Document):
    """A config without errors. `remarks` are about the stages, `warnings` about models that cannot be used here."""

    stages: list[StageLine]
    models: list[str]
    remarks: list[str]
    warnings: list[str]

    def blocks(self) -> list[Block]:
        """A sentence, the stages, and what may still go wrong."""
        columns = ("mode", "stage", "reads", "models", "answers", "aggregation", "visits")
        rows = [
            (
                s.mode,
                s.stage,
                ", ".join(s.reads),
                ", ".join(s.models),
                str(s.answers),
                s.aggregation or "–",
                str(s.visits),
            )
            for s in self.stages
        ]
        count = len(self.stages)
        said = f"The pipeline is valid: {count} stage{'s' if count != 1 else ''} over {', '.join(self.models)}."
        return [Text(said), Table(columns, rows), *(Text(line) for line in (*self.remarks, *self.warnings))]


def validate(config: PipelineConfig, workspace: Workspace, env: Mapping[str, str]) -> Validated:
    """Both lists of stages of a checked config. No engine is needed, and model files need not be there."""
    stages = [line for mode, listed in _lists(config) for line in _lines(mode, listed)]
    needed = {name for _, listed in _lists(config) for name in asked(listed, config)}
    found = registry(config, workspace, env).values()
    trained = {model.name: model.metadata.context_length for model in found if model.metadata is not None}
    return Validated(
        stages=stages,
        models=[name for name in config.models if name in needed],
        remarks=[
            *(sentence for _, listed in _lists(config) for sentence in remarks(config, listed)),
            *stretched(config, trained),
        ],
        warnings=[f"models.{model.name}: {model.problem}" for model in found if model.problem is not None],
    )


def remarks(config: PipelineConfig, stages: Sequence[Stage]) -> list[str]:
    """What is allowed, but hardly meant or slow."""
    found = lint(stages, lambda stage: drawing_of(config, stage, stage.asked[0]).temperature)
    return [f"{remark.stage}: {remark.sentence}" for remark in found]


def stretched(config: PipelineConfig, trained: Mapping[str, int]) -> list[str]:
    """Which models are given a larger context than they were `trained` with (tokens; 0 is unknown)."""
    return [
        f"models.{name}: n_ctx {context} is more than the {most} tokens that it was trained with; "
        "what it says to longer prompts is hardly of use"
        for name, most in trained.items()
        if 0 < most < (context := engine_of(config, name).context)
    ]


def _lists(config: PipelineConfig) -> Iterator[tuple[str, Sequence[Stage]]]:
    for mode, part in (("base", config.base_pipeline), ("manual", config.manual_pipeline)):
        if part is not None:
            yield mode, part.stages


def _lines(mode: str, stages: Sequence[Stage]) -> Iterator[StageLine]:
    read = graph.sources(stages)
    visits = {step.stage.id: step.visit for step in graph.unroll(stages)}
    for stage in stages:
        yield StageLine(
            mode=mode,
            stage=stage.id,
            reads=list(read[stage.id]),
            models=list(stage.asked),
            answers=len(stage.asked) * stage.samples,
            aggregation=stage.aggregation.method if stage.aggregation is not None else None,
            visits=visits[stage.id],
        )
