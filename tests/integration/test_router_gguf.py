"""The router with the embedded model: a question of pick tier, end to end."""

import os
import time
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel

from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Message

pytestmark = pytest.mark.model


class Pick(BaseModel):
    """A question of pick tier."""

    choice: Literal["A", "B", "C"]


ASK = [
    Message("system", "You choose one option. Answer with JSON."),
    Message("user", "Which of these is a fruit?\nA: a chair\nB: an apple\nC: a car"),
]


@pytest.fixture
def router(workspace, pytestconfig):
    preset = pytestconfig.rootpath / "configs" / "llm" / "embedded.yaml"
    config = LLMConfig.model_validate(yaml.safe_load(preset.read_text()), context={"env": {}})
    with Router(config, env={}, workspace=Workspace.locate(os.environ, workspace)) as router:
        router.check()
        yield router


def test_the_embedded_model_picks_a_letter_and_repeats_itself(router):
    assert router.tier("nas.propose") == "pick"
    answers = [router.complete_sync(ASK, "nas.propose", Pick) for _ in range(2)]
    assert answers[0].value.choice in ("A", "B", "C")
    assert answers[0].text == answers[1].text
    assert len(answers[0].attempts) == 1
    assert answers[0].usage.cost_usd == 0
    assert answers[0].usage.output_tokens


def test_close_ends_the_worker(router):
    router.complete_sync(ASK, "nas.propose", Pick)
    pid = router._connections._built["here"]._engine.worker_pid
    assert pid
    start = time.monotonic()
    router.close()
    assert time.monotonic() - start < 4
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
