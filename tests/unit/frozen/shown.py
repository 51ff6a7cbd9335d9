"""What language models are shown: schemas that they fill in, and tools that they call. All of it is hashed."""

import json
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from agentlab.compress import agent as compress_agent
from agentlab.compress import tools as compress_tools
from agentlab.compress.goal_reader import GoalParts
from agentlab.llm import judge
from agentlab.llm.tool_loop import Action
from agentlab.llm.types import Tool
from agentlab.search.llm_proposer import edit_schema, full_schema, pick_schema
from agentlab.study.evaluator import Judgement

ANSWER_SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
TOOL = Tool("look_up", "Looks a river up.", ANSWER_SCHEMA)
# What a language model is asked to fill in, by the part that asks.
ANSWER_MODELS: dict[str, type[BaseModel]] = {
    "llm judge": judge.Verdict,
    "study judgement": Judgement,
    "search pick": pick_schema(4),
    "search edit": edit_schema(("model.d_model", "training.lr")),
    "search full": full_schema(("model.d_model", "training.lr")),
    "compress goal": GoalParts,
    "compress plan": compress_agent.Answer,
}


def list_compress_actions() -> list[Action]:
    """What the agent of `compress` may call: its tools, and its own four."""

    def refuse(_: Any) -> str:
        raise AssertionError("nobody calls it here")

    functions: set[compress_tools.Function] = set()
    for _, specialist_functions in compress_tools.SPECIALISTS.values():
        functions.update(specialist_functions)
    situation: Any = None  # which only a call needs
    actions = [compress_tools.action(function, situation) for function in functions]
    agent_tools: tuple[tuple[str, type[BaseModel]], ...] = (
        ("ask_specialist", compress_agent.Question),
        ("answer", compress_agent.Reply),
        ("finish", compress_agent.Answer),
        ("execute_experiment", compress_agent.Wish),
    )
    actions += [Action(name, "", takes, refuse) for name, takes in agent_tools]
    return sorted(actions, key=lambda action: action.name)


def describe_tool(tool: Tool) -> str:
    """As a language model is told of it, in one line."""
    return json.dumps(asdict(tool), ensure_ascii=False)
