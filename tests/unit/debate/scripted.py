"""Debates of scripted agents: how often each is right, how alike they err, and what hearing peers does is planted."""

from dataclasses import dataclass, field

import numpy as np

from agentlab.debate.config import AgentConfig, DebateConfig, ProtocolConfig, QuestionsConfig, TurnConfig, VoteConfig
from agentlab.debate.transcript import Held, Turn
from agentlab.tasks.questions import QuizQuestion

NAMES = ("ann", "bob", "cid", "dan", "eve")
TOWNS = ("lima", "quito", "oslo", "rome")


def config(agents=3, rounds=1, vote=None, **protocol) -> DebateConfig:
    """Full topology, so that everybody hears everybody."""
    return DebateConfig(
        agents=tuple(AgentConfig(name=name) for name in NAMES[:agents]),
        questions=QuestionsConfig(generate="capitals"),
        protocol=ProtocolConfig(**{"rounds": rounds, "topology": "full", "stop": False, **protocol}),
        turn=TurnConfig(confidence="logprob"),
        vote=VoteConfig(**(vote or {})),
    )


def questions(count: int, start: int = 0) -> list[QuizQuestion]:
    """Which town? Another one is right each time."""
    return [
        QuizQuestion(f"q{number:04d}", f"Which town is number {number}?", TOWNS[number % 4], TOWNS, "choice")
        for number in range(start, start + count)
    ]


def turn(question, agent, answer, *, arm="debate", round=0, sample=0, sure=0.6, tokens=10):  # noqa: A002 - the field's word
    """An agent's turn: of so many tokens, one of them the answer's."""
    return Turn(
        question=question.id,
        arm=arm,
        round=round,
        agent=agent,
        sample=sample,
        text=f"I think it is {answer}.\nAnswer: {answer}",
        answer=answer,
        confidences={} if sure is None else {"logprob": sure},
        input_tokens=tokens - 1,
        output_tokens=1,
    )


@dataclass
class Script:
    """Planted: `right` of each agent on its own; `common` is how often all of them share one draw; `debate` and
    `length` are how often an answer becomes right, and wrong, in every round of these arms; `samples` how often a
    sample of the first agent is right."""

    right: tuple[float, ...] = (0.6, 0.6, 0.6)
    common: float = 0.0
    debate: tuple[float, float] = (0.0, 0.0)
    length: tuple[float, float] = (0.0, 0.0)
    samples: float = 0.6
    rounds: int = 1
    drawn: int = 8
    sure: float = 0.6
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def turns(self, questions: list[QuizQuestion]) -> list[Turn]:
        """What they say about all questions."""
        return [turn for question in questions for turn in self._about(question)]

    def _about(self, question):
        shared, rng = self.rng.random() if self.rng.random() < self.common else None, self.rng
        first = [bool((rng.random() if shared is None else shared) < p) for p in self.right]
        for arm, (better, worse) in (("debate", self.debate), ("length", self.length)):
            correct = first
            for number in range(self.rounds + 1):
                if number:
                    correct = [rng.random() >= worse if was else rng.random() < better for was in correct]
                if number or arm == "debate":
                    for name, was in zip(NAMES, correct, strict=False):
                        yield turn(question, name, self._town(question, was), arm=arm, round=number, sure=self.sure)
        for sample in range(self.drawn):
            was = rng.random() < self.samples
            yield turn(question, NAMES[0], self._town(question, was), arm="samples", sample=sample, sure=self.sure)

    def _town(self, question, right):
        """The right one, or always the same wrong one."""
        return question.answer if right else TOWNS[(TOWNS.index(question.answer) + 1) % 4]


def spoken(turns, ballots=(), seconds=None) -> Held:
    """All of a run."""
    question_ids = dict.fromkeys(turn.question for turn in turns)
    return Held(questions=list(question_ids), turns=list(turns), ballots=list(ballots), seconds=seconds or {})
