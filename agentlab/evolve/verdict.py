"""From the events of a run to its result: what evolution added, to what, and how sure that is. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from agentlab.answers.choices import DECIDES, Normalisation
from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.data import QuestionSplit
from agentlab.evolve.genome import BASE, BLEND, PARENT, Coefficients, describe_start
from agentlab.evolve.lineage import parents_in
from agentlab.evolve.recipes import RecipeGenome
from agentlab.evolve.result import (
    EVOLVED,
    GENERATION,
    NAMES,
    RANDOM,
    TERMS,
    ChildRow,
    EvolveResult,
    EvolveStanding,
    GenerationRow,
)
from agentlab.llm.types import Usage
from agentlab.runs.document import BoundedDifference
from agentlab.runs.events import Event
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import RunOutcome
from agentlab.search.history import batches
from agentlab.search.types import meaning
from agentlab.stats.control import Control, ControlComparison, Evidence, judge, verdict_sentence
from agentlab.stats.paired_tests import compare, compare_family
from agentlab.stats.studies import full_study
from agentlab.study.calls import model_rows, silent, totals
from agentlab.study.control import Pair, light_control, unless_lost
from agentlab.study.state import StudyState, TrialState, rebuild, trial_id
from agentlab.tasks.labelled import BESIDE, disagreements, share_of

_FULL, _GAINS = 6, 7  # streams of the generator


@dataclass(frozen=True, slots=True)
class Contender:
    """One whom the sealed split was opened for. `name`: evolved or random with the number of the pair, or a start's."""

    name: str
    trial: TrialState
    marks: Mapping[Normalisation, tuple[bool, ...]]  # which of the sealed questions it answers right
    search: StudyState | None = None  # that it won

    @property
    def answers_spent(self) -> int:
        return int(self.search.amount_spent("items")) if self.search else 0

    def start(self, starts: int) -> str:
        """Of the winner of a search, what it is if it was there before, being one of so many starts; else empty."""
        return describe_start(self.trial.proposal) if self.search and self.trial.number < starts else ""


def verdict(
    config: EvolveConfig,
    genome: Coefficients | RecipeGenome,
    questions: QuestionSplit,
    events: Sequence[Event],
    contenders: Sequence[Contender],
    usage: Usage,
) -> tuple[EvolveResult, RunOutcome]:
    """The result of a run whose sealed split is scored."""
    state = rebuild(events)
    by_name = {contender.name: contender for contender in contenders}
    evolved = by_name[EVOLVED]
    gains = {by: _gains(config, by_name, by) for by in evolved.marks}
    standings = [_standing(by_name[name], gains, evolved, config.starts) for name in NAMES if name in by_name]
    pairs = {by: _pairs(config, by_name, by) for by in gains}
    losses = _lost_errors(contenders)
    controls = {by: unless_lost(_control(config, by_name, gains[by][RANDOM], pairs[by]), losses) for by in gains}
    control = controls[DECIDES]
    agent, note = light_control(state.trials, config.seed, TERMS)
    models = model_rows(events, TERMS)
    children = _children(config, genome, state, events)
    result = EvolveResult(
        sentence=f"{nothing_better(standings)}{sentence(standings, control, paired=bool(pairs[DECIDES]))}",
        remarks=[
            *_disagreements(standings, controls if pairs[DECIDES] else {}),
            *_remarks(config, questions, evolved, by_name[RANDOM], control),
            *silent(models),
        ],
        winner=evolved.trial.id,
        starts=config.starts,
        train=len(questions.train),
        test=len(questions.test),
        items=int(state.amount_spent("items")),
        standings=standings,
        control=control,
        controls=controls,
        agent=agent,
        agent_note=note,
        pairs=pairs[DECIDES],
        pairs_by=pairs,
        generations=_generations(children, events),
        trials=children,
        planner=totals(events, usage),
        models=models,
    )
    accuracy = Metric(value=standings[0].test.value, unit="share", direction="higher")
    tokens = RunTokens(input=result.planner.input_tokens, output=result.planner.output_tokens)
    return result, RunOutcome({"test_accuracy": accuracy}, control, tokens, result.planner.cost_usd)


def _standing(
    contender: Contender, gains: Mapping[Normalisation, Mapping[str, Evidence]], evolved: Contender, starts: int
) -> EvolveStanding:
    assert contender.trial.result is not None
    # all searches share the starts
    same = contender is evolved or contender.trial.number == evolved.trial.number < starts
    train, mine = contender.trial.result.metrics["accuracy"], contender.marks[DECIDES]
    tests = {by: share_of(marks) for by, marks in contender.marks.items()}
    better = {
        by: BoundedDifference.of(evidence_by_name[contender.name])
        for by, evidence_by_name in gains.items()
        if contender.name in evidence_by_name and not same
    }
    return EvolveStanding(
        name=contender.name,
        what=f"{contender.trial.id}{f' ({contender.trial.proposal.note})' if contender.name == PARENT else ''}",
        train=train,
        test=tests[DECIDES],
        tests=tests,
        gap=train - tests[DECIDES].value,
        gain=better.get(DECIDES),
        gains=better,
        differ=sum(a != b for a, b in zip(mine, evolved.marks[DECIDES], strict=True)),
        start=contender.start(starts),
        spent=contender.answers_spent if contender.search else None,
    )


