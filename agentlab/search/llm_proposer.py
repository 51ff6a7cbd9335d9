"""A language model as proposer, with a classical one behind it that takes over at once when the model fails.

What is asked follows the model's tier: choose one of four screened candidates, make one edit of the best
configuration, or write up to three configurations. Every answer is snapped to the space and screened before it
costs a trial.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field, create_model

from agentlab.config.base import StrictModel
from agentlab.errors import GateError, MissingError, ModelFileError, RemoteError
from agentlab.llm.types import Message
from agentlab.search.history import incumbent
from agentlab.search.prompts import LETTERS, Briefing, difference, edit_prompt, full_prompt, pick_prompt
from agentlab.search.screen import ScreenRules
from agentlab.search.types import Params, Proposal, Proposer, Trial

if TYPE_CHECKING:
    import numpy as np

    from agentlab.llm.router import Router

_NOTE = 200  # characters of a model's reason that are kept

# A search has begun: a model that became unreachable, unaffordable or unreadable may not stop it.
LLM_FAILURES = (RemoteError, GateError, MissingError, ModelFileError)

_Scalar = bool | int | float | str


@dataclass(frozen=True)
class LLMProposer:
    """Proposes with a language model; `base` gives the candidates to choose from and every fallback."""

    base: Proposer  # a `ScreenedProposer`: what it returns is taken as it is
    router: "Router"
    rules: ScreenRules
    about: Briefing
    task: str = "nas.propose"  # name under which the router is asked
    options: int = 4  # candidates of the base that a small model chooses from, at most 8
    scope: str = ""  # tells the calls of searches that share a router apart
    name: ClassVar[str] = "llm"

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        """Up to `n` candidates, the model's first. Without a model or a finished trial: those of the base."""
        tier = self.router.tier(self.task)
        if tier is None or incumbent(history) is None:
            return self.base.ask(history, n, rng)
        options: list[Proposal] = []
        proposals: list[Proposal] = []
        try:
            if tier == "pick":
                options = self.base.ask(history, max(n, self.options), rng)
                if len(options) < 2:
                    return options
                proposals, reason = self._pick(history, options, rng), ""
            else:
                proposals, reason = self._edit(history) if tier == "edit" else self._full(history)
        except LLM_FAILURES as error:
            reason = f"{error.kind}: {error.message}"
        if not proposals:
            return self._stand_in(options or self.base.ask(history, n, rng), reason)[:n]
        if len(proposals) < n:
            proposals += self._unlike(proposals, options or self.base.ask(history, n, rng))
        return proposals[:n]

    def _call(self, history: Sequence[Trial], messages: Sequence[Message], schema: type[BaseModel]) -> Any:
        call_id = f"{self.scope}{self.task}:{len(history)}"
        return self.router.complete_sync(messages, self.task, schema, call_id=call_id).value

    def _pick(
        self, history: Sequence[Trial], options: Sequence[Proposal], rng: "np.random.Generator"
    ) -> list[Proposal]:
        """The option whose letter the model names. The order is shuffled: tiny models like the first letter."""
        shuffled = [options[i] for i in rng.permutation(len(options))][: len(LETTERS)]
        messages = pick_prompt(self.rules.space, history, [option.params for option in shuffled], self.about)
        letter = self._call(history, messages, pick_schema(len(shuffled))).choice
        chosen = shuffled[LETTERS.index(letter)]
        rank = options.index(chosen) + 1
        return [
            Proposal(chosen.params, self.name, f"chose option {rank} of {len(options)}, proposed by {chosen.source}")
        ]

    def _edit(self, history: Sequence[Trial]) -> tuple[list[Proposal], str]:
        space, best = self.rules.space, _best(history)
        answer = self._call(history, edit_prompt(space, history, self.about), edit_schema(tuple(best)))
        return self._usable(history, [{answer.param: answer.value}], lambda point: difference(space, best, point))

    def _full(self, history: Sequence[Trial]) -> tuple[list[Proposal], str]:
        space = self.rules.space
        answer = self._call(history, full_prompt(space, history, self.about), full_schema(tuple(space.parameters)))
        raw = [candidate.model_dump(by_alias=True, exclude_none=True) for candidate in answer.candidates]
        return self._usable(history, raw, lambda _: one_line(answer.reason))

    def _usable(
        self, history: Sequence[Trial], answers: Sequence[dict[str, Any]], note: Callable[[Params], str]
    ) -> tuple[list[Proposal], str]:
        """The answers that can be tried, snapped to the space and screened; and why the others cannot."""
        space, reasons = self.rules.space, self.rules.against(history)
        usable: dict[str, Proposal] = {}
        refused: list[str] = []
        for raw in answers:
            point, problems = space.snap(raw, _best(history))
            problems = problems or reasons(point)
            refused += problems
            if not problems:
                usable.setdefault(space.key(point), Proposal(point, self.name, note(point)))
        return list(usable.values()), "unusable answer: " + "; ".join(refused)

    def _unlike(self, proposals: Sequence[Proposal], candidates: Sequence[Proposal]) -> list[Proposal]:
        keys = {self.rules.space.key(proposal.params) for proposal in proposals}
        return [proposal for proposal in candidates if self.rules.space.key(proposal.params) not in keys]

    def _stand_in(self, proposals: Sequence[Proposal], reason: str) -> list[Proposal]:
        marked = [Proposal(p.params, f"{self.name}->{p.source}", one_line(reason)) for p in proposals[:1]]
        return [*marked, *proposals[1:]]


def pick_schema(options: int) -> type[BaseModel]:
    """`{"choice": "A"}`."""
    return _model("Pick", choice=(Literal[tuple(LETTERS[:options])], ...))


def edit_schema(names: tuple[str, ...]) -> type[BaseModel]:
    """`{"param": one of `names`, "value": ...}`."""
    return _model("Edit", param=(Literal[names], ...), value=(_Scalar, Field(description="The new value.")))


def full_schema(names: tuple[str, ...]) -> type[BaseModel]:
    """`{"reason": ..., "candidates": [{name: value or null}, ...]}` with one to three candidates."""
    fields = {f"p{i}": (_Scalar | None, Field(None, alias=name)) for i, name in enumerate(names)}
    candidate: Any = _model("Candidate", **fields)
    reason = (str, Field(max_length=1_000, description="Two sentences at most."))
    return _model("Candidates", reason=reason, candidates=(list[candidate], Field(min_length=1, max_length=3)))


def _model(name: str, **fields: Any) -> type[BaseModel]:
    model: type[BaseModel] = create_model(name, __base__=StrictModel, **fields)
    return model


def one_line(text: str) -> str:
    """Untrusted text as a short printable line."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * _NOTE])
    return " ".join(printable.split())[:_NOTE]


def _best(history: Sequence[Trial]) -> Params:
    best = incumbent(history)
    return best.proposal.params if best else {}
