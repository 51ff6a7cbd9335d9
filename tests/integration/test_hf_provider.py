"""The embedded model as a checkpoint behind the chat seam: answers, repeats, streams, stops, dies and comes back."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import ContextOverflowError, ModelFileError, WorkerDiedError
from agentlab.llm.provider_config import HfProvider
from agentlab.llm.providers import ProviderContext, build
from agentlab.llm.providers.local import LocalChatModel
from agentlab.llm.types import Delta, Message, ModelRequest

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("forked_workers")]

REPOSITORY = Path(__file__).resolve().parents[2]
FRANCE = ModelRequest("m", (Message("user", "What is the capital of France?"),), max_tokens=24)
STORY = ModelRequest("m", (Message("user", "Tell me a long story about a lighthouse."),), max_tokens=400)
SAMPLED = replace(STORY, max_tokens=16, temperature=0.9, top_p=0.9, seed=7)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, float32_checkpoint: Path) -> Workspace:
    root = tmp_path_factory.mktemp("workspace")
    (root / "models").mkdir()
    (root / "models" / "smollm2").symlink_to(float32_checkpoint)
    return Workspace(root, root / "cache")


@pytest.fixture(scope="module")
def model(home: Workspace) -> Iterator[LocalChatModel]:
    model = make(home)
    yield model
    asyncio.run(model.close())


def make(home: Workspace, **changes: object) -> LocalChatModel:
    provider = HfProvider.model_validate({"kind": "hf", "model_path": "smollm2", **changes})
    model = build("here", provider, ProviderContext({}, home))
    assert isinstance(model, LocalChatModel)
    return model


def read(model: LocalChatModel, request: ModelRequest) -> list[Delta]:
    async def run() -> list[Delta]:
        return [delta async for delta in model.stream(request)]

    return asyncio.run(run())


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_an_answer_streams_and_its_last_piece_counts(model: LocalChatModel) -> None:
    deltas = read(model, FRANCE)
    assert "Paris" in text(deltas)
    assert len([delta for delta in deltas if delta.text]) > 3
    assert [delta.finish for delta in deltas if delta.finish] == ["stop"]
    usage = deltas[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.cost_usd) == (37, None)
    assert 0 < (usage.output_tokens or 0) < 24


def test_a_seed_repeats_its_answer_and_the_limit_ends_it(model: LocalChatModel) -> None:
    first = read(model, SAMPLED)
    assert first[-1].finish == "length"
    assert text(read(model, SAMPLED)) == text(first)
    assert text(read(model, replace(SAMPLED, seed=8))) != text(first)


def test_a_stop_text_ends_the_answer(model: LocalChatModel) -> None:
    deltas = read(model, replace(FRANCE, stop=("Paris",)))
    assert "Paris" not in text(deltas)
    assert deltas[-1].finish == "stop"


def test_what_does_not_fit_is_refused_and_keeps_the_worker(model: LocalChatModel) -> None:
    read(model, replace(FRANCE, max_tokens=1))
    pid = model._engine.worker_pid  # type: ignore[attr-defined] # of the process
    long = replace(FRANCE, messages=(Message("user", "Paris " * 9000),))
    with pytest.raises(ContextOverflowError, match="8192"):
        read(model, long)
    assert read(model, replace(FRANCE, max_tokens=9000))[-1].finish == "stop"  # is cut to the room there is
    assert model._engine.worker_pid == pid  # type: ignore[attr-defined] # as above


def test_leaving_stops_the_answer_at_its_next_token(model: LocalChatModel) -> None:
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(drain(), 1.5)

    async def drain() -> None:
        async for _ in model.stream(STORY):
            pass

    read(model, replace(FRANCE, max_tokens=1))
    pid = model._engine.worker_pid  # type: ignore[attr-defined] # of the process
    asyncio.run(leave())
    start = time.monotonic()
    assert read(model, replace(FRANCE, max_tokens=1))  # waits for the one that was left
    assert time.monotonic() - start < 5
    assert model._engine.worker_pid == pid  # type: ignore[attr-defined] # as above


def test_a_worker_killed_in_mid_answer_is_reported_and_replaced(model: LocalChatModel) -> None:
    async def kill() -> None:
        stream = model.stream(STORY)
        await anext(stream)
        os.kill(model._engine.worker_pid, signal.SIGKILL)  # type: ignore[attr-defined] # of the process
        async for _ in stream:
            pass

    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        asyncio.run(kill())
    assert "Paris" in text(read(model, FRANCE))


def test_an_adapter_that_does_not_fit_is_an_error_with_its_name(home: Workspace) -> None:
    adapter = home.adapters / "odd"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["no_such_layer"]}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    model = make(home, adapter="odd")
    try:
        with pytest.raises(ModelFileError, match="odd"):
            read(model, FRANCE)
    finally:
        asyncio.run(model.close())