def _gains(config: EvolveConfig, contenders: Mapping[str, Contender], by: Normalisation) -> dict[str, Evidence]:
    """How much better the evolved one is than each other: than random search's alone, the others as one family."""
    evolved, rng = contenders[EVOLVED], np.random.default_rng([config.seed, _GAINS])
    family = {
        name: (evolved.marks[by], contenders[name].marks[by])
        for name in (PARENT, BLEND, BASE)
        if name in contenders and contenders[name].trial.number != evolved.trial.number
    }
    return {RANDOM: compare(evolved.marks[by], contenders[RANDOM].marks[by], rng), **compare_family(family, rng)}


def _lost_errors(contenders: Sequence[Contender]) -> dict[str, list[str]]:
    """Why searches lost children, by the arm that they belong to."""
    errors: dict[str, list[str]] = {EVOLVED: [], RANDOM: []}
    for contender in contenders:
        if contender.search:
            arm = RANDOM if contender.name.startswith(RANDOM) else EVOLVED
            errors[arm] += [trial.loss_reason for trial in contender.search.trials]
    return errors


def _budget(config: EvolveConfig, contenders: Mapping[str, Contender]) -> str:
    """The limits that both arms have, and what each took of them."""
    limits = f"{config.max_items:,} answers{f' and {config.max_trials:,} children' if config.max_trials else ''} each"
    if config.max_seconds is not None:
        limits += (
            f"; evolution had at most {config.max_seconds:g} seconds, random search no more answers than evolution used"
        )
    count = config.control_seeds if config.control == "full" else 1
    evolved, random = (_answers_spent(contenders, arm) / count for arm in (EVOLVED, RANDOM))
    suffix = f", averaged over {count} searches" if count > 1 else ""
    return f"at most {limits}; evolution used {evolved:,.0f}, random search {random:,.0f}{suffix}"


def _answers_spent(contenders: Mapping[str, Contender], arm: str) -> int:
    return sum(contender.answers_spent for name, contender in contenders.items() if name.startswith(arm))


def _pairs(config: EvolveConfig, contenders: Mapping[str, Contender], by: Normalisation) -> list[Pair]:
    """Shares of wrong answers on the sealed split, of each pair of searches, and the answers that these took."""
    names = [("", config.seed), *((f" {n}", config.seed + n) for n in range(1, config.control_seeds))]
    both = {
        seed: (contenders[EVOLVED + end], contenders[RANDOM + end])
        for end, seed in names
        if EVOLVED + end in contenders
    }
    return [
        Pair(
            seed=seed,
            agent=1 - fmean(a.marks[by]),
            control=1 - fmean(b.marks[by]),
            spent=(a.answers_spent, b.answers_spent),
        )
        for seed, (a, b) in both.items()
        if config.control == "full"
    ]


def _control(
    config: EvolveConfig, contenders: Mapping[str, Contender], gain: Evidence, pairs: Sequence[Pair]
) -> Control:
    """The one comparison that was named before the run: with random search at the same limits.

    One pair of searches tells nothing of what other seeds would have found, so it is a light study, and may not say
    `helped`, however many questions there are.
    """
    comparison = ControlComparison(
        agent=f"evolution by {meaning(config.algorithm)}",
        control="random search",
        metric="accuracy on the sealed questions",
        unit="share of questions",
        direction="higher",
        budget=_budget(config, contenders),
    )
    if pairs:
        ours = [1 - (pair.agent or 0.0) for pair in pairs]
        theirs = [1 - (pair.control or 0.0) for pair in pairs]
        return full_study(comparison, ours, theirs, np.random.default_rng([config.seed, _FULL]))
    return judge(comparison, gain.n, gain, "light")


def sentence(standings: Sequence[EvolveStanding], control: Control, *, paired: bool) -> str:
    """The verdict, in the order in which a reader asks: how good, and better than whom."""
    evolved, rivals = standings[0], [standing for standing in standings[1:] if standing.name in (PARENT, BLEND, RANDOM)]
    phrases = [standing.gain.verdict_against(_NAMES[standing.name]) for standing in rivals if standing.gain is not None]
    return (
        f"{_subject(evolved)} is right on {evolved.test} of {evolved.test.count} sealed questions"
        f"{': ' if phrases else ''}{'; '.join(phrases)}. {_overall(control, paired=paired)}"
    )


def nothing_better(standings: Sequence[EvolveStanding]) -> str:
    """What comes first if the winner was there before the search; empty if it was found."""
    evolved, random = standings[0], next((standing for standing in standings if standing.name == RANDOM), None)
    if not evolved.start:
        return ""
    neither = " Random search found nothing better either." if random and random.start else ""
    return (
        f"The search found nothing better than {evolved.start} ({evolved.what}), one of its starting points.{neither} "
    )


def _subject(evolved: EvolveStanding) -> str:
    return f"{evolved.start[0].upper()}{evolved.start[1:]}" if evolved.start else f"The evolved adapter {evolved.what}"


