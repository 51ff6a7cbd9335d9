"""The agent of a compression with a hosted model: asks for money and the network, so only where somebody wants it.

ANTHROPIC_API_KEY=... pytest tests/live    costs some cents, and is in no other run of the tests
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_compress import SMALL, workspace

__all__ = ["workspace"]

KEY = os.environ.get("ANTHROPIC_API_KEY")  # the rules of all tests take it away later
MODEL = os.environ.get("AGENTLAB_LIVE_MODEL", "claude-haiku-4-5")
STEPS = """
import json, sys
from agentlab.compress import create_compression_deep_agent

settings = json.loads(sys.argv[2])
agent = create_compression_deep_agent(sys.argv[1], "memory", overrides=settings)
plan = agent.plan_compression("tiny", "smallest with kl < 0.5")
found = agent.execute_experiment(plan["recipes"][0]["params"])
lessons = agent.reflect_and_improve([found])
print(json.dumps({"plan": plan, "found": found, "lessons": lessons}))
"""


@pytest.mark.skipif(not KEY, reason="needs ANTHROPIC_API_KEY, and spends some cents")
def test_a_hosted_model_plans_executes_and_reflects(workspace: Path) -> None:
    settings = {name: SMALL[name] for name in ("text", "recovery", "threads")}
    command = [sys.executable, "-c", STEPS, MODEL, json.dumps(settings)]
    environment = {**os.environ, "ANTHROPIC_API_KEY": KEY or ""}
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["plan"]["by"] == report["lessons"]["by"] == "planner"
    assert report["plan"]["recipes"]
    assert report["found"]["kl"] is not None
    assert report["lessons"]["output"]
    files = [path for path in workspace.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert not [path for path in files if (KEY or "").encode() in path.read_bytes()]
