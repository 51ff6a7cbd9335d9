"""The official client against `agentlab serve` as typed, with the embedded model behind it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

pytestmark = pytest.mark.model
REPOSITORY = Path(__file__).resolve().parent.parent.parent
ASK = [{"role": "user", "content": "Say hello."}]


class Fruit(BaseModel):
    name: str


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()  # of its own, since what is found out about the model is kept there
    (home / "cache" / "models").symlink_to(REPOSITORY / "models")
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlab", "serve", "--port", "0"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "AGENTLAB_CACHE": str(home / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("Listening at ")
        with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_the_same_answer_in_three_dialects(client):
    chat = client.chat.completions.create(model="agentlab", messages=ASK, max_tokens=8)
    legacy = client.completions.create(model="agentlab", prompt="Say hello.", max_tokens=8)
    response = client.responses.create(model="agentlab", input="Say hello.", max_output_tokens=8)
    assert chat.choices[0].message.content == legacy.choices[0].text == response.output_text != ""
    assert chat.usage.completion_tokens == response.usage.output_tokens == 8
    assert response.status == "incomplete"


def test_streams(client):
    with client.responses.stream(model="agentlab", input="Say hello.", max_output_tokens=8) as stream:
        streamed_text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    chunks = client.completions.create(model="agentlab", prompt="Say hello.", max_tokens=8, stream=True)
    assert streamed_text == "".join(chunk.choices[0].text for chunk in chunks) != ""


def test_structured_output(client):
    answer = client.responses.parse(model="agentlab", input="Name a fruit.", text_format=Fruit, max_output_tokens=60)
    assert answer.output_parsed.name


def test_more_tokens_than_there_is_room_for(client):
    answer = client.chat.completions.create(model="agentlab", messages=ASK, max_tokens=10**6, stop=["."])
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("prompt", ["word " * 9000, "\u00e9" * 4000], ids=["seen at once", "seen by its tokens"])
def test_a_prompt_that_does_not_fit(client, prompt):
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        client.responses.create(model="agentlab", input=prompt)
    assert caught.value.code == "context_length_exceeded"