_NAMES = {PARENT: "the best parent", BLEND: "the uniform blend", RANDOM: "random search"}


def _overall(control: Control, *, paired: bool) -> str:
    if paired or control.verdict == "not_measured":
        return verdict_sentence(control, "evolution", "pairs of searches")
    return "Only one seed was run, so other seeds may give other results; --control full repeats both searches."


def _disagreements(standings: Sequence[EvolveStanding], controls: Mapping[Normalisation, Control]) -> Iterator[str]:
    """Where it depends on the normalisation who is better; `controls` are those of pairs of searches."""
    subject, names = _subject(standings[0]), {**NAMES, **_NAMES}

    def gains(by: Normalisation) -> dict[str, BoundedDifference]:
        rivals = [standing for standing in standings if by in standing.gains]
        return {f"{subject} against {names[rival.name]}": rival.gains[by] for rival in rivals}

    yield from disagreements(gains(DECIDES), gains(BESIDE))
    pair = [controls[by] for by in (DECIDES, BESIDE) if by in controls]
    values = [control.estimate for control in pair if control.estimate is not None]
    if len(values) == 2 and (pair[0].verdict != pair[1].verdict or values[0] * values[1] < 0):
        yield f"By the {BESIDE} of the log-probabilities: {verdict_sentence(pair[1], 'evolution', 'pairs of searches')}"


def _remarks(
    config: EvolveConfig, questions: QuestionSplit, evolved: Contender, random: Contender, control: Control
) -> list[str]:
    remarks = []
    if random.start(config.starts) and not evolved.start(config.starts):
        remarks.append(f"Random search found nothing better than {random.start(config.starts)} ({random.trial.id}).")
    if questions.unknown:
        remarks.append(
            f"The training data of {', '.join(questions.unknown)} is unknown; it may contain some of these questions."
        )
    if control.note and control.verdict != "not_measured":  # the verdict says it then
        remarks.append(control.note)
    return remarks


def _children(
    config: EvolveConfig, genome: Coefficients | RecipeGenome, state: StudyState, events: Sequence[Event]
) -> list[ChildRow]:
    terms, closing = terms_of(events), [trial.number for trial in state.trials if trial.closes]
    rows: list[ChildRow] = []
    for number, members in enumerate(batches(state.trials, config.population)):
        for trial in members:
            parents = _bred_from(trial, config, genome, closing)
            rows.append(_child(trial, number, parents, terms.get(trial.id, {})))
    return rows


def terms_of(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """The terms of the main search's children, by id."""
    terms: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.type == GENERATION and "/" not in event.id:
            terms |= event.data["terms"]
    return terms


def _bred_from(
    trial: TrialState, config: EvolveConfig, genome: Coefficients | RecipeGenome, closing: Collection[int] = ()
) -> list[int]:
    """Numbers of the trials that a child comes from. What a language model notes names none, whatever it says."""
    if isinstance(genome, RecipeGenome):
        return genome.bred_from(trial.proposal.params, trial.number, closing)
    return parents_in(trial.proposal.note) if trial.proposal.source == config.algorithm else []


def _child(trial: TrialState, generation: int, parents: Sequence[int], terms: Mapping[str, Any]) -> ChildRow:
    metrics = trial.result.metrics if trial.result else {}
    return ChildRow(
        id=trial.id,
        generation=generation,
        source=trial.proposal.source,
        arm=trial.arm,
        note=trial.proposal.note,
        parents=[trial_id(number) for number in parents],
        error=trial.value,
        accuracy=metrics.get("accuracy"),
        items=metrics.get("items", 0),
        sets=metrics.get("sets", {}),
        fitness=terms.get("fitness"),
        cooperation=terms.get("cooperation"),
        novelty=terms.get("novelty"),
        useful=terms.get("useful", False),
        accepted=bool(trial.decision and trial.decision.accepted),
        failed=trial.result.error if trial.result else "",
        params=dict(trial.proposal.params),
    )


def _generations(children: Sequence[ChildRow], events: Sequence[Event]) -> list[GenerationRow]:
    items_by_generation = {event.id: event.data["items"] for event in events if event.type == GENERATION}
    rows: list[GenerationRow] = []
    for number in range(children[-1].generation + 1):
        members = [child for child in children if child.generation == number]
        complete = [child for child in members if child.cooperation is not None]
        best = min(complete, key=lambda child: child.error or 0.0, default=None)
        rows.append(
            GenerationRow(
                number=number,
                children=len(members),
                stopped=sum(not child.failed and child.cooperation is None for child in members),
                failed=sum(bool(child.failed) for child in members),
                best=None if best is None else best.id,
                task=_mean([None if child.error is None else 1 - child.error for child in complete]),
                solo=_mean([child.accuracy for child in complete]),
                cooperation=_mean([child.cooperation for child in complete]),
                novelty=_mean([child.novelty for child in complete]),
                fitness=_mean([child.fitness for child in complete]),
                items=items_by_generation.get(f"gen_{number:04d}", 0),
            )
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return fmean(known_values) if known_values else None
