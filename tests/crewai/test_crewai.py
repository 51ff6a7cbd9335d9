"""CrewAI's agents over the router and a real server; run by .ci/test-crewai in an environment of their own."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

pytest.importorskip("crewai", reason="CrewAI has its own environment: .ci/test-crewai")

from crewai import Agent, Crew, Task

from agentlab.bench.mock.server import MockServer
from agentlab.errors import AllModelsFailedError, MissingFileError
from agentlab.integrations.crewai import AgentlabLLM, NoAnswerError, create_executor_agent, create_llm_for_crewai
from tests.unit.bench.mock.running import in_thread

Write = Callable[..., Path]


class Verdict(BaseModel):
    """An answer with a shape."""

    done: bool
    note: str


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with in_thread() as running:
        yield running


@pytest.fixture
def write(server: MockServer, workspace: Path) -> Write:
    """A config whose primary models have these scripts."""

    def config(*scripts: str, caps: tuple[str, ...] = ("tools", "schema", "json"), **fields: Any) -> Path:
        names = [f"m{index}" for index in range(len(scripts))]
        tree = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
            "models": {
                name: {"provider": "mock", "id": script, "caps": list(caps), **fields}
                for name, script in zip(names, scripts, strict=True)
            },
            "roles": {"primary": names},
            "defaults": {"retries": 0, "timeout": {"first_token": 2, "idle": 1, "total": 5}},
        }
        path = workspace / "llm.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return config


def asked(server: MockServer, script: str) -> int:
    """How often a model was asked."""
    return int(server.seen()["models"].get(script, {"count": 0})["count"])


def crew(llm: AgentlabLLM, **task: Any) -> Crew:
    agent = Agent(role="Developer", goal="Write code", backstory="You write code.", llm=llm)
    return Crew(agents=[agent], tasks=[Task(description="Count.", expected_output="Numbers.", agent=agent, **task)])


def test_a_crew_carries_out_its_task(write: Write) -> None:
    llm = create_llm_for_crewai(write("a/503", "a/ok-n3"))
    result = crew(llm).kickoff()
    assert result.raw == "0 1 2"
    assert result.token_usage.completion_tokens >= 3
    assert llm.manager.statistics()["m1"].success_count >= 1
    llm.manager.close()


def test_a_crew_that_is_started_in_a_loop(write: Write) -> None:
    llm = create_llm_for_crewai(write("b/ok-n2"))
    assert asyncio.run(crew(llm).kickoff_async()).raw == "0 1"
    assert asyncio.run(crew(llm).akickoff()).raw == "0 1"
    llm.manager.close()


def test_an_answer_with_a_shape(write: Write) -> None:
    llm = create_llm_for_crewai(write("c/ok"))
    assert isinstance(llm.call("x", response_model=Verdict), Verdict)
    assert isinstance(crew(llm, output_pydantic=Verdict).kickoff().pydantic, Verdict)
    llm.manager.close()


@pytest.mark.parametrize("script", ["d/429-ra60", "d/500", "d/401"])
def test_what_the_router_has_given_up_is_not_asked_again(write: Write, server: MockServer, script: str) -> None:
    llm = create_llm_for_crewai(write(script))
    with pytest.raises(NoAnswerError) as caught:
        llm.call("x")
    assert asked(server, script) == 1
    assert isinstance(caught.value.cause, AllModelsFailedError)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)
    with pytest.raises(NoAnswerError):
        asyncio.run(llm.acall("x"))
    llm.manager.close()


def test_calls_of_tools_are_for_the_executor_unless_functions_come_along(write: Write) -> None:
    llm = create_llm_for_crewai(write("e/tool"))
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    add = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": parameters}}
    (call,) = llm.call("x", tools=[add])
    assert call["function"]["name"] == "add"
    assert llm.call("x", tools=[add], available_functions={"add": lambda a: f"got {type(a).__name__}"}) == "got int"
    llm.manager.close()


def test_stop_words_of_a_call_cut_the_answer(write: Write) -> None:
    from crewai.llms.base_llm import call_stop_override

    llm = create_llm_for_crewai(write("f/ok-n6"))
    with call_stop_override(llm, [" 2"]):
        assert llm.call("x") == "0 1"
    assert llm.call("x") == "0 1 2 3 4 5"
    llm.manager.close()


def test_what_crewai_looks_up(write: Write) -> None:
    able, unable = create_llm_for_crewai(write("g/ok", context=1000)), create_llm_for_crewai(write("g/ok", caps=()))
    assert (able.supports_function_calling(), unable.supports_function_calling()) == (True, False)
    assert able.get_context_window_size() == 850
    assert unable.get_context_window_size() > 100_000
    assert able.get_input_tokens_count([{"role": "user", "content": "word " * 100}]) > 50


def test_an_executor_works_in_its_folder(write: Write, workspace: Path, server: MockServer) -> None:
    project = workspace / "project"
    project.mkdir()
    (project / "main.py").write_text("print()")
    agent = create_executor_agent(project, config_path=write("h/tool-then-ok-n2"))
    task = Task(description="Look around.", expected_output="Numbers.", agent=agent)
    assert Crew(agents=[agent], tasks=[task]).kickoff().raw == "0 1"
    assert asked(server, "h/tool-then-ok-n2") == 2
    tools = {tool.name: tool for tool in agent.tools}
    assert tools["list_files"].run() == "main.py"
    assert tools["write_file"].run(path="src/new.py", text="x = 1") == "Wrote src/new.py."
    assert tools["read_file"].run(path="src/new.py") == "x = 1"
    assert tools["read_file"].run(path="../llm.yaml").startswith("Refused: ")
    agent.llm.manager.close()


def test_an_executor_without_the_manager_uses_crewai_s_own_model(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-real-key")
    assert not isinstance(create_executor_agent(workspace, use_llm_manager=False).llm, AgentlabLLM)


def test_a_project_that_is_not_there(workspace: Path) -> None:
    with pytest.raises(MissingFileError, match="no-such"):
        create_executor_agent(workspace / "no-such")
