"""What a debate is going to do: who answers, how often, and what the verdict will be about."""

import textwrap
from collections.abc import Sequence

from agentlab.debate.config import DebateConfig
from agentlab.debate.protocol import listeners, split
from agentlab.runs.document import AnswerDocument, Block, Plain, Table, Text, table
from agentlab.tasks.questions import QuizQuestion


class PlannedAgent(Plain):
    """An agent; `hears` are its peers in the first round on the first question."""

    name: str
    answers: str
    persona: str
    hears: list[str]


class DebatePlan(AnswerDocument):
    """The answer of `--dry-run` and of `--rounds 0`. Turns and tokens are upper bounds."""

    agents: list[PlannedAgent]
    base: str | None
    imports: bool
    questions: int
    dev: int
    rounds: int
    turns: int
    answer_tokens: int
    verdict: str

    def blocks(self) -> list[Block]:
        put_aside = f", {self.dev} of them reserved for calibration" if self.dev else ""
        imported = ", imported first (half a minute, once)" if self.imports else ""
        rows = [
            ("questions", f"{self.questions}{put_aside}"),
            ("rounds", f"{self.rounds} after the first answers"),
            ("turns", f"at most {self.turns:,}, with up to {self.answer_tokens:,} answer tokens in total"),
            *([("base", self.base + imported)] if self.base else []),
        ]
        return [self.agent_table(), Table(("plan", ""), rows), Text(self.verdict)]

    def agent_table(self) -> Table:
        return table(
            self.agents,
            {
                "agent": lambda a: a.name,
                "model": lambda a: a.answers,
                "persona": lambda a: a.persona,
                "hears": lambda a: ", ".join(a.hears) or "nobody",
            },
        )


def plan_of(config: DebateConfig, questions: Sequence[QuizQuestion], base: str | None, *, imports: bool) -> DebatePlan:
    """The plan. `base` is the checkpoint of agents without a model, if there are any; it may have to be imported."""
    names, dev = [agent.name for agent in config.agents], split(config, questions)[0]
    first_turns, later_turns = len(names), len(names) * config.protocol.rounds
    scored = 0 if config.topic is not None else len(questions) - len(dev)
    turns = len(questions) * (first_turns + later_turns) + scored * (later_turns + config.vote.samples)
    agents: list[PlannedAgent] = []
    for index, agent in enumerate(config.agents):
        base_label = f"base with {agent.adapter}" if agent.adapter else "base"
        persona = textwrap.shorten(agent.system or "", 60, placeholder="...")
        hears = [names[peer] for peer in listeners(config, questions[0].id, 1, index)]
        agents.append(PlannedAgent(name=agent.name, answers=agent.model or base_label, persona=persona, hears=hears))
    return DebatePlan(
        agents=agents,
        base=base,
        imports=imports,
        questions=len(questions),
        dev=len(dev),
        rounds=config.protocol.rounds,
        turns=turns,
        answer_tokens=turns * config.turn.max_tokens,
        verdict=aim(config),
    )


def aim(config: DebateConfig) -> str:
    """What the verdict is about, in words."""
    if config.topic is not None:
        return "A topic has no right answer, so the run reports positions and a vote, but no verdict."
    round_ = config.protocol.rounds if config.vote.round is None else config.vote.round
    against = {
        "samples": "the best agent alone, sampled until it reaches the debate's token count",
        "vote": "the vote on the first answers",
        "single": "the best agent's first answer",
        "length": "the same debate with the agent's own earlier answers in place of its peers'",
    }[config.vote.against]
    return f"Verdict: the {config.vote.rule} vote after round {round_} against {against}. All else is exploratory."
