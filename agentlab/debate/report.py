"""The report of `agentlab debate`: figures, and some debates as people read one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agentlab.debate.protocol import by_round
from agentlab.debate.result import NAMES, CalibrationScores, DebateResult, Telling
from agentlab.debate.transcript import Held, Turn
from agentlab.runs.document import (
    Block,
    BoundedShare,
    Figure,
    Heading,
    Report,
    Table,
    Text,
    figure_or_dash,
    number,
    table,
)
from agentlab.runs.figures import COLOURS, MARKERS, SMALL, legend_below, new_panels, svg, whole_numbers
from agentlab.runs.run import OpenRun
from agentlab.tasks.questions import QuizQuestion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCURACY, _RELIABILITY = "plots/accuracy.svg", "plots/reliability.svg"
_LONGEST = 600  # characters of a turn; the transcript has all of it


def debate_report(
    run: OpenRun, result: DebateResult, questions: Sequence[QuizQuestion], transcript: Held, agents: Table
) -> Report:
    """Draw the figures into the run folder, and say what they show."""
    *others, last = [row[0] for row in agents.rows]
    names = f"{', '.join(others)} and {last}" if others else last
    subject = f"{result.topic!r}" if result.topic else f"{result.questions} questions"
    blocks = result.tables()
    if result.arms:
        run.write_text(_ACCURACY, accuracies(result))
        blocks.append(Figure(_ACCURACY, "Accuracy by round and by arm, with 95% intervals"))
        blocks += [Heading("Rounds"), _rounds(result), _rules(result)]
        blocks += [Heading("Changes of mind"), *_changes(result), _together(result)]
    if result.calibration:
        blocks += [Heading("Confidence"), _calibration(result)]
        run.write_text(_RELIABILITY, reliability(result))
        blocks.append(Figure(_RELIABILITY, "Accuracy at each confidence, raw and calibrated"))
    blocks += [Heading("Agents"), agents]
    questions_by_id = {question.id: question for question in questions}
    for telling in result.telling:
        blocks += _story(telling, questions_by_id[telling.question], transcript)
    return Report(
        title=f"Debate between {names} on {subject}",
        verdict=result.verdict,
        facts={"agents": names, "data": subject},
        body=blocks,
        next_step=f"agentlab debate replay {run.id}",
        caveats=result.remarks,
    )


# -- tables --------------------------------------------------------------------------------------------------------


def _rounds(result: DebateResult) -> Table:
    agents = list(result.rounds[0].agents)
    rows: list[tuple[str, ...]] = []
    for round_result in result.rounds:
        unreadable = f"{round_result.unreadable / max(1, round_result.turns):.1%}"
        shares = [str(round_result.agents[name]) for name in agents]
        rows.append((str(round_result.round), str(round_result.debated), unreadable, *shares, str(round_result.oracle)))
    caption = (
        "Questions debated, unreadable answers, and accuracy with 95% intervals; any: at least one agent was right"
    )
    return Table(("round", "debated", "unreadable", *agents, "any"), rows, caption)


def _rules(result: DebateResult) -> Table:
    return table(
        result.rules,
        {
            "round": lambda r: r.round,
            "vote": lambda r: r.rule + (" *" if (r.round, r.rule) == (result.round, result.rule) else ""),
            "accuracy": lambda r: str(r.accuracy),
            "gain": lambda r: figure_or_dash(r.gain),
        },
        f"Each vote and its gain in points over {NAMES[result.against].format(best=result.best)}. "
        "* marks the vote chosen before the run; the others are exploratory",
    )


def _changes(result: DebateResult) -> Iterator[Block]:
    def of(part: int, total: int) -> str:
        return f"{part} of {total}"

    yield table(
        result.changes,
        {
            "round": lambda c: c.round,
            "agent": lambda c: c.agent,
            "right to wrong": lambda c: of(c.lost, c.right),
            "misled": lambda c: of(c.misled, c.tempted),
            "wrong to right": lambda c: of(c.gained, c.wrong),
            "convinced": lambda c: of(c.convinced, c.shown),
        },
        "Misled: was right, and adopted a wrong answer it heard. Convinced: was wrong, and adopted a right one",
    )
    tempted = sum(change.tempted for change in result.changes)
    misled = sum(change.misled for change in result.changes)
    shown = sum(change.shown for change in result.changes)
    convinced = sum(change.convinced for change in result.changes)
    if tempted and shown:
        yield Text(
            f"Right agents that heard a wrong answer adopted it in {misled / tempted:.0%} of cases "
            f"({of(misled, tempted)}); "
            f"wrong agents that heard a right one, in {convinced / shown:.0%} ({of(convinced, shown)})."
        )


def _together(result: DebateResult) -> Table:
    names = list(result.correlations)
    rows: list[tuple[str, ...]] = []
    for name, coefficients in result.correlations.items():
        rows.append((name, *(number(coefficients[peer], 2) for peer in names)))
    return Table(("", *names), rows, "Correlation of errors in the first answers: at 1, voting adds nothing")


def _calibration(result: DebateResult) -> Table:
    rows: list[tuple[str, int, str, CalibrationScores]] = []
    for calibration in result.calibration:
        rows.append((calibration.kind, calibration.round, "raw", calibration.before))
        if calibration.after is not None:
            state = f"calibrated on {result.dev} questions"
            rows.append((calibration.kind, calibration.round, state, calibration.after))
    return table(
        rows,
        {
            "confidence": lambda row: row[0],
            "round": lambda row: row[1],
            "": lambda row: row[2],
            "answers": lambda row: row[3].answers,
            "ECE": lambda row: number(row[3].ece, 3),
            "Brier": lambda row: number(row[3].brier, 3),
            "AUROC": lambda row: number(row[3].auroc, 3),
            "within a question": lambda row: f"{number(row[3].within, 3)} ({row[3].pairs} pairs)",
        },
        "Within a question: how often a right answer has a higher confidence than a wrong one to the same question",
    )


# -- a debate as people read one ------------------------------------------------------------------------------------


def _story(telling: Telling, question: QuizQuestion, transcript: Held) -> Iterator[Block]:
    """Who said what in which round, with changes of mind and votes marked."""
    yield Heading(f"Debate {question.id}: {telling.why}" if question.answer is not None else "The debate")
    yield Text(question.text + (f" ({', '.join(question.choices)})" if question.choices else ""))
    rows: list[Sequence[str]] = []
    last: dict[str, str | None] = {}
    turns = [turn for turn in transcript.turns if turn.question == question.id]
    agents = {turn.agent: index for index, turn in enumerate(turns) if turn.arm == "debate"}
    rounds = by_round(turns, "debate", agents)[question.id]
    judged = {ballot.round: ballot for ballot in transcript.ballots if ballot.question == question.id}
    voted_rounds = zip(rounds, telling.votes, strict=False)  # later rounds were not voted on
    for round_number, (round_turns, vote) in enumerate(voted_rounds):
        for turn in round_turns:
            before = last.get(turn.agent, turn.answer)
            changed = "" if before == turn.answer else f", was {figure_or_dash(before, otherwise='unreadable')}"
            rows.append((str(round_number), turn.agent, _format_answer(question, turn.answer) + changed, _cut(turn)))
            last[turn.agent] = turn.answer
        if (ballot := judged.get(round_number)) is not None and ballot.asked:
            unread = f" ({ballot.unread} of {ballot.asked} named no answer)" if ballot.unread else ""
            answer = _format_answer(question, ballot.answer) + unread
            rows.append((str(round_number), f"{ballot.agent} (judge)", answer, _cut(ballot)))
        rows.append((str(round_number), "VOTE", _format_answer(question, vote.answer), str(vote)))
    right = f"Correct answer: {question.answer}. " if question.answer is not None else ""
    yield Table(("round", "agent", "answer", "text"), rows, f"{right}Changed answers also show the previous one")


def _format_answer(question: QuizQuestion, answer: str | None) -> str:
    if answer is None:
        return "(unreadable)"
    return answer if question.answer is None else f"{answer} ({'right' if question.right(answer) else 'wrong'})"


def _cut(turn: Turn) -> str:
    text = turn.text or turn.error
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [{len(text) - _LONGEST} more characters]"


# -- figures --------------------------------------------------------------------------------------------------------


def accuracies(result: DebateResult) -> str:
    """Above, the rounds: each agent, anybody, the vote; below, the arms."""
    figure, (round_axes, arm_axes) = new_panels(2, 6.4)
    votes = {rule_result.round: rule_result.accuracy for rule_result in result.rules if rule_result.rule == result.rule}
    numbers = [entry.round for entry in result.rounds]
    for name in result.rounds[0].agents:
        round_axes.plot(numbers, [entry.agents[name].value for entry in result.rounds], color="0.75", lw=1)
    round_axes.plot([], [], color="0.75", label="each agent")
    series = {
        f"debate, {result.rule} vote": votes,
        NAMES["length"]: dict(enumerate(result.rereading)),
        "any agent was right": {round_result.round: round_result.oracle for round_result in result.rounds},
    }
    for index, (label, shares) in enumerate(series.items()):
        if shares:
            _draw_bars(round_axes, shares, label, index)
    round_axes.set(xlabel="round", ylabel="accuracy", title="By round")
    whole_numbers(round_axes)
    legend_below(figure, round_axes)
    for index, arm in enumerate(reversed(result.arms)):
        low, high = arm.accuracy.value - arm.accuracy.low, arm.accuracy.high - arm.accuracy.value
        colour = {"debate": COLOURS[0], "length": COLOURS[1]}.get(arm.arm, "0.45")  # as in the rounds above
        arm_axes.errorbar(arm.accuracy.value, index, xerr=[[low], [high]], color=colour, marker="o", capsize=3)
    names = [NAMES[arm.arm].format(best=result.best) for arm in reversed(result.arms)]
    arm_axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    arm_axes.set(xlabel="accuracy", title="By arm", ylim=(-0.5, len(names) - 0.5))
    return svg(figure)


def _draw_bars(axes: "Axes", shares: Mapping[int, BoundedShare], label: str, index: int) -> None:
    """Shares by round, beside those of the other places."""
    x, y = [number + 0.03 * index for number in shares], [share.value for share in shares.values()]
    ends = [[s.value - s.low for s in shares.values()], [s.high - s.value for s in shares.values()]]
    style = "--" if index else "-"
    axes.errorbar(x, y, yerr=ends, label=label, color=COLOURS[index], marker=MARKERS[index], ls=style, capsize=3)


def reliability(result: DebateResult) -> str:
    """A panel for each kind of confidence, in the last round that has any; markers grow with their answers."""
    kinds = list({calibration.kind: calibration for calibration in result.calibration}.values())
    figure, panels = new_panels(len(kinds), 4.0 * len(kinds))
    for axes, calibration in zip(panels, kinds, strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", lw=1, linestyle=":")
        for index, (label, scores) in enumerate((("raw", calibration.before), ("calibrated", calibration.after))):
            if scores is not None:
                _draw_reliability(axes, scores, f"{label}, ECE {scores.ece:.3f}", index)
        axes.set_title(f"confidence: {calibration.kind}, round {calibration.round}", fontsize=SMALL)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=SMALL, loc="upper left")
    return svg(figure)


def _draw_reliability(axes: "Axes", scores: CalibrationScores, label: str, index: int) -> None:
    x, y = [bucket.confidence for bucket in scores.bins], [bucket.accuracy for bucket in scores.bins]
    sizes = [20 + 180 * bucket.count / scores.answers for bucket in scores.bins]
    axes.plot(x, y, color=COLOURS[index], lw=1, alpha=0.6)
    axes.scatter(x, y, s=sizes, color=COLOURS[index], marker=MARKERS[index], label=label, alpha=0.8)
