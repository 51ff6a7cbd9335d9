"""How good answers are: every target is asked the same items, and what can be checked by rule is.

Each answer is an event of the run, `answer.given`, and each verdict on an open answer another, `answer.judged`: a run
that is gone on with asks only what has no answer yet. What everything cost, judges and failures included, stands in the
calls that the router records in the same run. At the end the answers also lie in `answers.jsonl`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from agentlab.answers.extract import final_part
from agentlab.answers.judge import JudgeBallot, both_orders, decide_async, place_of
from agentlab.bench.config import Target
from agentlab.bench.failures import cause_of, message_of
from agentlab.bench.quality.config import QualityConfig
from agentlab.bench.quality.plan import QualityPlan, plan_quality
from agentlab.bench.quality.result import (
    ANSWERS_FILE,
    LEVEL,
    NOT_ASKED,
    BenchAnswer,
    JudgeNote,
    QualityResult,
    summarise,
)
from agentlab.errors import AgentlabError, BudgetExceededError, Interrupted, MissingError, ModelFileError, RemoteError
from agentlab.llm import judge
from agentlab.llm.concurrency import all_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.types import Completion, Message
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun
from agentlab.runs.stop import StopFlag
from agentlab.tasks.check import check
from agentlab.tasks.items import TaskItem, set_digest

if TYPE_CHECKING:
    from agentlab.llm.router import Router

JUDGE_TASK = "bench.judge"
GIVEN, JUDGED = "answer.given", "answer.judged"

_GIVE_UP_AFTER = 5  # requests in a row without any answer of the target so far
_DIGITS = 6  # of seconds
_VERDICT = ("score", "agreed", "reason")


async def run_quality(
    config: QualityConfig,
    llm: LLMConfig,
    router: "Router",
    run: OpenRun,
    *,
    targets: Sequence[str] = (),
    stop: StopFlag | None = None,
) -> QualityResult:
    """Ask what was not asked yet, judge what was not judged yet, and score.

    A request that fails scores 0 and is counted apart; a target that never answers is given up after five.

    Args:
        llm: the config that `router` was made of.
        router: its recorder is the run's, or its budget begins anew in each session.
        targets: as of `plan_quality`.

    Raises:
        ConfigError, UnknownNameError: as of `plan_quality`.
        BudgetExceededError: the next request would cost more than is allowed; the answers so far are kept.
        Interrupted: a stop was requested; the answers so far are kept.
    """
    plan = plan_quality(config, llm, targets)
    asking = _QualityAsking(config, plan, router, run, stop or StopFlag(), known_answers(run.events, plan))
    for target in plan.targets:
        await asking.ask(target)
    await asking.judge()
    answers = [asking.answers[target.name, item.id] for target, item in product(plan.targets, plan.items)]
    run.write_text(ANSWERS_FILE, "".join(f"{answer.model_dump_json()}\n" for answer in answers))
    summaries = []
    for target in plan.targets:
        target_answers = [answer for answer in answers if answer.target == target.name]
        summaries.append(summarise(target.name, target_answers))
    return QualityResult(
        item_set=set_digest(plan.items),
        items=len(plan.items),
        level=LEVEL,
        targets=summaries,
        judge=_judge_note(plan, answers),
    )


def known_answers(events: Sequence[Event], plan: QualityPlan) -> dict[tuple[str, str], BenchAnswer]:
    """The answers that a run has to the items of a plan, by target and item, with their verdicts."""
    digests = {item.id: item.digest for item in plan.items}
    answers: dict[tuple[str, str], BenchAnswer] = {}
    for event in events:
        if event.type == GIVEN:
            answer = BenchAnswer.model_validate(event.data["answer"])
            if digests.get(answer.item) == answer.digest:
                answers[answer.target, answer.item] = answer
        elif event.type == JUDGED:
            key = (event.data["target"], event.data["item"])
            if key in answers:
                answers[key] = answers[key].model_copy(update={name: event.data[name] for name in _VERDICT})
    return answers


@dataclass(slots=True)
class _QualityAsking:
    """The state of a run of items: what is known by (target, item), and who does not answer at all."""

    config: QualityConfig
    plan: QualityPlan
    router: "Router"
    run: OpenRun
    stop: StopFlag
    answers: dict[tuple[str, str], BenchAnswer]
    heard: set[str] = field(default_factory=set)  # targets that answered at least once
    lost: dict[str, int] = field(default_factory=dict)  # requests of the others that failed

    def __post_init__(self) -> None:
        for answer in self.answers.values():
            self._count(answer)

    async def ask(self, target: Target) -> None:
        missing = [item for item in self.plan.items if (target.name, item.id) not in self.answers]
        await all_of([partial(self._ask, target, item) for item in missing], self.config.at_once, self.stop)

    async def _ask(self, target: Target, item: TaskItem) -> None:
        answer = _blank(target, item, NOT_ASKED, f"the first {_GIVE_UP_AFTER} requests failed")
        if target.name in self.heard or self.lost.get(target.name, 0) < _GIVE_UP_AFTER:
            answer = await self._answer(target, item)
        self.run.emit(GIVEN, f"{target.name}/{item.id}", answer=answer.model_dump(mode="json"))
        self.answers[target.name, item.id] = answer
        self._count(answer)

    async def _answer(self, target: Target, item: TaskItem) -> BenchAnswer:
        began = time.perf_counter()
        try:
            completion = await self.router.complete(
                [Message("user", item.prompt)],
                f"bench.{item.type}",
                call_id=f"{target.name}/{item.id}",
                options=target.options(temperature=self.config.temperature, max_tokens=item.max_tokens),
            )
        except (RemoteError, MissingError, ModelFileError) as error:
            seconds = round(time.perf_counter() - began, _DIGITS)
            failed = _blank(target, item, cause_of(error).__name__, message_of(error))
            return failed.model_copy(update={"total_seconds": seconds})
        return _answer_of(target, item, completion)

    def _count(self, answer: BenchAnswer) -> None:
        if answer.error:
            self.lost[answer.target] = self.lost.get(answer.target, 0) + 1
        else:
            self.heard.add(answer.target)

    async def judge(self) -> None:
        """All open answers that have no verdict yet; a verdict that could not be had is not asked for again."""
        if self.plan.judge is None:
            return
        done = {(event.data["target"], event.data["item"]) for event in self.run.events if event.type == JUDGED}
        items = {item.id: item for item in self.plan.items}
        waiting = [a for key, a in self.answers.items() if a.type == "open" and a.score is None and key not in done]
        jobs = [partial(self._judge, self.plan.judge, answer, items[answer.item]) for answer in waiting]
        await all_of(jobs, self.config.at_once, self.stop)

    async def _judge(self, model: str, answer: BenchAnswer, item: TaskItem) -> None:
        call_id = f"{answer.target}/{item.id}"
        verdict = await judge_answer(self.router, model, item, final_part(answer.text), call_id)
        self.run.emit(JUDGED, call_id, target=answer.target, item=item.id, **verdict)
        self.answers[answer.target, item.id] = answer.model_copy(update=verdict)


async def judge_answer(router: "Router", model: str, item: TaskItem, text: str, call_id: str) -> dict[str, Any]:
    """`score`, `agreed` and `reason` of an open answer, which `model` compares with the reference answer of its item.

    The score is 1 if the answer is preferred in both orders, 0 in neither, 0.5 if the judge contradicts itself, and
    None, with the reason, if it gives no usable verdict: an error of the judge is no exception.

    Raises:
        Interrupted: a stop was requested.
        BudgetExceededError: the judge was not asked, because it may cost too much.
    """
    letters: list[str] = []

    async def ask(ballots: list[JudgeBallot]) -> list[int]:
        for ballot in ballots:
            verdict = await router.complete(
                judge.messages(ballot),
                JUDGE_TASK,
                judge.Verdict,
                call_id=f"{call_id}/{ballot.number - 1}",
                options=Options(model=model, temperature=0.0, cache=False),
            )
            letters.append(verdict.value.best)
        return [place_of(letter) for letter in letters]

    case = judge.case((Message("user", item.prompt),), [text, str(item.expected)])
    try:
        (match,) = await decide_async(both_orders(case, [(0, 1)]), ask)
    except (Interrupted, BudgetExceededError):
        raise
    except AgentlabError as error:
        return {"score": None, "agreed": None, "reason": error.message}
    if set(letters) - {"A", "B"}:
        letter_list = ", ".join(letters)
        return {"score": None, "agreed": None, "reason": f"the judge named an answer that was not shown: {letter_list}"}
    if match.winner is None:
        return {"score": 0.5, "agreed": False, "reason": "the judge chose by position, not by answer"}
    reason = "the reference was preferred" if match.winner else ""
    return {"score": 1.0 - match.winner, "agreed": True, "reason": reason}


def _blank(target: Target, item: TaskItem, error: str, message: str) -> BenchAnswer:
    return BenchAnswer(
        target=target.name,
        item=item.id,
        digest=item.digest,
        type=item.type,
        level=item.level,
        score=0.0,
        reason="no answer",
        error=error,
        message=message,
    )


def _answer_of(target: Target, item: TaskItem, completion: Completion[str]) -> BenchAnswer:
    check_result, timing, usage = check(item, completion.text), completion.timing, completion.usage
    return _blank(target, item, "", "").model_copy(
        update={
            "text": completion.text,
            "model": completion.model,
            "score": check_result.score,
            "valid": check_result.valid,
            "reason": check_result.reason,
            "first_seconds": None if timing is None or timing.first is None else round(timing.first, _DIGITS),
            "total_seconds": None if timing is None else round(timing.total, _DIGITS),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": usage.cost_usd,
        }
    )


def _judge_note(plan: QualityPlan, answers: Sequence[BenchAnswer]) -> JudgeNote:
    opens = [answer for answer in answers if answer.type == "open" and not answer.error]
    judged = [answer for answer in opens if answer.agreed is not None]
    notes = []
    if opens and plan.judge is None:
        notes.append("No model judged the open answers: set quality.judge, or give a model the role duplicate.")
    if not opens:
        notes.append("There were no open answers to judge.")
    if plan.judge in {answer.model for answer in judged}:
        notes.append(f"{plan.judge} judged its own answers, which models tend to prefer.")
    return JudgeNote(
        model=plan.judge,
        judged=len(judged),
        agreed=sum(bool(answer.agreed) for answer in judged),
        unusable=sum(answer.score is None for answer in opens) if plan.judge else 0,
        note=" ".join(notes),
    )
