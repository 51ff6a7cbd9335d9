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
        description="Over `output`, `json`, `visit` and `stages`, such as \"'DONE' in output\"."
    )
    start: StageId | None = Field(None, description="The first stage of the loop; null is this stage alone.")
    max_visits: int = Field(3, ge=2, le=MOST_VISITS, description="Visits in all, the first one included.")


class Sampling(StrictModel):
    """What may be said about sampling; null leaves it to the model, then to `defaults`."""

    temperature: float | None = Field(None, ge=0, le=5, description="0 takes the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1, description="Share of the probability that is sampled from.")
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Most tokens of an answer.")
    timeout_s: float | None = Field(
        None, gt=0, le=86_400, description="Seconds for one answer, reading the prompt too."
    )


class Stage(Sampling):
    """One stage: one model (`model`), or several whose answers become one (`models`, `aggregation`)."""

    id: StageId = Field(description="Its name, in `input_from` and in templates.")
    type: Literal["single", "multi"] | None = Field(None, description="Follows from `model` or `models` if not given.")
    model: str | None = Field(None, description="The model of a single stage.")
    models: tuple[str, ...] = Field((), max_length=16, description="The models of a multi stage; one may come twice.")
    samples: int = Field(1, ge=1, le=MOST_SAMPLES, description="Answers of each model, with different seeds.")
    aggregation: Annotated[Kind | None, BeforeValidator(_spelled_out, json_schema_input_type=Kind | str | None)] = (
        Field(
            None,
            description="How several answers become one: concat, vote, judge, synthesis, best_of, first_valid, or a "
            "template.",
        )
    )
    input_from: tuple[StageId, ...] | StageId | None = Field(
        None, description="Whose answers it reads, or `input`; null is the stage before it."
    )
    output_mode: Literal["answer_only", "input_plus_answer"] = Field(
        "answer_only", description="What it hands on: its answer, or what it read and its answer."
    )
    system: Source = Field("", description="Template of the system message; empty is none.")
    prompt: Source = Field("{{ input }}", description="Template of the question.")
    response_schema: dict[str, Any] | None = Field(None, description="A JSON schema that the answers have to fit.")
    when: Expression | None = Field(None, description="It is skipped unless this holds, such as stages.check.json.ok")
    repeat_until: Loop | None = Field(None, description="Visit it again until a condition holds.")
    fallback_models: tuple[str, ...] = Field((), max_length=8, description="Asked in turn when its model fails.")
    on_error: Literal["fail", "skip", "default"] = Field(
        "fail", description="When all have failed: end the run, hand on nothing, or hand on `default`."
    )
    default: str = Field("", max_length=65_536, description="The answer of on_error: default.")
    overflow: Literal["error", "truncate", "grow"] = Field(
        "error", description="A prompt too long for n_ctx: an error, cut in the middle of its input, or a larger n_ctx."
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Null derives one from the run's seed and the stage.")
    stop: tuple[str, ...] = Field((), max_length=8, description="Texts that end an answer.")

    @model_validator(mode="after")
    def _kind(self) -> "Stage":
        if (self.model is None) == (not self.models):
            raise ValueError("give `model` (one) or `models` (several), not both and not neither")
        if self.type is not None and (self.type == "single") != (self.model is not None):
            raise ValueError(f"type {self.type} goes with {'model' if self.type == 'single' else 'models'}")
        several = len(self.asked_models) * self.samples > 1
        if several and self.aggregation is None:
            raise ValueError("several answers need `aggregation`, which says how they become one")
        if not several and self.aggregation is not None:
            raise ValueError("`aggregation` needs several answers: `models`, or `samples` above 1")
        if self.default and self.on_error != "default":
            raise ValueError("`default` is handed on with on_error: default only")
        return self

    @property
    def asked_models(self) -> tuple[str, ...]:
        return (self.model,) if self.model is not None else self.models
