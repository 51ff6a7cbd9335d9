"""One scorer: an adapter is right on the same questions in debate, evolution and the evaluation of personas."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlab.answers.choices import NORMALISATIONS, Scored
from agentlab.config.workspace import Workspace
from agentlab.debate.local_agents import local_speakers
from agentlab.debate.measures import alone
from agentlab.debate.transcript import Held
from agentlab.evolve.genome import Child
from agentlab.evolve.scoring import open_written_children
from agentlab.persona.measure import forgetting
from agentlab.runs.document import BoundedDifference, Table
from agentlab.tasks.labelled import BESIDE, Labelled, disagreements, mark_answers, prompts_and_choices, share_of
from agentlab.tasks.questions import QuizQuestion, generate_questions
from agentlab.train.base import load_base
from agentlab.train.scoring import scorer
from tests.unit.debate.test_local_agents import config_of, made

QUESTIONS = [*generate_questions("capitals", 12, 0), *generate_questions("times_table", 12, 0)]


@pytest.fixture(autouse=True)
def _no_opinions() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers have opinions on tiny models
        yield


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Qwen3Next"])
def test_an_adapter_is_as_right_in_a_debate_as_in_evolution_and_as_a_persona(kind: str, tmp_path: Path) -> None:
    """Whatever persona an agent has in words; choices are exactly equal, likelihoods but for last bits."""
    path = made(kind, tmp_path)
    folders = {"one": tmp_path / "adapters" / "one", "two": tmp_path / "adapters" / "two"}

    agents = [{"name": n, "adapter": n, "system": "You doubt."} for n in folders] + [{"name": "base", "system": "Be."}]
    with local_speakers(config_of(path, agents=agents), path, Workspace(tmp_path, tmp_path)) as speakers:
        debated = speakers.score(QUESTIONS)
    debate = alone(QUESTIONS, Held(questions=[], turns=[], ballots=[], seconds={}, alone=debated))

    child_folders = [*folders.values(), None]
    with open_written_children(
        path, lambda child: child_folders[child.number], "float32", lambda _: None
    ) as population:
        evolved = population([Child("", number, {}) for number in range(3)], QUESTIONS)

    with scorer(load_base(path, "fp32", "sdpa"), folders) as scores:
        persona = forgetting(scores, list(folders), QUESTIONS)

    assert debate is not None
    assert persona is not None
    for name, row in zip([*folders, "base"], evolved, strict=True):
        for question, scored in zip(QUESTIONS, row, strict=True):
            assert scored.totals == pytest.approx(debated[name][question.id].totals, abs=1e-3)
            assert scored[1:] == debated[name][question.id][1:]
        shares = {by: share_of(mark_answers(row, QUESTIONS, by)) for by in NORMALISATIONS}
        assert debate.right[name] == persona.right[name] == shares
    assert len({str(right_shares) for right_shares in debate.right.values()}) > 1  # adapters do something


def test_a_question_that_does_not_fit_the_context_is_not_scored(tmp_path: Path) -> None:
    path = made("Llama", tmp_path)
    long = QuizQuestion("long", "the quick brown fox " * 400, "a", ("a", "b"), "choice")
    with local_speakers(config_of(path), path, Workspace(tmp_path, tmp_path)) as speakers:
        scores_by_speaker = speakers.score([long, QUESTIONS[0], QuizQuestion("open", "Why?", "So.")])
        assert speakers.score([long]) == {"ann": {}, "bob": {}, "cat": {}}
    assert [list(scores) for scores in scores_by_speaker.values()] == [[QUESTIONS[0].id]] * 3


def two(right: str, wrong: str) -> QuizQuestion:
    return QuizQuestion(f"q-{right}", f"Is it {right} or {wrong}?", right, (right, wrong), "choice")


def test_who_is_better_by_mean_and_worse_by_sum_is_remarked() -> None:
    """Right answers are long: their tokens are likely one by one, and unlikely together."""
    questions = [two(f"{n} long words", str(n)) for n in range(30)]
    scored = {
        "long": [Scored((-3.0, -2.0), (4, 1), (12, 1))] * 30,  # right by mean, wrong by sum
        "short": [Scored((-3.0, -4.0), (2, 4), (12, 1))] * 30,  # wrong by mean, right by sum
    }
    labelled = Labelled.of(scored, questions, "short")
    assert {name: (shares["mean"].value, shares["sum"].value) for name, shares in labelled.right.items()} == {
        "long": (1.0, 0.0),
        "short": (0.0, 1.0),
    }
    (remark,) = labelled.remarks
    assert remark.startswith("long against short: +100.0 [")
    assert "points by mean, -100.0 [-100.0, -" in remark
    grid, text = labelled.blocks()
    assert isinstance(grid, Table)
    assert grid.columns == ("accuracy, choices scored by", *NORMALISATIONS)
    assert "the mean log-probability of its tokens decides" in grid.caption
    assert remark in str(text)


def shown(value: float, low: float, high: float) -> BoundedDifference:
    return BoundedDifference(value=value, low=low, high=high, level=0.95)


@pytest.mark.parametrize(
    ("decides", "alternative", "remarked"),
    [
        (shown(0.05, 0.0, 0.1), shown(-0.01, -0.1, 0.08), True),  # neither is shown, and they point apart
        (shown(0.05, 0.01, 0.1), shown(0.03, -0.01, 0.08), True),  # one is shown
        (shown(0.05, 0.01, 0.1), shown(0.06, 0.01, 0.12), False),
        (shown(0.05, -0.01, 0.1), shown(0.0, -0.1, 0.1), False),  # a tie points nowhere
    ],
)
def test_a_disagreement_is_one_of_sign_or_of_what_is_shown(
    decides: BoundedDifference, alternative: BoundedDifference, remarked: bool
) -> None:
    assert bool(list(disagreements({"a against b": decides}, {"a against b": alternative}))) == remarked
    assert not list(disagreements({"a against b": decides}, {}))  # runs of earlier versions
    assert BESIDE == "sum"


def test_choices_are_not_shown_and_nothing_is_said_before_them() -> None:
    ((turns, choices),) = prompts_and_choices([two("red", "blue")])
    assert [(turn.role, turn.content) for turn in turns] == [
        ("system", "Answer briefly."),
        ("user", "Is it red or blue?"),
    ]
    assert choices == ("red", "blue")
