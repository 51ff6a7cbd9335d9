"""What was said in a debate: the turns, as they stand in `transcript.jsonl` and in the events of a run. Plain data."""

from typing import Literal

from pydantic import Field

from agentlab.debate.config import Confidence
from agentlab.runs.document import Plain

# debate: peers are heard. length: own earlier answers in their place. samples: the best agent alone, again and again.
Arm = Literal["debate", "length", "samples"]


class Turn(Plain):
    """One agent's answer to one question in one round.

    Attributes:
        question: its id.
        round: 0 is everybody's own answer, which arm `length` shares with the debate and does not repeat.
        sample: which one, counted from 0, in arm `samples`; 0 elsewhere.
        text: as the agent said it.
        answer: what it commits to, in the form that equal answers share; None: nothing could be read.
        confidences: each kind that is known, raw, in [0, 1].
        input_tokens, output_tokens: the whole prompt, whether or not some of it was remembered, and the answer.
        error: why there is no text; the turn counts as one that cannot be read.
    """

    question: str
    arm: Arm
    round: int = Field(ge=0)
    agent: str
    sample: int = Field(0, ge=0)
    text: str
    answer: str | None
    confidences: dict[Confidence, float] = Field(default_factory=dict)
    input_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)
    error: str = ""

    @property
    def tokens(self) -> int:
        """What it cost: prompt and answer."""
        return self.input_tokens + self.output_tokens


class Ballot(Plain):
    """The judge's verdict on a round: the answer it finds best, in the form of `Turn.answer`; None: none was usable."""

    question: str
    round: int
    answer: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""

    @property
    def tokens(self) -> int:
        """What it cost: prompts and answers."""
        return self.input_tokens + self.output_tokens


class Held(Plain):
    """A wave that is finished: all that was said in it, and how long each arm took."""

    questions: list[str]
    turns: list[Turn]
    ballots: list[Ballot]
    seconds: dict[Arm, float]
