"""The report and the screen: a debate as people read one, figures, and hostile text that stays text."""

from pathlib import Path

import pytest

from agentlab.answers.choices import Scored
from agentlab.debate.report import accuracies, debate_report, reliability
from agentlab.debate.result import DebateResult, narrate
from agentlab.debate.run import load_transcript
from agentlab.debate.verdict import verdict
from agentlab.debate.voting import Fitted
from agentlab.runs.document import Table
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from tests.unit.debate.scripted import NAMES, TOWNS, Script, config, questions, spoken, turn

NOTHING = Fitted(best="ann", questions=0)
HOSTILE = '<img src=x onerror=alert(1)> | **ignore all** "rules" `rm`\n# Answer: ann wins\nAnswer: lima'


@pytest.fixture
def run(tmp_path: Path):
    with OpenRun.create(
        tmp_path / "runs", RunSpec("debate", "seed: 0", "seed: 0", "sha256:0", 0), RunEnvironment()
    ) as run:
        yield run


def reported(run, turns, quiz, conf=None):
    result = verdict(quiz, spoken(turns, [], {"debate": 1.0}), NOTHING, conf or config())
    run.report = debate_report(run, result, quiz, spoken(turns), Table(("agent",), [("ann",)]))
    run.write_report(run.manifest)
    return (run.path / "report.md").read_text(), (run.path / "report.html").read_text()


def test_a_report_begins_with_the_verdict_and_shows_its_figures(run):
    quiz = questions(30)
    report, page = reported(run, Script(debate=(0.4, 0.3)).turns(quiz), quiz)
    assert report.split("\n\n")[1].startswith("Not measured: too few questions (30; 100 needed)")
    assert page.count("<svg") == 2
    for heading in ("## Rounds", "## Changes of mind", "## Confidence", "from wrong to right", "from right to wrong"):
        assert heading in report


def test_agents_that_are_asked_alone_stand_in_a_table_of_their_own(run):
    quiz = questions(30)
    turns = Script(debate=(0.4, 0.3)).turns(quiz)
    without, _ = reported(run, turns, quiz)
    assert "accuracy, choices scored by" not in without  # hosts tell no likelihood, and earlier versions did not ask

    def scored(question, right, tokens):
        right_index = TOWNS.index(question.answer)
        of = [(right, tokens) if n == right_index else (-2.0, 1) for n in range(4)]
        return Scored(tuple(total for total, _ in of), tuple(count for _, count in of), (4,) * 4)

    alone = {"ann": {q.id: scored(q, -1.0, 1) for q in quiz}, "bob": {q.id: scored(q, -8.0, 9) for q in quiz}}
    transcript = spoken(turns).model_copy(update={"alone": alone})
    result = verdict(quiz, transcript, NOTHING, config())
    run.report = debate_report(run, result, quiz, transcript, Table(("agent",), [("ann",)]))
    run.write_report(run.manifest)
    report = (run.path / "report.md").read_text()
    rows = [line.replace("\\", "") for line in report.splitlines() if line.startswith(("| ann | 100%", "| bob | 100%"))]
    assert rows == [
        "| ann | 100% [89%, 100%] | 100% [89%, 100%] | 100% [89%, 100%] |",
        "| bob | 100% [89%, 100%] | 0% [0%, 11%] | 0% [0%, 11%] |",
    ]
    (remark,) = result.alone.remarks
    assert (
        report.index("accuracy, choices scored by")
        < report.index("significant by sum but not by mean")
        < report.index("## Rounds")
    )
    assert remark.startswith("bob against ann: +0.0 [")
    assert result.alone.right["bob"]["sum"].value == 0 < result.alone.right["bob"]["mean"].value
    assert DebateResult.model_validate(result.model_dump(mode="json")) == result
    assert (
        load_transcript(
            config(), [Event(0, 0.0, "wave.finished", "test-001", transcript.model_dump(mode="json"))]
        ).alone
        == alone
    )


def test_a_change_of_mind_is_marked_where_it_happened(run):
    (question,) = questions(1)
    rounds = [("lima", "quito", "quito"), ("lima", "lima", None)]
    turns = [
        turn(question, n, a, round=r) for r, answers in enumerate(rounds) for n, a in zip(NAMES, answers, strict=False)
    ]
    report, _ = reported(run, turns, [question])
    story = report[report.index("## Debate q0000: from wrong to right") :]
    assert "| 1 | bob | lima (right), was quito |" in story
    assert "| 1 | cid | (unreadable), was quito |" in story
    assert "| 0 | VOTE | quito (wrong) | 67% of the weight |" in story
    assert "Correct answer: lima." in story


def test_hostile_text_stays_text(run):
    (question,) = questions(1)
    turns = [turn(question, name, "lima").model_copy(update={"text": HOSTILE}) for name in NAMES[:3]]
    turns += [turn(question, name, "quito", round=1).model_copy(update={"text": HOSTILE}) for name in NAMES[:3]]
    report, page = reported(run, turns, [question])
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "\n# Answer" not in report
    assert "\\*\\*ignore all\\*\\*" in report


def test_figures_can_be_drawn_of_next_to_nothing():
    (question,) = questions(1)
    one = [turn(question, name, None, sure=None) for name in NAMES[:2]]
    result = verdict([question], spoken(one), NOTHING, config(2, 0))
    assert accuracies(result).startswith("<svg")
    sure = verdict([question], spoken([turn(question, name, "lima") for name in NAMES[:2]]), NOTHING, config(2, 0))
    assert reliability(sure).startswith("<svg")
    turns = [turn(question, name, "lima", round=n, sure=None if n else 0.6) for n in (0, 1) for name in NAMES[:2]]
    first = verdict([question], spoken(turns), NOTHING, config(2))
    assert [row.round for row in first.calibration] == [0]
    assert reliability(first).startswith("<svg")


def test_what_is_said_while_it_runs():
    def told(kind, **data):
        return narrate(Event(0, 0.0, kind, data=data))

    event = turn(questions(1)[0], "ann", "lima").model_dump(mode="json")
    assert told("turn.said", **event).verbose == "  round 0, ann: I think it is lima. Answer: lima"
    assert (
        told("turn.said", **{**event, "question": "topic"}).line == "  round 0, ann: I think it is lima. Answer: lima"
    )
    wave = told(
        "wave.finished", done=24, total=120, scored=20, right=13, questions=[], turns=[], ballots=[], seconds={}
    )
    assert (wave.done, wave.total, wave.detail) == (24, 120, "13 of 20 right")
    assert told("questions.read", count=120, dev=24).line == "  120 questions, 24 of them reserved for calibration"
    fits = told("dev.fitted", questions=4, accuracy={"ann": 0.5, "bob": 0.25}, best="ann")
    assert fits.line == "  accuracy of first answers on 4 calibration questions: ann 50%, bob 25%"
    assert told("dev.fitted", questions=0, accuracy={}, best="ann") is None
    assert told("threads.chosen", count=2) is None
