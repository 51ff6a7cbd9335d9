"""The official `openai` package against the gateway, and the gateway as a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from agentlab.bench.mock.server import MockServer
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.serve.run import TOKEN, GatewaySettings
from agentlab.runs.context import Context
from tests.unit.bench.mock.running import in_thread as mock_in_thread
from tests.unit.llm.serve.gateways import in_thread

KEY, SECRET = "sk-canary-0123456789abcdefghij", "serve-canary-0123456789"
REPOSITORY = Path(__file__).resolve().parent.parent.parent
ASK = [{"role": "user", "content": "Count."}]
SCRIPTS = (
    "ok",
    "other/ok",
    "judge/ok",
    "tool",
    "tool-calls2",
    "500",
    "429-ra60",
    "close-4-of-8",
    "400",
    "silence",
    "ok-ttft300-itl20",
    "wrong-schema-then-ok",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

LOOK = {"type": "function", **WEATHER["function"], "strict": False}  # the same for responses


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with mock_in_thread() as server:
        yield server


def setup(url: str) -> LLMConfig:
    return LLMConfig.model_validate(
        {
            "providers": {"mock": {"kind": "openai_compat", "base_url": url, "api_key": "${TEST_API_KEY}"}},
            "models": {name: {"provider": "mock", "id": name} for name in SCRIPTS},
            "roles": {"primary": ["ok", "other/ok"], "duplicate": ["judge/ok"]},
            "defaults": {"timeout": {"first_token": 2, "idle": 2, "total": 3}, "retries": 0},
            "ledger": {"enabled": False},
        },
        context={"env": {}},
    )


@pytest.fixture(scope="module")
def client(mock: MockServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    home = tmp_path_factory.mktemp("home")
    context = Context(Workspace(home, home), {"TEST_API_KEY": KEY, TOKEN: SECRET})
    with (
        in_thread(setup(mock.url), GatewaySettings(port=0), context) as url,
        OpenAI(base_url=url, api_key=SECRET, timeout=10) as client,
    ):
        yield client


class TestChat:
    def test_an_answer(self, client):
        answer = client.chat.completions.create(
            model="agentlab", messages=ASK, temperature=0.5, top_p=0.9, max_tokens=99, seed=1, stop=["END"], n=1
        )
        assert answer.choices[0].message.content == "0 1 2 3 4 5 6 7"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "ok"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8

    def test_a_conversation_goes_on_with_the_answer_itself(self, client):
        answer = client.chat.completions.create(model="agentlab", messages=ASK)
        follow_up = client.chat.completions.create(model="agentlab", messages=[*ASK, answer.choices[0].message, *ASK])
        assert follow_up.choices[0].message.content

    def test_who_answered(self, client):
        reply = client.chat.completions.with_raw_response.create(model="other/ok", messages=ASK)
        assert reply.headers["X-Agentlab-Model"] == reply.parse().model == "other/ok"

    def test_an_answer_that_is_cut(self, client):
        answer = client.chat.completions.create(model="ok", messages=ASK, max_completion_tokens=3)
        assert answer.choices[0].finish_reason == "length"

    @pytest.mark.parametrize("strategy", ["single", "fallback", "fastest", "best-of-two", "best-of-n", "adaptive"])
    def test_every_strategy_by_its_name(self, client, strategy):
        answer = client.chat.completions.create(model=f"agentlab/{strategy}", messages=ASK)
        assert answer.choices[0].message.content == "0 1 2 3 4 5 6 7"


class TestStream:
    def test_pieces_and_usage(self, client):
        chunks = list(
            client.chat.completions.create(
                model="agentlab", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "0 1 2 3 4 5 6 7"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 8)

    def test_the_helper_puts_them_together(self, client):
        with client.chat.completions.stream(model="agentlab", messages=ASK) as stream:
            kinds = {event.type for event in stream}
            assert stream.get_final_completion().choices[0].message.content == "0 1 2 3 4 5 6 7"
        assert "content.delta" in kinds

    def test_several_strategies_in_one_piece(self, client):
        chunks = client.chat.completions.create(model="agentlab/best-of-two", messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "0 1 2 3 4 5 6 7"

    def test_one_that_breaks_is_an_error_and_no_answer(self, client):
        chunks = []
        with pytest.raises(openai.APIError, match="broke off"):
            chunks.extend(client.chat.completions.create(model="close-4-of-8", messages=ASK, stream=True))
        assert chunks


class TestTools:
    @pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}])
    def test_a_call_and_its_result(self, client, choice):
        first = client.chat.completions.create(model="tool", messages=ASK, tools=[WEATHER], tool_choice=choice)
        (call,) = first.choices[0].message.tool_calls
        assert (call.function.name, first.choices[0].finish_reason) == ("weather", "tool_calls")
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        follow_up = client.chat.completions.create(
            model="ok", messages=[*ASK, first.choices[0].message, result], tools=[WEATHER]
        )
        assert follow_up.choices[0].message.content

    def test_calls_that_come_in_pieces(self, client):
        with client.chat.completions.stream(model="tool-calls2", messages=ASK, tools=[WEATHER]) as stream:
            message = stream.get_final_completion().choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["weather", "weather"]
        assert len({call.id for call in message.tool_calls}) == 2

    def test_a_pydantic_tool(self, client):
        tools = [openai.pydantic_function_tool(City)]
        answer = client.chat.completions.parse(model="tool", messages=ASK, tools=tools)
        assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, City)


class TestStructured:
    def test_a_pydantic_model(self, client):
        answer = client.chat.completions.parse(model="agentlab", messages=ASK, response_format=City)
        assert isinstance(answer.choices[0].message.parsed, City)

    def test_an_answer_that_is_refused_is_asked_for_again(self, client):
        answer = client.chat.completions.parse(model="wrong-schema-then-ok", messages=ASK, response_format=City)
        assert isinstance(answer.choices[0].message.parsed, City)

    def test_a_stream_of_one(self, client):
        with client.chat.completions.stream(model="agentlab", messages=ASK, response_format=City) as stream:
            assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


class TestResponses:
    def test_an_answer_and_a_conversation(self, client):
        first = client.responses.create(model="ok", input="Count.", instructions="Be brief.", max_output_tokens=99)
        assert (first.output_text, first.status, first.model) == ("0 1 2 3 4 5 6 7", "completed", "ok")
        assert first.usage.output_tokens == 8
        follow_up = client.responses.create(model="ok", input=[*ASK, *first.output, *ASK], store=False)
        assert follow_up.output_text == first.output_text

    def test_one_that_is_cut(self, client):
        answer = client.responses.create(model="ok", input="Count.", max_output_tokens=3)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    def test_a_stream(self, client):
        with client.responses.stream(model="ok", input="Count.") as stream:
            kinds = [event.type for event in stream]
            assert stream.get_final_response().output_text == "0 1 2 3 4 5 6 7"
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")

    def test_a_stream_that_breaks_has_failed(self, client):
        events = list(client.responses.create(model="close-4-of-8", input="Count.", stream=True))
        assert events[-1].type == "response.failed"
        assert "broke off" in events[-1].response.error.message

    @pytest.mark.parametrize("model", ["tool", "tool-calls2"])
    def test_calls_of_tools_whole_and_streamed(self, client, model):
        complete = client.responses.create(model=model, input="Rain?", tools=[LOOK], tool_choice="auto")
        with client.responses.stream(model=model, input="Rain?", tools=[LOOK]) as stream:
            streamed = stream.get_final_response()
        for answer in (complete, streamed):
            calls = [item for item in answer.output if item.type == "function_call"]
            assert {call.name for call in calls} == {"weather"}
            assert len({call.call_id for call in calls}) == (2 if model == "tool-calls2" else 1)
        one = client.responses.create(model=model, input="Rain?", tools=[LOOK], parallel_tool_calls=False)
        assert len(one.output) == 1
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
        conversation = [{"role": "user", "content": "Rain?"}, *complete.output, *results]
        assert client.responses.create(model="ok", input=conversation, tools=[LOOK]).output_text

    def test_a_pydantic_model(self, client):
        assert isinstance(client.responses.parse(model="ok", input="A city", text_format=City).output_parsed, City)
        with client.responses.stream(model="ok", input="A city", text_format=City) as stream:
            assert isinstance(stream.get_final_response().output_parsed, City)

    def test_nothing_is_stored(self, client):
        with pytest.raises(openai.BadRequestError, match="nothing is stored"):
            client.responses.create(model="ok", input="Count.", previous_response_id="resp_1")
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_1")


class TestCompletions:
    def test_an_answer_and_a_stream(self, client):
        answer = client.completions.create(model="ok", prompt="Count.", max_tokens=99, stop=["END"])
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("0 1 2 3 4 5 6 7", "stop")
        chunks = client.completions.create(model="ok", prompt=["Count."], stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == "0 1 2 3 4 5 6 7"

    def test_what_cannot_be_done_is_said(self, client):
        with pytest.raises(openai.BadRequestError, match="echo"):
            client.completions.create(model="ok", prompt="Count.", echo=True)


class TestVectors:
    @pytest.mark.parametrize("encoding", ["float", "base64", openai.NOT_GIVEN])
    def test_one_for_each_text(self, client, encoding):
        answer = client.embeddings.create(model="ok", input=["a", "b"], encoding_format=encoding)
        assert [row.index for row in answer.data] == [0, 1]
        plain = client.embeddings.create(model="ok", input=["a", "b"], encoding_format="float")
        embedding = answer.data[1].embedding
        if encoding != "base64":  # decoded by the client where it has chosen base64 itself
            assert embedding == pytest.approx(plain.data[1].embedding, rel=1e-6)
        else:
            assert isinstance(embedding, str)

    def test_fewer_dimensions(self, client):
        full_vector = client.embeddings.create(model="ok", input="a").data[0].embedding
        short = client.embeddings.create(model="ok", input="a", dimensions=2).data[0].embedding
        length = (full_vector[0] ** 2 + full_vector[1] ** 2) ** 0.5
        assert short == pytest.approx([full_vector[0] / length, full_vector[1] / length], rel=1e-5)


class TestModels:
    def test_all_and_one(self, client):
        names = [model.id for model in client.models.list()]
        assert {"agentlab", "agentlab/best-of-two", "ok"} < set(names)
        assert client.models.retrieve("agentlab/best-of-two").owned_by == "agentlab"


class TestErrors:
    @pytest.mark.parametrize(
        ("model", "options", "kind"),
        [
            ("nobody", {}, openai.NotFoundError),
            ("ok", {"n": 2}, openai.BadRequestError),
            ("ok", {"extra_body": {"colour": "red"}}, openai.BadRequestError),
            ("400", {}, openai.BadRequestError),
            ("500", {}, openai.InternalServerError),
            ("silence", {}, openai.InternalServerError),
        ],
    )
    def test_its_own_classes(self, client, mock, model, options, kind):
        mock.reset()
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model=model, messages=ASK, **options)
        assert caught.value.code
        assert KEY not in str(caught.value)
        call_count = mock.seen()["models"].get(model, {"count": 0})["count"]
        assert call_count <= 1  # the client does not repeat what the router has given up

    def test_too_much(self, client):
        with pytest.raises(openai.RateLimitError) as caught:
            client.with_options(max_retries=0).chat.completions.create(model="429-ra60", messages=ASK)
        assert int(caught.value.response.headers["Retry-After"]) >= 1

    def test_a_wrong_token(self, client):
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()

    def test_the_clients_own_clock(self, client, mock):
        mock.reset()
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3, max_retries=0).chat.completions.create(model="silence", messages=ASK)
        deadline = time.monotonic() + 5
        while not mock.seen()["models"]["silence"]["left"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mock.seen()["models"]["silence"]["left"]


class TestCircle:
    def test_gateways_that_lead_to_each_other(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        context = Context(Workspace(tmp_path, tmp_path), {"TEST_API_KEY": KEY})

        def leading_to(url: str) -> LLMConfig:
            tree = setup(url).model_dump()
            tree["models"] = {"m": {"provider": "mock", "id": "agentlab"}}
            return LLMConfig.model_validate({**tree, "roles": {"primary": ["m"]}}, context={"env": {}})

        config_to_second = leading_to(f"http://127.0.0.1:{port}/v1")
        with (
            in_thread(config_to_second, GatewaySettings(port=0), context) as first,
            in_thread(leading_to(first), GatewaySettings(port=port), context),
            OpenAI(base_url=first, api_key="none", max_retries=0) as client,
            pytest.raises(openai.InternalServerError, match="its models form a loop"),
        ):
            client.chat.completions.create(model="agentlab", messages=ASK)


class TestProcess:
    """`agentlab serve` as typed."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator:
        running: list[subprocess.Popen[str]] = []

        def run(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "agentlab", "serve", *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.append(process)
            return process

        yield run
        for process in running:
            process.kill()
            process.communicate()

    @staticmethod
    def url(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip().removeprefix("Listening at ")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_cleanly_after_what_is_in_flight(self, start, mock, tmp_path, number):
        (tmp_path / "slow.yaml").write_text(
            f"providers: {{mock: {{kind: openai_compat, base_url: '{mock.url}'}}}}\n"
            "models: {slow: {provider: mock, id: ok-n10-itl100}}\n"
            "roles: {primary: [slow]}\n"
        )
        process = start("slow.yaml", "--port", "0")
        with OpenAI(base_url=self.url(process), api_key="none") as client:
            stream = client.chat.completions.create(model="slow", messages=ASK, stream=True)
            text = [next(stream).choices[0].delta.content]
            process.send_signal(number)
            text += [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "".join(text) == "0 1 2 3 4 5 6 7 8 9"
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "stopping" in err
        assert "Traceback" not in err

    def test_a_second_signal_leaves_at_once(self, start, mock, tmp_path):
        (tmp_path / "stuck.yaml").write_text(
            "providers: {p: {kind: scripted, mode: stuck}}\nmodels: {m: {provider: p, id: x}}\nroles: {primary: [m]}\n"
        )
        process = start("stuck.yaml", "--port", "0")
        with (
            OpenAI(base_url=self.url(process), api_key="none", max_retries=0, timeout=30) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            pending = pool.submit(client.chat.completions.create, model="m", messages=ASK)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert process.poll() is None  # it waits for the answer
            process.send_signal(signal.SIGINT)
            assert isinstance(pending.exception(5), openai.OpenAIError)
        process.communicate(timeout=5)
        assert process.returncode == 0

    def test_what_happens_is_said_without_secrets(self, start, mock, tmp_path):
        (tmp_path / "one.yaml").write_text(
            f"providers: {{mock: {{kind: openai_compat, base_url: '{mock.url}', api_key: '${{TEST_API_KEY}}'}}}}\n"
            "models: {m: {provider: mock, id: '401'}, n: {provider: mock, id: '403'}}\n"
            "roles: {primary: [m], fallback: [n]}\n"
        )
        process = start("one.yaml", "--port", "0", "--debug", env={"TEST_API_KEY": KEY, TOKEN: SECRET})
        with OpenAI(base_url=self.url(process), api_key=SECRET, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError):  # the provider's 401 is not the client's
                client.chat.completions.create(model="agentlab", messages=ASK)
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model="agentlab/best-of-two", messages=ASK)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert "asking m (401)" in err
        assert "comparing answers needs" in err
        assert not any(secret in text for secret in (KEY, SECRET) for text in (out, err))
        assert not any(
            secret.encode() in file.read_bytes()
            for secret in (KEY, SECRET)
            for file in tmp_path.rglob("*")
            if file.is_file()
        )

    def test_a_port_in_use(self, start):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = start("scripted", "--port", str(listener.getsockname()[1]))
            _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert "in use" in err
        assert "--port 0" in err

    def test_others_need_a_token(self, start):
        process = start("scripted", "--host", "0.0.0.0", "--port", "0")
        _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert TOKEN in err

    def test_one_document_for_a_program(self, start):
        process = start("scripted", "--port", "0", "--json")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert '"url": "http://127.0.0.1:' in line
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
