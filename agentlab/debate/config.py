"""What `agentlab debate` can be told: who debates about what, by which rules, and what is held against the debate."""

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
    """One who debates: the base alone or under an adapter, in this process, or a model of `llm`."""

    name: AgentName = Field(description="Of the agent, in transcripts and tables.")
    system: str | None = Field(
        None, max_length=20_000, description="System message, a persona in words; null is what the adapter learnt with."
    )
    adapter: EnvPath | None = Field(None, description="A LoRA adapter of `base`, in `adapters/` or by its path.")
    model: str | None = Field(None, description="A model of `llm` that answers instead of `base`.")


class QuestionsConfig(StrictModel):
    """Labelled questions, where there is no topic: a file, or else a set that is generated."""

    file: EnvPath | None = Field(None, description="JSONL with question, answer and perhaps choices in each line.")
    generate: str = Field("capitals", description="A set that agentlab makes, where there is no file.")
    count: int = Field(120, ge=1, le=100_000, description="Questions, the first of the file or of the set.")
    dev: float = Field(
        0.2, ge=0, lt=1, description="Share of them on which agents, calibration and votes are fitted; never scored."
    )


class ProtocolConfig(StrictModel):
    """Who hears whom, and when a question is settled."""

    rounds: int = Field(1, ge=0, le=16, description="After everybody's own answer; 0 only checks and plans.")
    topology: Topology = Field("ring", description="ring: the next one; star: all and the first; random: `peers` each.")
    peers: int = Field(2, ge=1, le=63, description="How many peers an agent hears in topology random.")
    anonymous: bool = Field(True, description="Peers are shown without their names.")
    agreement: int | None = Field(
        None, ge=0, le=100, description="Percent to which agents are told to agree with their peers; null says nothing."
    )
    keep: bool = Field(True, description="Agents are told to keep their answer unless a peer refutes it.")
    stop: bool = Field(True, description="A question is over as soon as all agents agree.")
    gate: Literal["none", "split"] = Field("none", description="split: debate only where the first answers differ.")
    judge: AgentName | None = Field(None, description="The agent that judges, for vote.rule judge.")


class TurnConfig(StrictModel):
    """How an agent answers."""

    form: Literal["auto", "text", "json"] = Field(
        "auto", description="text ends in `Answer:`; json is enforced by the model; auto is json where that can be."
    )
    max_tokens: int = Field(48, ge=1, le=8192, description="Tokens of what is said, at most.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is the likeliest text.")
    confidence: Confidence = Field(
        "logprob", description="said by the agent; probability of the answer's text; or of it being called true."
    )


class VoteConfig(StrictModel):
    """The one figure that the verdict is about, fixed before the run. Everything else is exploratory."""

    rule: RuleName = Field("majority", description="How the answers of a round become one.")
    round: int | None = Field(None, ge=0, description="After which round; null is the last.")
    against: Control = Field(
        "samples",
        description="samples: the best agent alone, asked as often as the debate's tokens allow; vote: all agents' own "
        "answers; single: the best agent's; length: the debate with one's own earlier answers for the peers'.",
    )
    samples: int = Field(24, ge=1, le=256, description="Samples of a question, at most.")
    temperature: float = Field(0.7, gt=0, le=2, description="At which they are drawn.")


class DebateConfig(StrictModel):
    """One `agentlab debate` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of samples, order of choices and random peers.")
    topic: str | None = Field(None, max_length=20_000, description="What is debated; null asks `questions`.")
    positions: tuple[str, ...] = Field(
        ("yes", "no"), max_length=32, description="Answers to choose from on a topic; empty leaves it to the agents."
    )
    questions: QuestionsConfig = Field(QuestionsConfig(), description="What is debated otherwise.")
    agents: tuple[AgentConfig, ...] = Field((), max_length=64, description="Who debates.")
    base: EnvPath = Field("smollm2-135m", description="Model of agents without one: a name or checkpoint folder.")
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Models of agents that name one.")
    protocol: ProtocolConfig = Field(ProtocolConfig(), description="Who hears whom.")
    turn: TurnConfig = Field(TurnConfig(), description="How an agent answers.")
    vote: VoteConfig = Field(VoteConfig(), description="What the verdict is about.")
    dtype: Figures = Field("float32", description="Type that the base computes in; bfloat16 changes some answers.")
    rows: int = Field(24, ge=1, le=1024, description="Turns side by side: agents times the questions of a wave.")
    threads: int | None = machine_field(None, ge=1, le=1024, description="Of the base; null is one per core.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        yield from self._agent_problems()
        yield from self._topic_problems()
        if self.vote.round is not None and self.vote.round > self.protocol.rounds:
            yield ("vote", "round"), f"there are {self.protocol.rounds} rounds (protocol.rounds)"
        if self.vote.against == "vote" and self.vote.round == 0 and self.vote.rule != JUDGE:
            yield ("vote", "round"), "the vote after round 0 would be compared with itself: name a later round"
        if self.vote.rule == JUDGE and self.protocol.judge is None:
            yield ("vote", "rule"), "nobody judges: name an agent with protocol.judge"
        if self.turn.form == "json" and all(agent.model is None for agent in self.agents):
            yield ("turn", "form"), "json is for models of `llm`; agents of `base` answer in words"
        hosted = bool(self.agents) and all(agent.model is not None for agent in self.agents)
        if hosted and self.turn.confidence != "said" and is_by_confidence(self.vote.rule):
            yield ("vote", "rule"), "models of `llm` tell no confidence but their word: set turn.confidence to said"

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
            yield ("protocol", "agreement"), "nobody is heard in topology none, so there is nobody to agree with"
        if self.protocol.topology == "none" and self.vote.against == "length":
            yield ("vote", "against"), "in topology none nobody is heard, so length would be the debate itself"
        if self.protocol.topology == "random" and self.protocol.peers >= max(len(names), 2):
            yield ("protocol", "peers"), f"{len(names)} agents have {len(names) - 1} peers each"

    def _topic_problems(self) -> Iterator[tuple[Key, str]]:
        different = {normal(position) for position in self.positions} - {""}
        if len(different) < len(self.positions) or len(different) == 1:
            yield ("positions",), "give at least two different positions, or none"
        if self.topic is not None and not self.topic.strip():
            yield ("topic",), "it is empty: say what is to be debated"
        if self.questions.file is not None and self.questions.generate != QuestionsConfig().generate:
            yield ("questions", "generate"), "give one set of questions: questions.file or questions.generate"
        if self.topic is None and self.positions != DebateConfig.model_fields["positions"].default:
            yield ("positions",), "they are the answers to a topic; questions have choices of their own"
        if self.topic is not None and self.questions.file is not None:
            yield ("topic",), "give one thing to debate: a topic or questions.file"


MEASURED = Basis(
    data_keys=("questions.file",),
    keys=("topic", "questions.generate", "questions.count", "questions.dev", "seed"),
    event=("questions.read", "sha256"),
)
