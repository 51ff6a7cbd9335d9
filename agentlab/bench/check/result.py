"""The answer of `agentlab llm-bench check`."""

from typing import Annotated

from agentlab.bench.failures import Group
from agentlab.llm.provider_config import RoleName
from agentlab.runs.document import AnswerDocument, Block, Column, Heading, Table, Text, columns_of, silence, table

_SHOWN = (
    "model", "provider", "id", "status", "first_seconds", "total_seconds", "slowest_seconds", "successes", "failures",
)  # fmt: skip


class ModelCheck(AnswerDocument):
    """How one model answered a few small requests. Seconds are medians over its answers; None: it never answered.

    `asked` may be below the number of requests wanted: a model that does not answer at all is not asked again.
    """

    model: Annotated[str, Column("model")]
    id: Annotated[str, Column("id")]
    provider: Annotated[str, Column("provider")]
    local: bool
    free: bool
    asked: int
    successes: Annotated[int, Column("successes")]
    first_seconds: Annotated[float | None, Column("first s", ".3f", "Seconds until the answer began.")]
    total_seconds: Annotated[float | None, Column("total s", ".3f", "Seconds until the answer was complete.")]
    slowest_seconds: Annotated[float | None, Column("slowest s", ".3f")]
    error_group: Group | None
    error_kind: str
    error: str
    remedy: str

    @property
    def failures(self) -> Annotated[int, Column("failures")]:
        return self.asked - self.successes

    @property
    def available(self) -> bool:
        return self.successes > 0

    @property
    def status(self) -> Annotated[str, Column("status")]:
        return "available" if self.available else "unavailable"


class Recommendation(AnswerDocument):
    """A model, the role it should have (None: leave it out), and why."""

    model: str
    role: RoleName | None
    why: str


class CheckResult(AnswerDocument):
    """Every model of the config, in its order, and which role suits which."""

    models: list[ModelCheck]
    recommendations: list[Recommendation]

    @property
    def verdict(self) -> str:
        return f"{sum(row.available for row in self.models)} of {len(self.models)} models answered."

    def blocks(self) -> list[Block]:
        return [Text(self.verdict), *self.tables()]

    def tables(self) -> list[Block]:
        failed = [
            (row.model, row.error_group, row.error_kind, row.error, row.remedy or "–")
            for row in self.models
            if row.error_group
        ]
        columns = ("model", "group", "error", "message", "remedy")
        wrong: list[Block] = [Heading("Errors"), Table(columns, failed, "Last error of each model")]
        advice = [(row.model, row.role or "none", row.why) for row in self.recommendations]
        return [
            *(Text(silence(row.model, row.asked, row.error)) for row in self.models if not row.available),
            table(
                self.models,
                columns_of(ModelCheck, *_SHOWN),
                "first s: seconds until the answer began; all times are medians over the answers",
            ),
            *(wrong if failed else []),
            Heading("Recommendation"),
            Table(("model", "role", "why"), advice, "Recommended roles, based on the measurements"),
        ]
