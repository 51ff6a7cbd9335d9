"""The report of `agentlab debate`: figures, and some debates as people read one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agentlab.debate.protocol import by_round
from agentlab.debate.result import NAMES, DebateResult, Outcome, Scores, Telling
from agentlab.debate.transcript import Turn
from agentlab.runs.document import Block, Figure, Heading, Share, Table, Text, known
from agentlab.runs.figures import COLOURS, MARKERS, new_panels, png, whole_numbers
from agentlab.runs.report import write_report
from agentlab.runs.run import Run
from agentlab.tasks.questions import Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCURACY, _RELIABILITY = "plots/accuracy.png", "plots/reliability.png"
_LONGEST = 600  # characters of a turn; the transcript has all of it


def write_debate_report(run: Run, result: DebateResult, questions: Sequence[Question], turns: Sequence[Turn]) -> None:
    """Draw the figures and write report.md and report.html; the verdict comes first."""
    blocks = result.blocks()
    if result.arms:
        run.write_bytes(_ACCURACY, accuracies(result))
        blocks.append(Figure(_ACCURACY, "Share of questions that were right, by round and by arm, with 95 % intervals"))
    blocks += result.details()
    if result.calibration:
        run.write_bytes(_RELIABILITY, reliability(result))
        blocks.append(Figure(_RELIABILITY, "How often answers of a confidence are right, as given and as fitted"))
    known_ = {question.id: question for question in questions}
    for told in result.telling:
        blocks += _story(told, known_[told.question], [turn for turn in turns if turn.question == told.question])
    write_report(run, f"Debate {run.id}", blocks)


# -- a debate as people read one ------------------------------------------------------------------------------------


def _story(told: Telling, question: Question, turns: Sequence[Turn]) -> Iterator[Block]:
    """Who said what in which round, with changes of mind and votes marked."""
    yield Heading(f"Debate {question.id}: {told.why}" if question.answer is not None else "The debate")
    yield Text(question.prompt())
    rows: list[Sequence[str]] = []
    before: dict[str, str | None] = {}
    agents = {turn.agent: place for place, turn in enumerate(turns) if turn.arm == "debate"}
    for number, said in enumerate(by_round(turns, "debate", agents).get(question.id, ())[: len(told.votes)]):
        for turn in said:
            changed = f", was {known(before[turn.agent])}" if before.get(turn.agent, turn.answer) != turn.answer else ""
            rows.append((str(number), turn.agent, _marked(question, turn.answer) + changed, _cut(turn)))
            before[turn.agent] = turn.answer
        vote = told.votes[number]
        rows.append((str(number), "VOTE", _marked(question, vote.answer), _weight(vote)))
    right = f"Right is {question.answer}. " if question.answer is not None else ""
    yield Table(("round", "who", "answer", "said"), rows, f"{right}Changes of mind are marked by what was held before")


def _marked(question: Question, answer: str | None) -> str:
    if answer is None:
        return "(cannot be read)"
    return answer if question.answer is None else f"{answer} ({'right' if question.right(answer) else 'wrong'})"


def _weight(vote: Outcome) -> str:
    return f"{vote.share:.0%} of the weight{', a tie that the order of the agents decided' if vote.tied else ''}"


def _cut(turn: Turn) -> str:
    text = turn.text or turn.error
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [{len(text) - _LONGEST} characters more]"


# -- figures --------------------------------------------------------------------------------------------------------


def accuracies(result: DebateResult) -> bytes:
    """Left the rounds: each agent, anybody, the vote. Right the arms. PNG."""
    figure, (left, right) = new_panels(1, 2, 10.0, 4.2)
    votes = {each.round: each.accuracy for each in result.rules if each.rule == result.rule}
    for name in result.rounds[0].agents:
        left.plot([e.round for e in result.rounds], [e.agents[name].value for e in result.rounds], color="0.75", lw=1)
    left.plot([], [], color="0.75", label="each agent")
    shown = {
        f"debate, vote by {result.rule}": votes,
        "rereading in its place": dict(enumerate(result.rereading)),
        "anybody was right": {each.round: each.oracle for each in result.rounds},
    }
    for place, (label, shares) in enumerate(shown.items()):
        if shares:
            _bars(left, shares, label, place)
    left.set_xlabel("round")
    left.set_ylabel("share of questions right")
    whole_numbers(left)
    left.legend(frameon=False, fontsize=8)
    for place, arm in enumerate(reversed(result.arms)):
        low, high = arm.accuracy.value - arm.accuracy.low, arm.accuracy.high - arm.accuracy.value
        colour = COLOURS[0] if arm.arm == "debate" else COLOURS[1] if arm.arm == result.against else "0.45"
        right.errorbar(arm.accuracy.value, place, xerr=[[low], [high]], color=colour, marker="o", capsize=3)
    names = [NAMES[arm.arm].format(best=result.best) for arm in reversed(result.arms)]
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set_ylim(-0.5, len(names) - 0.5)
    right.set_xlabel("share of questions right")
    return png(figure)


def _bars(axes: "Axes", shares: Mapping[int, Share], label: str, place: int) -> None:
    """Shares by round, beside those of the other places."""
    ends = [[s.value - s.low for s in shares.values()], [s.high - s.value for s in shares.values()]]
    axes.errorbar(
        [number + 0.03 * place for number in shares],
        [share.value for share in shares.values()],
        yerr=ends,
        label=label,
        color=COLOURS[place],
        marker=MARKERS[place],
        linestyle="--" if place else "-",
        capsize=3,
    )


def reliability(result: DebateResult) -> bytes:
    """A panel for each kind of confidence, in the round that is voted on; markers grow with their answers; PNG."""
    kinds = [each for each in result.calibration if each.round == result.round]
    figure, panels = new_panels(1, len(kinds), 4.2 * len(kinds), 4.2)
    for axes, each in zip(panels, kinds, strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", lw=1, linestyle=":")
        for place, (label, scores) in enumerate((("as given", each.before), ("fitted", each.after))):
            if scores is not None:
                _reliable(axes, scores, f"{label}, ECE {scores.ece:.3f}", place)
        axes.set_title(f"confidence: {each.kind}, round {each.round}", fontsize=9)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of answers right")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return png(figure)


def _reliable(axes: "Axes", scores: Scores, label: str, place: int) -> None:
    x, y = [each.confidence for each in scores.bins], [each.accuracy for each in scores.bins]
    sizes = [20 + 180 * each.count / scores.answers for each in scores.bins]
    axes.plot(x, y, color=COLOURS[place], lw=1, alpha=0.6)
    axes.scatter(x, y, s=sizes, color=COLOURS[place], marker=MARKERS[place], label=label, alpha=0.8)
