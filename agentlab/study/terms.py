"""What a capability calls the things that the engine knows by their role."""

from dataclasses import dataclass

from agentlab.search.prompts import Briefing


@dataclass(frozen=True, slots=True)
class StudyTerms:
    """One table for each capability. Keys end up in events and files, so they never change; the others are for readers.

    `goal` and `shown` (metrics of a trial) are told to language models.
    """

    command: str  # before the names under which language models are asked: `nas`
    value: str  # key of a trial's value: `val_mse`
    score: str  # key of the winner's figure on data that nobody saw before: `mse`
    metric: str  # the value in a table: `validation MSE`
    error: str  # the value in a sentence: `validation error`
    unit: str
    measurement: str  # what gives one value: `training`
    again: str  # what happens to a near tie: `trained again`
    goal: str
    shown: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()  # keys of all figures of the winner, `score` among them

    @property
    def propose(self) -> str:
        return f"{self.command}.propose"

    @property
    def evaluate(self) -> str:
        return f"{self.command}.evaluate"

    @property
    def briefing(self) -> Briefing:
        return Briefing(self.goal, self.error, self.shown)
