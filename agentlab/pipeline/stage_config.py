"""What a stage of a pipeline may say."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from agentlab.config.base import StrictModel
from agentlab.pipeline.aggregation import kinds
from agentlab.pipeline.aggregation.base import Aggregation, Source

MOST_SAMPLES, MOST_VISITS = 32, 20

# Ids stand in templates as `stages.draft.output`, so they are Python names; `input` is the run's own input.
StageId = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Expression = Annotated[str, Field(min_length=1, max_length=2_000)]


def _spelled_out(value: Any) -> Any:
    """`vote` is short for `{method: vote}`, and a text with braces is a template."""
    if isinstance(value, str):
        return {"method": "template", "template": value} if "{{" in value or "{%" in value else {"method": value}
    return value


if TYPE_CHECKING:
    Kind = Aggregation
else:
    Kind = Annotated[Union[kinds()], Field(discriminator="method")]  # noqa: UP007 - as many as there are


class Loop(StrictModel):
    """Stages that are visited again until a condition holds."""

    condition: Expression = Field(
        description="Expression over `output`, `json`, `visit` and `stages`, such as \"'DONE' in output\"."
    )
    start: StageId | None = Field(None, description="First stage of the loop; null means this stage alone.")
    max_visits: int = Field(3, ge=2, le=MOST_VISITS, description="Maximum visits, including the first.")


class Sampling(StrictModel):
    """Sampling settings; null uses those of the model, then `defaults`."""

    temperature: float | None = Field(None, ge=0, le=5, description="Sampling temperature; 0 means greedy decoding.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling: probability mass to sample from.")
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Maximum tokens per answer.")
    timeout_s: float | None = Field(
        None, gt=0, le=86_400, description="Time limit per answer in seconds, including prompt processing."
    )


class Stage(Sampling):
    """One stage: one model (`model`), or several whose answers become one (`models`, `aggregation`)."""

    id: StageId = Field(description="Name of the stage, used in `input_from` and in templates.")
    type: Literal["single", "multi"] | None = Field(None, description="Derived from `model` or `models` if null.")
    model: str | None = Field(None, description="Model of a single stage.")
    models: tuple[str, ...] = Field(
        (), max_length=16, description="Models of a multi stage; a model may be listed twice."
    )
    samples: int = Field(1, ge=1, le=MOST_SAMPLES, description="Answers per model, with different seeds.")
    aggregation: Annotated[Kind | None, BeforeValidator(_spelled_out, json_schema_input_type=Kind | str | None)] = (
        Field(
            None,
            description="How to combine several answers: concat, vote, judge, synthesis, best_of, first_valid, or a "
            "template.",
        )
    )
    input_from: tuple[StageId, ...] | StageId | None = Field(
        None, description="Stages whose answers this stage reads, or `input`; null means the previous stage."
    )
    output_mode: Literal["answer_only", "input_plus_answer"] = Field(
        "answer_only", description="Text the stage passes on: its answer, or its input and its answer."
    )
    system: Source = Field("", description="Template of the system message; empty sends none.")
    prompt: Source = Field("{{ input }}", description="Template of the user message.")
    response_schema: dict[str, Any] | None = Field(None, description="JSON schema that answers must match.")
    when: Expression | None = Field(
        None, description="Condition, such as stages.check.json.ok; the stage is skipped unless it holds."
    )
    repeat_until: Loop | None = Field(None, description="Repeat the stage until a condition holds.")
    fallback_models: tuple[str, ...] = Field(
        (), max_length=8, description="Models to try in order when the model fails."
    )
    on_error: Literal["fail", "skip", "default"] = Field(
        "fail", description="When all models fail: end the run, pass on nothing, or pass on `default`."
    )
    default: str = Field("", max_length=65_536, description="The answer for on_error: default.")
    overflow: Literal["error", "truncate", "grow"] = Field(
        "error", description="If a prompt exceeds n_ctx: fail, cut the middle of its input, or raise n_ctx."
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of the stage; null derives it from the run's seed."
    )
    stop: tuple[str, ...] = Field((), max_length=8, description="Stop sequences.")

    @model_validator(mode="after")
    def _kind(self) -> "Stage":
        if (self.model is None) == (not self.models):
            raise ValueError("set exactly one of `model` and `models`")
        if self.type is not None and (self.type == "single") != (self.model is not None):
            raise ValueError(f"type {self.type} needs {'model' if self.type == 'single' else 'models'}")
        several = len(self.asked_models) * self.samples > 1
        if several and self.aggregation is None:
            raise ValueError("several answers need `aggregation`")
        if not several and self.aggregation is not None:
            raise ValueError("`aggregation` needs several answers: `models`, or `samples` above 1")
        if self.default and self.on_error != "default":
            raise ValueError("`default` needs on_error: default")
        return self

    @property
    def asked_models(self) -> tuple[str, ...]:
        return (self.model,) if self.model is not None else self.models
