"""What is measured of debates beside their votes: rounds, changes of mind, errors in common, confidences. Pure."""

from collections.abc import Sequence
from itertools import product
from statistics import StatisticsError, correlation, fmean

from agentlab.answers.calibration import auroc, bins, brier, ece
from agentlab.debate.config import Confidence, DebateConfig
from agentlab.debate.protocol import listeners
from agentlab.debate.result import Calibration, Change, RoundResult, Scores
from agentlab.debate.transcript import Held, Turn
from agentlab.debate.voting import Case, Fitted
from agentlab.tasks.labelled import Labelled, share_of
from agentlab.tasks.questions import Question


def said(case: Case, number: int) -> Sequence[Turn]:
    """The turns of a round; of a question that was over before, those of its last."""
    return case.debate[min(number, len(case.debate) - 1)]


def alone(questions: Sequence[Question], held: Held) -> Labelled | None:
    """How far each agent is right if it is asked alone, beside the first; None where no likelihood is known."""
    first = next(iter(held.alone), "")
    common = [question for question in questions if question.id in held.alone.get(first, {})]
    scored = {agent: [own[question.id] for question in common] for agent, own in held.alone.items()}
    return Labelled.of(scored, common, first) if common else None


def rounds(cases: Sequence[Case], config: DebateConfig) -> list[RoundResult]:
    """How each round ended. Turns are those that were held; agents and oracle are of all questions."""
    found: list[RoundResult] = []
    for number in range(config.protocol.rounds + 1 if cases else 0):
        turns = [turn for case in cases if number < len(case.debate) for turn in case.debate[number]]
        marks = [[case.marks[turn.answer] for turn in said(case, number)] for case in cases]
        found.append(
            RoundResult(
                round=number,
                debated=sum(number < len(case.debate) for case in cases),
                turns=len(turns),
                unreadable=sum(turn.answer is None for turn in turns),
                agents={agent.name: share_of([of[place] for of in marks]) for place, agent in enumerate(config.agents)},
                oracle=share_of([any(of) for of in marks]),
            )
        )
    return found


def changes(cases: Sequence[Case], config: DebateConfig) -> list[Change]:
    """Changes of mind, by round and agent. To be misled or convinced is to take over what a peer was heard to say."""
    found: list[Change] = []
    for number, (place, agent) in product(range(1, config.protocol.rounds + 1), enumerate(config.agents)):
        counts = dict.fromkeys(("right", "lost", "tempted", "misled", "wrong", "gained", "shown", "convinced"), 0)
        for case in cases:
            if number >= len(case.debate):
                continue
            heard = {case.debate[number - 1][p].answer for p in listeners(config, case.question.id, number, place)}
            before, now = case.debate[number - 1][place].answer, case.debate[number][place].answer
            right = case.marks[now]
            if case.marks[before]:
                false = {answer for answer in heard - {None} if not case.marks[answer]}
                counted = {"right": True, "lost": not right, "tempted": bool(false), "misled": now in false}
            else:
                true = any(case.marks[answer] for answer in heard)
                counted = {"wrong": True, "gained": right, "shown": true, "convinced": true and right}
            for name, was in counted.items():
                counts[name] += was
        found.append(Change(agent=agent.name, round=number, **counts))
    return found


def correlations(cases: Sequence[Case], config: DebateConfig) -> dict[str, dict[str, float | None]]:
    """How far each two agents err on the same questions, on their own; None where one never or always errs."""
    names = [agent.name for agent in config.agents]
    wrong = [[float(not case.marks[case.debate[0][place].answer]) for case in cases] for place in range(len(names))]
    return {
        a: {b: _correlation(x, y) for b, y in zip(names, wrong, strict=True)} for a, x in zip(names, wrong, strict=True)
    }


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    try:
        return correlation(x, y)
    except StatisticsError:
        return None


def calibrated(cases: Sequence[Case], fitted: Fitted, last: int) -> list[Calibration]:
    """Each kind of confidence, of the agents' own answers and of those that are voted on, as given and as fitted."""
    found: list[Calibration] = []
    kinds: tuple[Confidence, ...] = ("said", "logprob", "p_true")
    for kind, number in product(kinds, sorted({0, last})):
        of = [(case, [turn for turn in said(case, number) if kind in turn.confidences]) for case in cases]
        right = [[case.marks[turn.answer] for turn in turns] for case, turns in of]
        if not any(right):
            continue
        raw = [[turn.confidences[kind] for turn in turns] for _, turns in of]
        line = [[fitted.probability(turn, kind) or 0.0 for turn in turns] for _, turns in of]
        after = _scores(line, right) if kind in fitted.calibration else None
        found.append(Calibration(kind=kind, round=number, before=_scores(raw, right), after=after))
    return found


def _scores(sure: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> Scores:
    """Of the confidences of each question."""
    flat, was = [each for some in sure for each in some], [each for some in right for each in some]
    within = [  # a pair of a right and a wrong answer to one question: the right one's confidence is the higher
        (a > b) + (a == b) / 2
        for some, marks in zip(sure, right, strict=True)
        for (a, good), (b, bad) in product(zip(some, marks, strict=True), repeat=2)
        if good and not bad
    ]
    found = bins(flat, was)
    return Scores(
        answers=len(flat),
        ece=ece(found),
        brier=brier(flat, was),
        auroc=auroc(flat, was),
        pairs=len(within),
        within=fmean(within) if within else None,
        bins=found,
    )
