"""Makes run folders as a pipeline does, without a model: the answers are given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab.pipeline.answer import PipelineAnswer, PipelineQuestion, key_of, sha_of
from agentlab.pipeline.items import COPY, PipelineInput, copy_of
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import FILE, RunTexts
from agentlab.runs.manifest import read_manifest
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import RunRecord

STAGES: list[dict[str, Any]] = [
    {"id": "draft", "model": "small", "prompt": "Tell of {{ input }}.", "temperature": 0.7},
    {"id": "final", "model": "large", "system": "Be brief.", "prompt": "{{ input }}", "temperature": 0.0},
]


def stages(**changed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`STAGES` with some of their keys changed: `stages(draft={"temperature": 0.2})`."""
    return [{**stage, **changed.get(stage["id"], {})} for stage in STAGES]


class Workshop:
    """A workspace with a store and run folders, each a second younger than the one before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs_dir = root / "runs"
        self.store = Store(root / ".agentlab" / "pipeline")
        self.index = root / ".agentlab" / "pipeline" / "history.sqlite"
        self.now = 1_000_000_000.0

    def open(self, name: str, command: str = "pipeline", config: Mapping[str, Any] | None = None) -> OpenRun:
        """A new run, created and nothing more."""
        self.now += 1
        text = yaml.safe_dump(dict(config or {}), sort_keys=False)
        return OpenRun.create(
            self.runs_dir, RunSpec(command, text, text, "h", 0, name=name), RunEnvironment(clock=lambda: self.now)
        )

    def put(self, run: OpenRun, text: str) -> str:
        """Keep a text of a run."""
        return RunTexts(run.path, self.store).put(text)

    def lose(self, run: RunRecord, text: str) -> None:
        """Tear a text of a run."""
        path = run.path / FILE
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if sha_of(text).encode() not in line))

    def record(self, name: str) -> RunRecord:
        """A run as a reader sees it."""
        return RunRecord(self.runs_dir / name, read_manifest(self.runs_dir / name))

    def run(
        self,
        name: str,
        answers: Mapping[str, str],
        *,
        given: str | Sequence[str] = "the sky",
        parent: str | None = None,
        stages: Sequence[Mapping[str, Any]] = STAGES,
        **config: Any,
    ) -> RunRecord:
        """A whole run. `answers` are by stage; a question that was asked before is answered from the store."""
        batch = not isinstance(given, str)
        inputs = (
            [PipelineInput(f"{n:04}", text) for n, text in enumerate(given, 1)]
            if batch
            else [PipelineInput("", str(given))]
        )
        full_config = {"mode": "base", "base_pipeline": {"stages": list(stages)}, "cache": "use", **config}
        full_config["inputs"] = "lines.jsonl" if batch else None
        with self.open(name, config=full_config) as run:
            if parent is not None:
                run.derive(parent)
            run.start({})
            run.write_text(COPY, copy_of(inputs))
            for pipeline_input in inputs:
                text = pipeline_input.text
                for stage in stages:
                    text = self._answer(run, stage, pipeline_input.name, text, answers[stage["id"]], full_config)
            run.complete(RunOutcome())
        return self.record(name)

    def _answer(
        self, run: OpenRun, stage: Mapping[str, Any], item: str, input_text: str, answer: str, config: Mapping[str, Any]
    ) -> str:
        id_ = f"{item}:{stage['id']}" if item else stage["id"]
        question = self.asked(stage, input_text)
        key = key_of(question)
        stored_answer = self.store.recall(key) if config["cache"] == "use" else None
        pipeline_answer = stored_answer or PipelineAnswer(answer, "stop", stage["model"], 20, 5, 0, 0.25, 0.5)
        if stored_answer is None:
            self.store.remember(key, question, pipeline_answer)
        sha = self.put(run, pipeline_answer.text)
        source = "cache" if stored_answer else "model"
        event_fields = {
            "key": key,
            "sha": sha,
            "from": source,
            "asked": question.summary(),
            "answer": pipeline_answer.figures(),
            "rung": "",
        }
        run.emit("call.answered", id_, **event_fields)
        run.emit("stage.finished", id_, sha=sha, status="done", why={})
        return pipeline_answer.text

    @staticmethod
    def asked(stage: Mapping[str, Any], given: str) -> PipelineQuestion:
        """The question of a stage."""
        parts = [("system", stage.get("system", "")), ("user", stage["prompt"].replace("{{ input }}", given))]
        return PipelineQuestion(
            messages=tuple((role, text) for role, text in parts if text),
            model=stage["model"],
            fingerprint=f"sha256:{stage['model']}",
            numerics={"batch": 128},
            temperature=stage["temperature"],
            top_p=None,
            max_tokens=64,
            seed=7,
        )


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty one."""
    return Workshop(tmp_path)
