"""What is measured of debates beside their votes: rounds, changes of mind, errors in common, confidences. Pure."""

from collections.abc import Sequence
from itertools import chain, product
from statistics import StatisticsError, correlation, fmean

from agentlab.answers.calibration import auroc, bins, brier, ece
from agentlab.answers.choices import Scored
from agentlab.debate.config import Confidence, DebateConfig
from agentlab.debate.protocol import listeners
from agentlab.debate.result import Calibration, CalibrationScores, Change, RoundResult
from agentlab.debate.transcript import Held, Turn
from agentlab.debate.voting import DebateCase, Fitted
from agentlab.runs.document import BoundedShare
from agentlab.tasks.labelled import Labelled, share_of
from agentlab.tasks.questions import QuizQuestion


def round_turns(case: DebateCase, number: int) -> Sequence[Turn]:
    """The turns of a round; of a question that was over before, those of its last."""
    return case.debate[min(number, len(case.debate) - 1)]


def alone(questions: Sequence[QuizQuestion], transcript: Held) -> Labelled | None:
    """How far each agent is right if it is asked alone, beside the first; None where no likelihood is known."""
    first = next(iter(transcript.alone), "")
    common = [question for question in questions if question.id in transcript.alone.get(first, {})]
    if not common:
        return None
    scored: dict[str, list[Scored]] = {}
    for agent, scores in transcript.alone.items():
        scored[agent] = [scores[question.id] for question in common]
    return Labelled.of(scored, common, first)


def rounds(cases: Sequence[DebateCase], config: DebateConfig) -> list[RoundResult]:
    """How each round ended. Turns are those that were held; agents and oracle are of all questions."""
    round_results: list[RoundResult] = []
    for number in range(config.protocol.rounds + 1 if cases else 0):
        debated_cases = [case for case in cases if number < len(case.debate)]
        turns = list(chain.from_iterable(case.debate[number] for case in debated_cases))
        marks = [_marks(case, round_turns(case, number)) for case in cases]
        agents: dict[str, BoundedShare] = {}
        for index, agent in enumerate(config.agents):
            agents[agent.name] = share_of([row[index] for row in marks])
        round_results.append(
            RoundResult(
                round=number,
                debated=len(debated_cases),
                turns=len(turns),
                unreadable=sum(turn.answer is None for turn in turns),
                agents=agents,
                oracle=share_of([any(row) for row in marks]),
            )
        )
    return round_results


def _marks(case: DebateCase, turns: Sequence[Turn]) -> list[bool]:
    return [case.marks[turn.answer] for turn in turns]


def changes(cases: Sequence[DebateCase], config: DebateConfig) -> list[Change]:
    """Changes of mind, by round and agent. To be misled or convinced is to take over what a peer was heard to say."""
    all_changes: list[Change] = []
    for number, (index, agent) in product(range(1, config.protocol.rounds + 1), enumerate(config.agents)):
        counts = dict.fromkeys(("right", "lost", "tempted", "misled", "wrong", "gained", "shown", "convinced"), 0)
        for case in cases:
            if number >= len(case.debate):
                continue
            earlier, peers = case.debate[number - 1], listeners(config, case.question.id, number, index)
            peer_answers = {earlier[peer].answer for peer in peers}
            before, now = earlier[index].answer, case.debate[number][index].answer
            right = case.marks[now]
            if case.marks[before]:
                false = {answer for answer in peer_answers - {None} if not case.marks[answer]}
                counted = {"right": True, "lost": not right, "tempted": bool(false), "misled": now in false}
            else:
                true = any(case.marks[answer] for answer in peer_answers)
                counted = {"wrong": True, "gained": right, "shown": true, "convinced": true and right}
            for name, was in counted.items():
                counts[name] += was
        all_changes.append(Change(agent=agent.name, round=number, **counts))
    return all_changes


def correlations(cases: Sequence[DebateCase], config: DebateConfig) -> dict[str, dict[str, float | None]]:
    """How far each two agents err on the same questions, on their own; None where one never or always errs."""
    errors: dict[str, list[float]] = {}
    for index, agent in enumerate(config.agents):
        errors[agent.name] = [float(not case.marks[case.debate[0][index].answer]) for case in cases]
    matrix: dict[str, dict[str, float | None]] = {name: {} for name in errors}
    for a, b in product(errors, repeat=2):
        matrix[a][b] = _correlation(errors[a], errors[b])
    return matrix


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    try:
        return correlation(x, y)
    except StatisticsError:
        return None


def calibration_results(cases: Sequence[DebateCase], fitted: Fitted, last: int) -> list[Calibration]:
    """Each kind of confidence, of the agents' own answers and of those that are voted on, as given and as fitted."""
    results: list[Calibration] = []
    kinds: tuple[Confidence, ...] = ("said", "logprob", "p_true")
    for kind, number in product(kinds, sorted({0, last})):
        right, raw, calibrated = list[list[bool]](), list[list[float]](), list[list[float]]()
        for case in cases:
            turns = [turn for turn in round_turns(case, number) if kind in turn.confidences]
            right.append(_marks(case, turns))
            raw.append([turn.confidences[kind] for turn in turns])
            calibrated.append([fitted.probability(turn, kind) or 0.0 for turn in turns])
        if not any(right):
            continue
        after = _scores(calibrated, right) if kind in fitted.calibration else None
        results.append(Calibration(kind=kind, round=number, before=_scores(raw, right), after=after))
    return results


def _scores(sure: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> CalibrationScores:
    flat, outcomes = list(chain.from_iterable(sure)), list(chain.from_iterable(right))
    # of each pair of a right and a wrong answer to one question: whether the right one's confidence is the higher
    within: list[float] = []
    for group, marks in zip(sure, right, strict=True):
        pairs = product(zip(group, marks, strict=True), repeat=2)
        within += [(a > b) + (a == b) / 2 for (a, good), (b, bad) in pairs if good and not bad]
    calibration_bins = bins(flat, outcomes)
    return CalibrationScores(
        answers=len(flat),
        ece=ece(calibration_bins),
        brier=brier(flat, outcomes),
        auroc=auroc(flat, outcomes),
        pairs=len(within),
        within=fmean(within) if within else None,
        bins=calibration_bins,
    )
