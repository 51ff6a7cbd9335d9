"""Two personas of one checkpoint behind `agentlab serve` as typed: one process, one base, answers as one at a time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import torch
from openai import OpenAI

from agentlab.lora.delta import LoraDelta
from agentlab.workers import memory
from tests.unit.lora.folders import write_folder

pytestmark = pytest.mark.model
REPOSITORY = Path(__file__).resolve().parents[2]
PERSONAS = ("one", "two")
QUESTIONS = ("What is tea?", "Name three rivers.", "Why is the sky blue?", "Tell me about bread, please.")


def adapter(folder: Path, seed: int, wide: int = 576, layers: int = 30) -> None:
    """A random one for the embedded model or its first layers, strong enough to be heard."""
    chance = torch.Generator().manual_seed(seed)
    modules = {
        f"model.layers.{layer}.self_attn.{name}": LoraDelta(
            torch.randn(4, wide, generator=chance) * 0.05, torch.randn(out, 4, generator=chance) * 0.05, 2.0
        )
        for layer in range(layers)
        for name, out in (("q_proj", wide), ("v_proj", wide // 3))
    }
    write_folder(
        folder, modules, target_modules=["q_proj", "v_proj"], base_model_name_or_path=f"/base of {folder.name}"
    )


class Served:
    """A client, and the processes behind it."""

    def __init__(self, client: OpenAI, pid: int) -> None:
        self.client, self._pid = client, pid

    def ask(self, model: str, question: str, max_tokens: int = 8) -> str:
        answer = self.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=max_tokens
        )
        return answer.choices[0].message.content or ""

    @property
    def worker(self) -> int:
        (only,) = [
            process for process in psutil.Process(self._pid).children() if "agentlab.hf.worker" in process.cmdline()
        ]
        return only.pid


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, float32_checkpoint: Path) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / "smollm2").symlink_to(float32_checkpoint)
    for seed, name in enumerate((*PERSONAS, "stranger"), 1):
        adapter(home / "adapters" / name, seed, 48 if name == "stranger" else 576)
    providers = {name: {"kind": "hf", "model_path": "smollm2", "adapter": name} for name in (*PERSONAS, "stranger")}
    with (
        serving(home, providers) as (url, pid),
        OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield Served(client, pid)


@contextmanager
def serving(home: Path, providers: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """`agentlab serve` with a model for each provider: its address, and its process."""
    config = {
        "providers": providers,
        "models": {name: {"provider": name, "id": "local", "price": {"input": 0, "output": 0}} for name in providers},
        "roles": {"primary": list(providers)},
    }
    (home / "served.yaml").write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlab", "serve", "./served.yaml", "--port", "0"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "AGENTLAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("Listening at "), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_two_personas_are_one_process_that_takes_little_more_than_one(served: Served) -> None:
    first = served.ask("one", QUESTIONS[0])
    alone = memory.of(served.worker)
    assert served.ask("two", QUESTIONS[0]) != first
    both = memory.of(served.worker)
    if sys.platform == "linux":
        assert alone is not None
        assert both is not None
        assert both.resident < 1.2 * alone.resident


def test_eight_clients_at_a_time_are_told_what_each_is_told_alone(served: Served) -> None:
    requests = [(persona, question) for question in QUESTIONS for persona in PERSONAS]
    alone = [served.ask(*request) for request in requests]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda request: served.ask(*request), requests)) == alone


def test_an_adapter_of_another_base_is_refused_by_its_name_and_the_others_go_on(served: Served) -> None:
    assert served.ask("one", QUESTIONS[0])
    worker = served.worker
    with pytest.raises(openai.APIStatusError, match=r"stranger cannot be used with smollm2.*maps 576 to 576 features"):
        served.ask("stranger", QUESTIONS[0])
    assert served.ask("one", QUESTIONS[0])
    assert served.worker == worker


def test_a_client_that_leaves_does_not_disturb_the_others(served: Served) -> None:
    alone, worker = served.ask("two", QUESTIONS[1], 16), served.worker
    with ThreadPoolExecutor(1) as pool:
        stream = served.client.chat.completions.create(
            model="one", messages=[{"role": "user", "content": QUESTIONS[2]}], max_tokens=400, stream=True
        )
        next(iter(stream))
        waiting = pool.submit(served.ask, "two", QUESTIONS[1], 16)
        stream.close()
        assert waiting.result() == alone
    assert served.worker == worker
