"""Configuration of `agentlab debate`: the agents, the questions, the rules and the baseline."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agentlab.answers.compare import normal
from agentlab.config.base import EnvPath, StrictModel, machine_field, preset_field
from agentlab.config.keys import Key
from agentlab.debate.rules import JUDGE, RuleName, is_by_confidence
from agentlab.llm.config import LLMConfig
from agentlab.runs.comparability import Basis
from agentlab.train.config import Figures

Topology = Literal["none", "ring", "star", "random", "full"]
Confidence = Literal["said", "logprob", "p_true"]
Control = Literal["samples", "vote", "single", "length"]

# Any, as adapters may be called anything, but what would end a tag or a line, or part what stands in an id.
AgentName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s/<>]([^/<>\x00-\x1f\x7f]*[^\s/<>])?$")]


class AgentConfig(StrictModel):
    """One debating agent: the base model alone or with an adapter, in this process, or a model of `llm`."""

    name: AgentName = Field(description="Name of the agent in transcripts and tables.")
    system: str | None = Field(
        None,
        max_length=20_000,
        description="System message with the persona; null means the one that the adapter was trained with.",
    )
    adapter: EnvPath | None = Field(None, description="A LoRA adapter of `base`: a name in `adapters/`, or a path.")
    model: str | None = Field(None, description="A model from `llm` that answers in place of `base`.")


class QuestionsConfig(StrictModel):
    """Labelled questions for a debate without a topic: a file or a generated set."""

    file: EnvPath | None = Field(
        None, description="JSONL file; each line has a question, an answer and optional choices."
    )
    generate: str = Field("capitals", description="Question set to generate when no file is given.")
    count: int = Field(120, ge=1, le=100_000, description="Number of questions, from the start of the file or set.")
    dev: float = Field(
        0.2, ge=0, lt=1, description="Share reserved for ranking agents and for calibration; never scored."
    )


class ProtocolConfig(StrictModel):
    """Who hears whom, and when a question is settled."""

    rounds: int = Field(
        1, ge=0, le=16, description="Debate rounds after the first answers; with 0, only check and plan."
    )
    topology: Topology = Field(
        "ring",
        description="ring: hear the next agent; star: all hear the first, which hears all; random: hear `peers` peers.",
    )
    peers: int = Field(2, ge=1, le=63, description="Number of peers each agent hears in the random topology.")
    anonymous: bool = Field(True, description="Show peers without their names.")
    agreement: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Percentage of cases in which agents are told to agree with peers; null gives no such instruction.",
    )
    keep: bool = Field(True, description="Tell agents to keep their answer unless a peer refutes it.")
    stop: bool = Field(True, description="Stop debating a question once all agents agree.")
    gate: Literal["none", "split"] = Field(
        "none", description="split: debate only questions on which the first answers differ."
    )
    judge: AgentName | None = Field(None, description="The agent that judges when vote.rule is judge.")


class TurnConfig(StrictModel):
    """How an agent answers."""

    form: Literal["auto", "text", "json"] = Field(
        "auto", description="text: ends with an `Answer:` line; json: enforced by a schema; auto: json where supported."
    )
    max_tokens: int = Field(48, ge=1, le=8192, description="Maximum tokens per turn.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature; 0 means greedy decoding.")
    confidence: Confidence = Field(
        "logprob",
        description="said: as the agent states it; logprob: probability of the answer; p_true: probability that the "
        "agent judges it true.",
    )


class VoteConfig(StrictModel):
    """The comparison that the verdict reports, fixed before the run. Everything else is exploratory."""

    rule: RuleName = Field("majority", description="How the answers of a round are combined.")
    round: int | None = Field(None, ge=0, description="Round after which to vote; null means the last.")
    against: Control = Field(
        "samples",
        description="Baseline. samples: the best agent alone, sampled until it reaches the debate's token count; "
        "vote: the vote on first answers; single: the best agent's first answer; length: own earlier answers "
        "instead of peers'.",
    )
    samples: int = Field(24, ge=1, le=256, description="Maximum samples per question.")
    temperature: float = Field(0.7, gt=0, le=2, description="Temperature of these samples.")


class DebateConfig(StrictModel):
    """One `agentlab debate` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for samples, order of choices and random peers.")
    topic: str | None = Field(None, max_length=20_000, description="Topic to debate; null debates `questions`.")
    positions: tuple[str, ...] = Field(
        ("yes", "no"), max_length=32, description="Answers to choose from on a topic; if empty, agents answer freely."
    )
    questions: QuestionsConfig = Field(QuestionsConfig(), description="Questions to debate when there is no topic.")
    agents: tuple[AgentConfig, ...] = Field((), max_length=64, description="The agents that debate.")
    base: EnvPath = Field("smollm2-135m", description="Model for agents that name none: a name or a checkpoint folder.")
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Models for agents that name one.")
    protocol: ProtocolConfig = Field(ProtocolConfig(), description="Who hears whom.")
    turn: TurnConfig = Field(TurnConfig(), description="How an agent answers.")
    vote: VoteConfig = Field(VoteConfig(), description="The comparison that the verdict reports.")
    dtype: Figures = Field("float32", description="Data type for the base model; bfloat16 changes some answers.")
    rows: int = Field(24, ge=1, le=1024, description="Turns per batch: agents times questions per wave.")
    threads: int | None = machine_field(
        None, ge=1, le=1024, description="CPU threads for the base model; null means one per core."
    )

    def problems(self) -> Iterator[tuple[Key, str]]:
        yield from self._agent_problems()
        yield from self._topic_problems()
        if self.vote.round is not None and self.vote.round > self.protocol.rounds:
            yield ("vote", "round"), f"must not exceed protocol.rounds, which is {self.protocol.rounds}"
        if self.vote.against == "vote" and self.vote.round == 0 and self.vote.rule != JUDGE:
            yield (
                ("vote", "round"),
                "would be compared with itself, as vote.against is vote and the round is 0; choose a later round",
            )
        if self.vote.rule == JUDGE and self.protocol.judge is None:
            yield ("vote", "rule"), "rule judge needs protocol.judge, the name of an agent"
        if self.turn.form == "json" and all(agent.model is None for agent in self.agents):
            yield ("turn", "form"), "json needs an agent with a model from `llm`; agents of `base` answer in text"
        hosted = bool(self.agents) and all(agent.model is not None for agent in self.agents)
        if hosted and self.turn.confidence != "said" and is_by_confidence(self.vote.rule):
            yield ("vote", "rule"), "models from `llm` only state their confidence: set turn.confidence to said"

    def _agent_problems(self) -> Iterator[tuple[Key, str]]:
        names = [agent.name for agent in self.agents]
        if len(names) < 2:
            yield ("agents",), "a debate needs at least two agents"
        for index, agent in enumerate(self.agents):
            key = ("agents", str(index))
            if names[index] in names[:index]:
                yield (*key, "name"), f"two agents are called {agent.name}"
            if agent.adapter is not None and agent.model is not None:
                yield key, "an adapter belongs to `base`: give the agent an adapter or a model, not both"
            if agent.model is not None and agent.model not in self.llm.models:
                model_names = ", ".join(self.llm.models) or "none"
                yield (*key, "model"), f"`llm` has no model {agent.model!r} (known: {model_names})"
        if self.protocol.judge is not None and self.protocol.judge not in names:
            yield ("protocol", "judge"), f"no agent is called {self.protocol.judge!r} (known: {', '.join(names)})"
        if self.protocol.topology == "none" and self.protocol.agreement is not None:
            yield (
                ("protocol", "agreement"),
                "agents hear no peers with topology none, so there are no peers to agree with",
            )
        if self.protocol.topology == "none" and self.vote.against == "length":
            yield ("vote", "against"), "with topology none, agents hear no peers, so length would repeat the debate"
        if self.protocol.topology == "random" and self.protocol.peers >= max(len(names), 2):
            yield ("protocol", "peers"), f"{len(names)} agents have only {len(names) - 1} peers each"

    def _topic_problems(self) -> Iterator[tuple[Key, str]]:
        different = {normal(position) for position in self.positions} - {""}
        if len(different) < len(self.positions) or len(different) == 1:
            yield ("positions",), "give at least two different positions, or none"
        if self.topic is not None and not self.topic.strip():
            yield ("topic",), "must not be empty: set a topic to debate"
        if self.questions.file is not None and self.questions.generate != QuestionsConfig().generate:
            yield ("questions", "generate"), "set questions.file or questions.generate, not both"
        if self.topic is None and self.positions != DebateConfig.model_fields["positions"].default:
            yield ("positions",), "positions are for a topic; questions have their own choices"
        if self.topic is not None and self.questions.file is not None:
            yield ("topic",), "set topic or questions.file, not both"


MEASURED = Basis(
    data_keys=("questions.file",),
    keys=("topic", "questions.generate", "questions.count", "questions.dev", "seed"),
    event=("questions.read", "sha256"),
)
