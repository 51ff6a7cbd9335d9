"""What was said in a debate: the turns, as they stand in `transcript.jsonl` and in the events of a run. Plain data."""

from typing import Literal

from pydantic import Field

from agentlab.answers.choices import Scored
from agentlab.debate.config import Confidence
from agentlab.runs.document import Plain

# debate: peers are heard. length: own earlier answers in their place. samples: the best agent alone, again and again.
# judge: answers of the debate are compared.
Arm = Literal["debate", "length", "samples", "judge"]


class Turn(Plain):
    """One agent's answer to one question, by its id, in one round.

    Attributes:
        round: 0 is everybody's own answer, which arm `length` shares with the debate and does not repeat.
        sample: counted from 0 in arm `samples`; 0 elsewhere.
        answer: what the text commits to, in the form that equal answers share; None: nothing could be read.
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
        return self.input_tokens + self.output_tokens


class Ballot(Turn):
    """The judge's verdict on a round: `answer` is the one that it finds best, of those that were given; None: of none.

    `text`: what it said, a line or more for each comparison; empty where nothing had to be compared. `asked`, `unread`:
    comparisons, and how many of them named no answer; of these `error` names the first failure.
    """

    arm: Literal["judge"] = "judge"
    agent: str = ""
    text: str = ""
    asked: int = 0
    unread: int = 0


class Held(Plain):
    """All that was said in a finished wave, or in all of them, and how many seconds each arm took.

    Turns that were asked again: `shortened` ones did not fit their context, and got less of what was said before;
    `worded` ones did not follow a schema, and were said in words. `alone`: how the choices of each question stand under
    each agent that is asked for nothing else; not in runs of earlier versions.
    """

    questions: list[str]
    turns: list[Turn]
    ballots: list[Ballot]
    seconds: dict[Arm, float]
    shortened: int = 0
    worded: int = 0
    alone: dict[str, dict[str, Scored]] = Field(default_factory=dict)
