"""Tasks of lighteval for models of a server, by its own program: it wants other libraries than we do."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentlab.errors import AgentlabError, MissingExtraError, UsageError
from agentlab.integrations.evaluation import Evaluated, Key, Measure
from agentlab.persona.ping import KEY

_SILENT = "returning empty response"  # it goes on without an answer, and scores it


def scorer(
    names: Sequence[str], files: Sequence[Path], base_url: str, limit: int | None, env: Mapping[str, str]
) -> Callable[[str], Evaluated]:
    """As `lm_eval.scorer`. `files`: at most one Python file with tasks.

    Raises:
        MissingExtraError: there is no such program.
        AgentlabError: later, it has failed.
    """
    program = shutil.which("lighteval")
    if program is None:
        raise MissingExtraError(
            "The program lighteval is not installed.",
            hint="Install it in its own environment, pip install 'lighteval[litellm]', and add its bin to PATH.",
        )
    if len(files) > 1 or any(not file.is_file() for file in files):
        raise UsageError("lighteval takes one Python file with tasks.", hint="--include-path mytasks.py")
    words = [",".join(names)]
    words += ["--custom-tasks", str(files[0].absolute())] if files else []
    words += [] if limit is None else ["--max-samples", str(limit)]

    def score(model: str) -> Evaluated:
        # Its caches of answers go by a model's name, and would answer for another adapter of that name.
        with tempfile.TemporaryDirectory() as scratch:
            return _run(program, Path(scratch), base_url, model, words, env.get(KEY, "none"))

    return score


def _run(program: str, scratch: Path, base_url: str, model: str, words: Sequence[str], key: str) -> Evaluated:
    settings = {
        "model_name": f"openai/{model}",
        "base_url": base_url,
        "provider": "server",  # of "openai" it would ask log-probabilities, which not every server has
        "cache_dir": str(scratch / "cache"),
        "generation_parameters": {"temperature": 0},
    }
    (scratch / "model.yaml").write_text(json.dumps({"model_parameters": settings}))
    command = [program, "endpoint", "litellm", "model.yaml", *words, "--output-dir", str(scratch)]
    variables = {**os.environ, "OPENAI_API_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, cwd=scratch, env=variables, capture_output=True, text=True, check=False)
    results = sorted(scratch.glob("results/**/results_*.json"))
    silent = _SILENT in done.stdout + done.stderr
    if done.returncode or silent or not results:
        message = " ".join((done.stderr or done.stdout).split())[-300:] or "it printed no error"
        if silent:
            message = "the server refused or failed some requests, which lighteval scores as empty answers"
        raise AgentlabError(
            f"lighteval failed for {model}: {message}", hint="Check that the tasks run without agentlab."
        )
    tree = json.loads(results[-1].read_text())
    measures: dict[Key, Measure] = {}
    for task, metrics in tree["results"].items():
        for metric, value in metrics.items():
            if task != "all" and not metric.endswith("_stderr"):
                measures[task, metric] = Measure(value, None)
    return Evaluated(measures, {name: tree[name] for name in ("results", "versions", "config_tasks") if name in tree})
