"""What debates came to: what debating added to plain votes at what cost, and what may be said of it. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from agentlab.answers.votes import Tally
from agentlab.debate import measures
from agentlab.debate.config import DebateConfig, VoteConfig
from agentlab.debate.protocol import Rounds
from agentlab.debate.result import (
    NAMES,
    ArmName,
    ArmResult,
    DebateResult,
    Position,
    RuleResult,
    Telling,
    VoteOutcome,
    sentence,
)
from agentlab.debate.rules import JUDGE, is_by_confidence
from agentlab.debate.transcript import Arm, Ballot, Held, Turn
from agentlab.debate.voting import DebateCase, Fitted, Tallies, at_round, cases_of, primary, rules_of, vote_by, votes
from agentlab.llm.policy import BREAKER_OPEN
from agentlab.runs.document import BoundedDifference, BoundedShare
from agentlab.stats.control import LEVEL, Control, ControlComparison, Evidence, judge, not_measured
from agentlab.stats.paired_tests import compare, compare_family
from agentlab.tasks.labelled import share_of
from agentlab.tasks.questions import QuizQuestion

LEAST_QUESTIONS = 100
Compared = str | tuple[int, str]  # an arm, or a round and rule
_SHOWN = 2  # questions of a kind


@dataclass(frozen=True, slots=True)
class _ArmOutcome:
    """An arm on one question: whether its answer was right, and the turns that it took."""

    right: bool
    turns: Sequence[Turn]
    judged: Sequence[Ballot] = ()

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in (*self.turns, *self.judged))


def verdict(
    questions: Sequence[QuizQuestion],
    transcript: Held,
    fitted: Fitted,
    config: DebateConfig,
    named: VoteConfig | None = None,
) -> DebateResult:
    """What the debates came to, by the vote of the config; all other votes are exploratory.

    `questions` are those that are scored, or the topic; what was said about others is passed over. `named` is the vote
    that was named before the run, where `config.vote` is one that was thought of afterwards.
    """
    cases = cases_of(questions, transcript, config)
    case_tallies = [votes(case.debate, fitted, config, case.ballots) for case in cases]
    topic = config.topic is not None
    after = named is not None and _comparison_key(config.model_copy(update={"vote": named})) != _comparison_key(config)
    arms = {} if topic else _arms(cases, case_tallies, fitted, config)
    rules = [] if topic else _rules(cases, case_tallies, config)
    against = arms.get(config.vote.against, [])
    rivals: dict[Compared, tuple[list[bool], list[bool]]] = {
        name: (_marks(arms["debate"]), _marks(arm)) for name, arm in arms.items() if name != "debate"
    }
    if against:
        rivals |= {(number, rule): (right, _marks(against)) for number, rule, right in rules}
    gains = _gains(rivals, config, after=after)
    control = _control(arms, fitted, config, gains, len(cases), after=after)
    results = [_arm(name, arms, transcript, gains.get(name)) for name in arms]
    voted: list[RuleResult] = []
    for number, rule, right in rules:
        gain = BoundedDifference.of(gains[number, rule]) if against else None
        voted.append(RuleResult(round=number, rule=rule, accuracy=share_of(right), gain=gain))
    return DebateResult(
        sentence=sentence(control, results[0].accuracy if results else None),
        remarks=[*_failure_remarks(transcript), *_remarks(results)],
        topic=config.topic,
        questions=len(cases),
        dev=fitted.questions,
        best=fitted.best,
        rule=config.vote.rule,
        round=primary(config),
        against=config.vote.against,
        control=control,
        compared=len({id(gain) for gain in gains.values()}) - (0 if after else config.vote.against in gains),
        arms=results,
        rules=voted,
        rereading=_rereading(cases, fitted, config) if "length" in arms else [],
        rounds=[] if topic else measures.rounds(cases, config),
        changes=[] if topic else measures.changes(cases, config),
        correlations={} if topic else measures.correlations(cases, config),
        alone=measures.alone(questions, transcript),
        calibration=[] if topic else measures.calibration_results(cases, fitted, primary(config)),
        positions=_positions(cases[0], fitted, config) if topic and cases else [],
        telling=list(_telling(cases, case_tallies, config)),
    )


def _comparison_key(config: DebateConfig) -> tuple[int, str, str]:
    return primary(config), config.vote.rule, config.vote.against


def _gains(
    rivals: Mapping[Compared, tuple[list[bool], list[bool]]], config: DebateConfig, *, after: bool
) -> dict[Compared, Evidence]:
    """How much better the debate is than each arm, and each vote than what is held against the debate.

    The comparison that was named before the run stands alone, and in both tables; all others are one family.
    """
    family, rng = dict(rivals), np.random.default_rng(config.seed)
    family.pop((primary(config), config.vote.rule), None)  # the vote of the debate, which is among the arms
    named = family.pop(config.vote.against, None) if not after else None
    gains = compare_family(family, rng)
    if named is not None:
        gains[config.vote.against] = compare(*named, rng)
    if config.vote.against in gains:
        gains[primary(config), config.vote.rule] = gains[config.vote.against]
    return gains


def _marks(arm: Sequence[_ArmOutcome]) -> list[bool]:
    return [outcome.right for outcome in arm]


def _arms(
    cases: Sequence[DebateCase], case_tallies: Sequence[Sequence[Tallies]], fitted: Fitted, config: DebateConfig
) -> dict[ArmName, list[_ArmOutcome]]:
    """Each arm on all questions, those that were held. Nobody judged the others: the majority stands for a judge."""
    rule, last = config.vote.rule, primary(config)
    best = [agent.name for agent in config.agents].index(fitted.best)
    outcomes: dict[ArmName, list[_ArmOutcome]] = {}

    def build_outcome(case: DebateCase, rule: str, rounds: Rounds) -> _ArmOutcome:
        right = case.marks[vote_by(rule, rounds, fitted, config).winner]
        return _ArmOutcome(right, list(chain.from_iterable(rounds)))

    for case, tallies in zip(cases, case_tallies, strict=True):
        debate_turns = list(chain.from_iterable(case.debate[: last + 1]))
        judged = case.ballots if rule == JUDGE else ()
        debate = _ArmOutcome(case.marks[_configured_tally(tallies, config).winner], debate_turns, judged)
        arms: dict[ArmName, _ArmOutcome] = {
            "debate": debate,
            "vote": build_outcome(case, rule, case.debate[:1]),
            "single": build_outcome(case, "majority", [[case.debate[0][best]]]),
        }
        if case.samples:
            counted = rule if is_by_confidence(rule) else "majority"
            arms["samples"] = build_outcome(case, counted, [_as_many(case.samples, debate.tokens)])
        if len(case.length) >= min(last + 1, len(case.debate)):
            arms["length"] = build_outcome(case, rule, case.length[: last + 1])
        for name, arm in arms.items():
            outcomes.setdefault(name, []).append(arm)
    return {name: arm for name, arm in outcomes.items() if len(arm) == len(cases)}


def right_on(questions: Sequence[QuizQuestion], transcript: Held, fitted: Fitted, config: DebateConfig) -> list[bool]:
    """Of each of these questions, whether the vote that is named in the config is right."""
    cases = cases_of(questions, transcript, config)
    tallies = [_configured_tally(votes(case.debate, fitted, config, case.ballots), config) for case in cases]
    return [case.marks[tally.winner] for case, tally in zip(cases, tallies, strict=True)]


def _configured_tally(tallies: Sequence[Tallies], config: DebateConfig) -> Tally[str]:
    voted = at_round(tallies, config)
    return voted.get(config.vote.rule, voted["majority"])


def _as_many(samples: Sequence[Turn], tokens: int) -> list[Turn]:
    """Samples in their order, until they took as many tokens; the one that reaches them is the last."""
    used_turns: list[Turn] = []
    for turn in samples:
        used_turns.append(turn)
        if (tokens := tokens - turn.tokens) <= 0:
            break
    return used_turns


def _arm(
    name: ArmName, arms: Mapping[ArmName, Sequence[_ArmOutcome]], transcript: Held, gain: Evidence | None
) -> ArmResult:
    """The figures of an arm; its seconds are those of its turns, shared out by tokens where it used a part of them."""
    outcomes, debate = arms[name], arms["debate"]
    arm_tokens = Counter[Arm]()
    for turn in (*transcript.turns, *transcript.ballots):
        arm_tokens[turn.arm] += turn.tokens
    turns = list(chain.from_iterable(outcome.turns for outcome in outcomes))
    billed = chain.from_iterable((*outcome.turns, *outcome.judged) for outcome in outcomes)
    used = [turn for turn in billed if turn.tokens]
    seconds: float | None = None
    if all(turn.arm in transcript.seconds for turn in used):
        seconds = sum(transcript.seconds[turn.arm] * turn.tokens / arm_tokens[turn.arm] for turn in used)
    return ArmResult(
        arm=name,
        accuracy=share_of([outcome.right for outcome in outcomes]),
        turns=len(turns),
        unreadable=sum(turn.answer is None for turn in turns),
        tokens=_sum_tokens(outcomes),
        seconds=seconds,
        short=_short(outcomes, debate) if name == "samples" else 0,
        gain=None if gain is None else BoundedDifference.of(gain),
    )


def _sum_tokens(outcomes: Sequence[_ArmOutcome]) -> int:
    return sum(outcome.tokens for outcome in outcomes)


def _short(samples: Sequence[_ArmOutcome], debate: Sequence[_ArmOutcome]) -> int:
    """On how many questions all samples took fewer tokens than the debate."""
    return sum(ours.tokens < theirs.tokens for ours, theirs in zip(samples, debate, strict=True))


def _budget(arms: Mapping[ArmName, Sequence[_ArmOutcome]], against: ArmName) -> str:
    took = {name: _sum_tokens(arms[name]) for name in ("debate", against) if name in arms}
    rule = (
        "sampled on each question until the debate's token count is reached"
        if against == "samples"
        else "tokens not matched"
    )
    return f"{rule}; {', '.join(f'{name} used {tokens:,}' for name, tokens in took.items())}"


def _control(
    arms: Mapping[ArmName, Sequence[_ArmOutcome]],
    fitted: Fitted,
    config: DebateConfig,
    gains: Mapping[Compared, Evidence],
    n: int,
    *,
    after: bool,
) -> Control:
    """The one comparison that was named before the run."""
    against = config.vote.against
    comparison = ControlComparison(
        agent=f"debate, vote by {config.vote.rule} after round {primary(config)}",
        control=NAMES[against].format(best=fitted.best),
        metric="accuracy",
        unit="share of questions",
        direction="higher",
        budget=_budget(arms, against),
    )
    if config.topic is not None:
        return not_measured(comparison, 0, LEVEL, "A topic has no right answer.")
    refuse = partial(not_measured, comparison, n, LEVEL)
    if after:
        return refuse("This vote was chosen after the run, so its result is exploratory.")
    if against not in arms:
        return refuse("The baseline was not run.")
    turns = chain.from_iterable(outcome.turns for outcome in (*arms["debate"], *arms[against]))
    if against == "samples" and any(turn.text and not turn.tokens for turn in turns):
        return refuse("A model does not report its token counts, so the budgets cannot be matched.")
    if n < LEAST_QUESTIONS:
        smallest = gains[against].smallest
        seen = "no difference" if smallest is None else f"only a difference of {100 * smallest:.0f} points or more"
        return refuse(f"Too few questions ({n}; {LEAST_QUESTIONS} needed); {seen} could be detected reliably.")
    if against == "samples" and gains[against].low > 0 and (short := _short(arms[against], arms["debate"])):
        return refuse(
            f"The baseline used fewer tokens than the debate on {short} of {n} questions; raise vote.samples."
        )
    # Each question is answered in both arms, and neither hears anything of the other: nothing that debating finds can
    # help its control, which is what keeps a light study from saying `helped`. So the questions are a full study.
    return judge(comparison, n, gains[against], "full")


def _remarks(arms: Sequence[ArmResult]) -> Iterator[str]:
    """What the other arms say about the verdict."""
    arms_by_name = {arm.arm: arm for arm in arms}
    first, reread = (arms_by_name[name].gain if name in arms_by_name else None for name in ("vote", "length"))
    if first is not None and reread is not None:
        if reread.low > 0:
            yield f"Hearing peers gains {reread} points over rereading one's own answers."
        elif reread.high < 0:
            yield f"Hearing peers hurts: {reread} points compared with rereading one's own answers."
        elif first.low > 0:
            yield (
                f"The debate gains {first} points over the vote on first answers, but hearing peers is not shown to be "
                f"the cause: over rereading own answers in equally long prompts, the gain is {reread} points."
            )
    if "samples" in arms_by_name and (short := arms_by_name["samples"].short):
        yield f"Questions on which all samples used fewer tokens than the debate: {short}. Raise vote.samples."


def _failure_remarks(transcript: Held) -> Iterator[str]:
    """What went wrong, of which nothing was lost."""
    if shortened := transcript.shortened:
        yield f"{shortened} prompts did not fit the context and were sent again with only the latest answers."
    if transcript.worded:
        yield f"{transcript.worded} answers did not match their schema and were requested again as text."
    for agent in dict.fromkeys(turn.agent for turn in transcript.turns):
        turns = [turn for turn in transcript.turns if turn.agent == agent]
        if errors := [turn.error for turn in turns if turn.error]:
            reason = errors[0].rpartition("the first said: ")[2]  # of the router, which asked one model alone
            unasked = sum(BREAKER_OPEN in error for error in errors)
            besides = f" ({unasked} of them not sent, after repeated failures)" if unasked else ""
            count = f"{len(errors)} of {len(turns)} turns"
            yield f"{agent} failed in {count}, which count as wrong{besides}: {reason[:200]}"
    if failed := [ballot for ballot in transcript.ballots if ballot.unread or ballot.error]:
        unread = sum(ballot.unread for ballot in transcript.ballots)
        comparisons = sum(ballot.asked for ballot in transcript.ballots)
        yield (
            f"Questions on which the judge failed: {len(failed)} "
            f"({unread} of {comparisons} comparisons named no answer); "
            "without a judgement, the answer given first wins."
        )


def _rules(
    cases: Sequence[DebateCase], case_tallies: Sequence[Sequence[Tallies]], config: DebateConfig
) -> list[tuple[int, str, list[bool]]]:
    """Of each round and rule that all questions have, on which of them its answer is right."""
    scored_rules: list[tuple[int, str, list[bool]]] = []
    for number in range(config.protocol.rounds + 1 if cases else 0):
        tallies = [at_round(per_round, config, number) for per_round in case_tallies]
        for rule in rules_of(config):
            if all(rule in by_rule for by_rule in tallies):
                right = [case.marks[by_rule[rule].winner] for case, by_rule in zip(cases, tallies, strict=True)]
                scored_rules.append((number, rule, right))
    return scored_rules


def _rereading(cases: Sequence[DebateCase], fitted: Fitted, config: DebateConfig) -> list[BoundedShare]:
    shares: list[BoundedShare] = []
    for number in range(config.protocol.rounds + 1):
        tallies = [vote_by(config.vote.rule, case.length[: number + 1], fitted, config) for case in cases]
        shares.append(share_of([case.marks[tally.winner] for case, tally in zip(cases, tallies, strict=True)]))
    return shares


def _positions(case: DebateCase, fitted: Fitted, config: DebateConfig) -> list[Position]:
    """Where each agent stood on a topic, before and after."""
    kind = config.turn.confidence
    return [
        Position(agent=a.agent, first=a.answer, last=b.answer, confidence=fitted.probability(b, kind))
        for a, b in zip(case.debate[0], measures.round_turns(case, primary(config)), strict=True)
    ]


def _telling(
    cases: Sequence[DebateCase], case_tallies: Sequence[Sequence[Tallies]], config: DebateConfig
) -> Iterator[Telling]:
    """Some debates that a reader learns from: where the vote changed for better and worse, and ties. The longest first:
    where all agree at once there is little to read."""
    shown_counts: dict[str, int] = {}
    for case, tallies in sorted(zip(cases, case_tallies, strict=True), key=lambda pair: -len(pair[0].debate)):
        voted = [by_rule.get(config.vote.rule, by_rule["majority"]) for by_rule in tallies[: primary(config) + 1]]
        before, after = (case.marks[tally.winner] for tally in (voted[0], voted[-1]))
        unchanged = "a tie" if len(voted[-1].leaders) > 1 else "the vote did not change"
        reason = unchanged if before == after else "from wrong to right" if after else "from right to wrong"
        if shown_counts.get(reason, 0) == _SHOWN:
            continue
        shown_counts[reason] = shown_counts.get(reason, 0) + 1
        votes_ = [VoteOutcome(answer=t.winner, share=t.share, tied=len(t.leaders) > 1) for t in voted]
        yield Telling(question=case.question.id, why=reason, votes=votes_)
