"""Which model for which role, from how they answered."""

from agentlab.bench.check.asking import recommend
from agentlab.bench.check.result import CheckResult, ModelCheck
from agentlab.runs.document import Text


def row(model: str, **changes) -> ModelCheck:
    base = {
        "model": model, "id": model, "provider": "p", "local": False, "free": False, "asked": 3, "successes": 3,
        "first_seconds": 0.1, "total_seconds": 1.0, "slowest_seconds": 1.0, "error_group": None, "error_kind": "",
        "error": "", "remedy": "",
    }  # fmt: skip
    return ModelCheck(**{**base, **changes})


def roles(*rows: ModelCheck) -> dict[str, str | None]:
    return {recommendation.model: recommendation.role for recommendation in recommend(rows)}


def test_the_fastest_steady_model_is_primary_and_another_provider_stands_by():
    assigned = roles(
        row("slow", total_seconds=3.0),
        row("fast", total_seconds=0.5),
        row("near", total_seconds=0.6),
        row("away", total_seconds=0.9, provider="q"),
        row("home", total_seconds=5.0, provider="h", local=True),
        row("hasty", total_seconds=0.1, successes=2),
        row("gone", successes=0, total_seconds=None, error_group="Timeout"),
    )
    assert assigned == {
        "fast": "primary", "away": "duplicate", "hasty": "reserve", "near": "reserve", "slow": "reserve",
        "home": "fallback", "gone": None,
    }  # fmt: skip


def test_a_single_model_is_primary_and_an_unsteady_one_never():
    assert roles(row("only", local=True)) == {"only": "primary"}
    assert roles(row("shaky", successes=1)) == {"shaky": "reserve"}


def test_a_model_that_never_answered_is_told_with_the_reason():
    silent = row("gone", successes=0, total_seconds=None, error_group="Timeout", error="The process died.")
    blocks = CheckResult(models=[row("here"), silent], recommendations=[]).blocks()
    assert Text("The model gone answered 0 of 3 calls: The process died.") in blocks
