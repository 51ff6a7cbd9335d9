"""The answer that most candidates give. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from agentlab.errors import MalformedReplyError
from agentlab.pipeline.aggregation.fit import value_of
from agentlab.pipeline.aggregation.normal import normal
from agentlab.pipeline.aggregation.pattern import found, pattern_problem, pointed, pointer_problem
from agentlab.pipeline.aggregation.types import Candidate, Chosen, Tie
from agentlab.pipeline.stage_config import Extract, FirstValid, Stage, Vote
from agentlab.tasks.extract import label, last_number, letter, short_answer

_SHOWN = 200  # characters of a vote in the tally


def vote_needs_extract(stage: Stage) -> str | None:
    """Why the votes of a stage could not be counted; None when they can."""
    if isinstance(stage.aggregation, Vote) and stage.aggregation.extract is None and stage.response_schema is None:
        return (
            "free text cannot vote: say what counts in `extract` (regex, pointer or kind), or give the stage a "
            "response_schema"
        )
    return None


def reading_problems(stage: Stage) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place in the stage, sentence) for every pattern and pointer of an aggregation that is none."""
    match stage.aggregation:
        case Vote(extract=Extract(regex=str(pattern))) if problem := pattern_problem(pattern):
            yield ("aggregation", "extract", "regex"), problem
        case Vote(extract=Extract(pointer=str(pointer))) if problem := pointer_problem(pointer):
            yield ("aggregation", "extract", "pointer"), problem
        case Vote(extract=Extract(kind="letter", labels=labels)) if any(len(one) != 1 for one in labels):
            yield ("aggregation", "extract", "labels"), "kind letter chooses from single letters; use kind label"
        case Vote(extract=Extract(labels=labels)) if not all(one.strip() for one in labels):
            yield ("aggregation", "extract", "labels"), "a label may not be empty"
        case FirstValid(pattern=str(pattern)) if problem := pattern_problem(pattern):
            yield ("aggregation", "pattern"), problem


@dataclass(frozen=True, slots=True)
class _Group:
    """Those who gave the same vote."""

    vote: str
    weight: Fraction
    places: tuple[int, ...]

    def shown(self) -> dict[str, Any]:
        return {"vote": self.vote[:_SHOWN], "weight": float(self.weight), "candidates": list(self.places)}


def vote(candidates: Sequence[Candidate], config: Vote) -> Chosen | Tie:
    """The first candidate of the group with the most weight behind it, or the tie that a judge has to break.

    Who gives no vote abstains. Weights are added exactly, as they stand in the config: 0.1 and 0.2 make 0.3.

    Raises:
        MalformedReplyError: nobody votes, and a tie is not to end in an empty answer.
    """
    votes = [_vote_of(candidate, config.extract) for candidate in candidates]
    groups = _groups(candidates, votes, config.weights)
    most = max((group.weight for group in groups), default=Fraction(0))
    first = [group for group in groups if group.weight == most > 0]
    why: dict[str, Any] = {
        "method": "vote",
        "tally": [group.shown() for group in sorted(groups, key=lambda group: -group.weight)],
        "abstained": votes.count(None),
        "tie": len(first) > 1,
    }
    if len(first) > 1 and config.ties == "judge":
        return Tie(tuple(group.places[0] for group in first), why)
    if len(first) > 1 and config.ties == "first":
        why["tie_rule"] = "first"
    if config.ties == "abstain" and len(first) != 1:
        return Chosen("", {**why, "tie_rule": "abstain", "chosen": None})
    if not first:
        raise MalformedReplyError(
            f"None of {len(candidates)} answers holds a vote that counts.",
            hint="Look at the answers, at `extract` and at `weights`.",
        )
    return Chosen(candidates[first[0].places[0]].text, {**why, "chosen": first[0].places[0]})


def settled(tie: Tie, verdict: Chosen) -> Chosen:
    """The end of a tie, by the verdict over `[candidates[place] for place in tie.places]`."""
    place = tie.places[verdict.why["chosen"]]
    return Chosen(verdict.text, {**tie.why, "tie_rule": "judge", "judge": dict(verdict.why), "chosen": place})


def _groups(
    candidates: Sequence[Candidate], votes: Sequence[str | None], weights: Mapping[str, float]
) -> tuple[_Group, ...]:
    """In the order in which their votes were first given."""
    places: dict[str, list[int]] = {}
    for place, given in enumerate(votes):
        if given is not None:
            places.setdefault(given, []).append(place)
    return tuple(
        _Group(given, sum((Fraction(str(weights.get(candidates[p].model, 1))) for p in of), Fraction(0)), tuple(of))
        for given, of in places.items()
    )


def _vote_of(candidate: Candidate, extract: Extract | None) -> str | None:
    """The normal form of what a candidate votes for; None when it says nothing of the kind."""
    try:
        value, there = _said(candidate, extract)
        given = normal(value) if there else ""
    except (ValueError, RecursionError):
        return None
    return given or None


def _said(candidate: Candidate, extract: Extract | None) -> tuple[Any, bool]:
    if extract is None:
        return candidate.json, candidate.json is not None
    if extract.pointer is not None:
        value = candidate.json if candidate.json is not None else value_of(candidate.text)
        return pointed(value, extract.pointer)
    said = found(extract.regex, candidate.text) if extract.regex is not None else _of_kind(candidate.text, extract)
    return said, said is not None


def _of_kind(text: str, extract: Extract) -> Any:
    match extract.kind:
        case "number":
            return last_number(text)
        case "letter":
            return letter(text, extract.labels)
        case "label":
            return label(text, extract.labels)
    return short_answer(text)
