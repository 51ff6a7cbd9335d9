"""The answer of `agentlab llm-bench check`."""

from agentlab.bench.failures import Group
from agentlab.llm.provider_config import RoleName
from agentlab.runs.document import AnswerDocument, Block, Heading, Table, Text, number, silence, table


class ModelCheck(AnswerDocument):
    """How one model answered a few small requests. Seconds are medians over its answers; None: it never answered.

    `asked` may be below the number of requests wanted: a model that does not answer at all is not asked again.
    """

    model: str
    id: str
    provider: str
    local: bool
    free: bool
    asked: int
    successes: int
    first_seconds: float | None
    total_seconds: float | None
    slowest_seconds: float | None
    error_group: Group | None
    error_kind: str
    error: str
    remedy: str

    @property
    def failures(self) -> int:
        return self.asked - self.successes

    @property
    def available(self) -> bool:
        return self.successes > 0


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
        wrong: list[Block] = [Heading("What went wrong"), Table(columns, failed, "The last error of each model")]
        advice = [(row.model, row.role or "none", row.why) for row in self.recommendations]
        return [
            *(Text(silence(row.model, row.asked, row.error)) for row in self.models if not row.available),
            table(
                self.models,
                {
                    "model": lambda row: row.model,
                    "provider": lambda row: row.provider,
                    "id": lambda row: row.id,
                    "status": lambda row: "available" if row.available else "unavailable",
                    "first s": lambda row: number(row.first_seconds, 3),
                    "total s": lambda row: number(row.total_seconds, 3),
                    "slowest s": lambda row: number(row.slowest_seconds, 3),
                    "successes": lambda row: row.successes,
                    "failures": lambda row: row.failures,
                },
                "first s: until the answer began; seconds are medians over the answers",
            ),
            *(wrong if failed else []),
            Heading("Recommendation"),
            Table(("model", "role", "why"), advice, "Roles by what was measured"),
        ]
