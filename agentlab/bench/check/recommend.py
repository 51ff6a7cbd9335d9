"""Which model for which role: a fixed rule over what a check has measured. Pure."""

from collections.abc import Sequence

from agentlab.bench.check.result import ModelCheck, Recommendation
from agentlab.llm.config import RoleName


def recommend(models: Sequence[ModelCheck]) -> list[Recommendation]:
    """One line per model, those to ask first before the others.

    primary    the fastest of those that answered every request
    duplicate  the next fastest, one of another provider before one of the same
    fallback   the fastest of the rest that runs here or costs nothing, as the last resort
    reserve    every other model that answered at all
    none       those that never answered
    """
    working = sorted((row for row in models if row.available), key=_speed)
    steady = [row for row in working if not row.failures]
    chosen: list[Recommendation] = []
    taken: set[str] = set()

    def give(role: RoleName, row: ModelCheck, why: str) -> None:
        taken.add(row.model)
        chosen.append(Recommendation(model=row.model, role=role, why=why))

    if steady:
        give("primary", steady[0], f"the fastest that answered every request, {_seconds(steady[0])}")
        rest = steady[1:]
        if rest:
            partner = next((row for row in rest if row.provider != steady[0].provider), rest[0])
            where = "at another provider" if partner.provider != steady[0].provider else "of the same provider"
            give("duplicate", partner, f"the next fastest {where}, {_seconds(partner)}")
    left = [row for row in working if row.model not in taken]
    resort = next((row for row in left if row.local or row.free), None)
    for row in left:
        if row is not resort:
            give("reserve", row, f"{_share(row)}, {_seconds(row)}")
    if resort is not None:
        give("fallback", resort, f"{'runs here' if resort.local else 'costs nothing'}, {_share(resort)}")
    return chosen + [
        Recommendation(model=row.model, role=None, why=f"{row.error_group or 'not asked'}: it never answered")
        for row in models
        if not row.available
    ]


def _speed(row: ModelCheck) -> tuple[float, str]:
    return (float("inf") if row.total_seconds is None else row.total_seconds, row.model)


def _seconds(row: ModelCheck) -> str:
    return "time unknown" if row.total_seconds is None else f"{row.total_seconds:.2f} s"


def _share(row: ModelCheck) -> str:
    return f"answered {row.successes} of {row.asked} requests"
