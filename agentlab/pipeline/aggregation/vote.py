"""The answer that most candidates give."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from agentlab.answers import votes
from agentlab.answers.compare import normal
from agentlab.answers.extract import (
    label,
    last_number,
    letter,
    pointer_problem,
    resolve_pointer,
    short_answer,
    value_of,
)
from agentlab.config.base import StrictModel
from agentlab.config.keys import Key
from agentlab.errors import AgentlabError, MalformedReplyError, UnknownNameError
from agentlab.pipeline.aggregation.base import (
    Aggregation,
    AggregationScene,
    Chosen,
    StageCandidate,
    find_match,
    pattern_problem,
)
from agentlab.pipeline.aggregation.judge import Judge

_SHOWN = 200  # characters of a vote in the tally


class Extract(StrictModel):
    """How the vote of a free text is read; one of these."""

    regex: str | None = Field(
        None,
        max_length=500,
        description="Regular expression; the vote is its first group, or the whole match if it has no groups.",
    )
    pointer: str | None = Field(None, max_length=200, description="JSON pointer into the answer, such as /vote.")
    kind: Literal["number", "letter", "label", "short"] | None = Field(
        None, description="number: the last number; letter, label: one of `labels`; short: a word, name or date."
    )
    labels: tuple[str, ...] = Field((), max_length=64, description="Values that `letter` and `label` choose from.")

    @model_validator(mode="after")
    def _check_exactly_one(self) -> "Extract":
        if sum(setting is not None for setting in (self.regex, self.pointer, self.kind)) != 1:
            raise ValueError("set exactly one of regex, pointer and kind")
        if (self.kind in ("letter", "label")) != bool(self.labels):
            raise ValueError("`labels` is required for the kinds letter and label, and not allowed for the others")
        return self

    def problems(self) -> Iterator[tuple[Key, str]]:
        if self.regex is not None and (problem := pattern_problem(self.regex)):
            yield ("regex",), problem
        if self.pointer is not None and (problem := pointer_problem(self.pointer)):
            yield ("pointer",), problem
        if self.kind == "letter" and any(len(one) != 1 for one in self.labels):
            yield ("labels",), "labels must be single letters for kind letter; use kind label for longer ones"
        elif not all(one.strip() for one in self.labels):
            yield ("labels",), "a label must not be empty"

    def read(self, candidate: StageCandidate) -> tuple[Any, bool]:
        """What a candidate votes for, and whether it does.

        Raises:
            ValueError: it is not the JSON that a pointer needs.
        """
        if self.pointer is not None:
            value = candidate.json if candidate.json is not None else value_of(candidate.text)
            return resolve_pointer(value, self.pointer)
        vote = find_match(self.regex, candidate.text) if self.regex is not None else self._of_kind(candidate.text)
        return vote, vote is not None

    def _of_kind(self, text: str) -> Any:
        match self.kind:
            case "number":
                return last_number(text)
            case "letter":
                return letter(text, self.labels)
            case "label":
                return label(text, self.labels)
        return short_answer(text)


class Vote(Aggregation):
    """The answer that most candidates give. Free text needs `extract`; with `response_schema` the whole value votes."""

    method: Literal["vote"] = "vote"
    extract: Extract | None = Field(None, description="How to read the vote from an answer.")
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="Weight per model; the default is 1.")
    ties: Literal["first", "judge", "abstain"] = Field(
        "first", description="first: the earliest candidate wins; judge: `judge` decides; abstain: the answer is empty."
    )
    judge: str | None = Field(None, description="The model that breaks ties.")
    asks = "judge"
    judges = True

    @model_validator(mode="after")
    def _judge(self) -> "Vote":
        if (self.ties == "judge") != (self.judge is not None):
            raise ValueError("`judge` (a model's name) is required when ties is judge, and not allowed otherwise")
        return self

    def problems(self) -> Iterator[tuple[Key, str]]:
        for key, problem in self.extract.problems() if self.extract is not None else ():
            yield ("extract", *key), problem

    def misfits(self, models: Sequence[str], *, schema: bool) -> Iterator[tuple[Key, str | AgentlabError]]:
        if self.extract is None and not schema:
            way_out = "set `extract` (regex, pointer or kind), or give the stage a response_schema"
            yield (), f"free text cannot be voted on: {way_out}"
        for name in self.weights:
            if name not in models:
                yield ("weights", name), UnknownNameError("model of this stage", name, list(models))

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        """The first candidate of the group with the most weight behind it; a tie goes by its rule.

        Who gives no vote abstains. Weights are added exactly, as they stand in the config: 0.1 and 0.2 make 0.3.
        """
        candidate_votes = [self._vote(candidate) for candidate in candidates]
        tally = votes.vote(candidate_votes, [self.weights.get(candidate.model, 1) for candidate in candidates])
        leaders = tally.leaders
        explanation: dict[str, Any] = {
            "method": "vote",
            "tally": [
                {"vote": group.answer[:_SHOWN], "weight": float(group.weight), "candidates": list(group.voters)}
                for group in tally.groups
            ],
            "abstained": candidate_votes.count(None),
            "tie": len(leaders) > 1,
        }
        if len(leaders) > 1 and self.judge is not None:
            among = [group.voters[0] for group in leaders]
            verdict = Judge(model=self.judge).choose([candidates[index] for index in among], scene)
            explanation |= {"tie_rule": "judge", "judge": dict(verdict.why), "chosen": among[verdict.why["chosen"]]}
            return Chosen(verdict.text, explanation)
        if len(leaders) > 1 and self.ties == "first":
            explanation["tie_rule"] = "first"
        if self.ties == "abstain" and len(leaders) != 1:
            return Chosen("", {**explanation, "tie_rule": "abstain", "chosen": None})
        if not leaders:
            raise MalformedReplyError(
                f"None of the {len(candidates)} answers contains a valid vote.",
                hint="Check the answers, `extract` and `weights`.",
            )
        chosen = leaders[0].voters[0]
        return Chosen(candidates[chosen].text, {**explanation, "chosen": chosen})

    def _vote(self, candidate: StageCandidate) -> str | None:
        """The normal form of what a candidate votes for; None when it says nothing of the kind."""
        try:
            json_vote = (candidate.json, candidate.json is not None)
            value, has_vote = json_vote if self.extract is None else self.extract.read(candidate)
            return normal(value) or None if has_vote else None
        except (ValueError, RecursionError):
            return None
