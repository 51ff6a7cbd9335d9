"""The manager over a real server: answers, not exceptions; from any loop; with the published layout of its file."""

import asyncio
import subprocess
import sys

import pytest
import yaml

from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.ledger.statistics import read_statistics
from agentlab.llm.manager import LLMManager
from tests.unit.bench.mock.running import in_thread


@pytest.fixture(scope="module")
def server():
    with in_thread() as running:
        yield running


@pytest.fixture
def make(server, workspace):
    """A manager whose models have these scripts: `make(primary=["a/ok"], fallback=["b/ok"])`."""
    managers = []

    def manager(**roles):
        tree = {
            "llm": {"default_provider": "mock", "timeout": 10, "retry_attempts": 0, "model_roles": roles},
            "providers": {"mock": {"base_url": server.url, "models": None}},
        }
        (workspace / "llm_settings.yaml").write_text(yaml.safe_dump(tree))
        managers.append(LLMManager(workspace / "llm_settings.yaml"))
        return managers[-1]

    yield manager
    for open_manager in managers:
        open_manager.close()


def ask(manager, **options):
    return asyncio.run(manager.generate_response("hello", **options))


def test_an_answer_and_who_gave_it(make):
    response = ask(make(primary=["x/ok-n3"]))
    assert (response.success, response.content, response.error) == (True, "0 1 2", None)
    assert response.model_name == "x/ok-n3"
    assert 0 < response.response_time < 10


def test_models_that_fail_are_replaced_and_counted(make):
    manager = make(primary=["a/500"], duplicate=["b/429"], reserve=["c/401"], fallback=["d/ok-n1"])
    assert ask(manager).model_name == "d/ok-n1"
    counts = {name: (tally.success_count, dict(tally.errors)) for name, tally in manager.statistics().items()}
    assert counts == {
        "a/500": (0, {"ServerFaultError": 1}),
        "b/429": (0, {"RateLimitedError": 1}),
        "c/401": (0, {"AuthError": 1}),
        "d/ok-n1": (1, {}),
    }


def test_when_all_fail_the_response_says_so_and_nothing_is_raised(make):
    response = ask(make(primary=["e/500"], fallback=["f/404"]))
    assert (response.success, response.content, response.model_name) == (False, "", "")
    assert "the first error" in response.error


def test_a_missing_key_is_no_exception_either(workspace):
    tree = {"llm": {"default_provider": "openrouter", "default_model": "v/x"}}
    (workspace / "keyless.yaml").write_text(yaml.safe_dump(tree))
    with LLMManager("keyless.yaml") as manager:
        response = ask(manager)
    assert not response.success
    assert "OPENROUTER_API_KEY" in response.error


def test_the_fastest_is_the_primary_that_answered_quickest(make):
    manager = make(primary=["g/ok-ttft150", "h/ok"], fallback=["i/ok"])
    assert manager.get_fastest_model() is None
    for _ in range(4):  # each primary is tried, then the quicker one is preferred
        ask(manager)
    fastest = manager.get_fastest_model()
    assert fastest.name == "h/ok"
    assert fastest.success_count >= 1
    assert fastest.last_response_time < 0.15
    assert manager.statistics()["i/ok"].success_count == 0


def test_without_it_the_order_of_the_file_holds(make):
    manager = make(primary=["j/ok-ttft100", "k/ok"])
    assert {ask(manager, use_fastest=False).model_name for _ in range(3)} == {"j/ok-ttft100"}


def test_in_parallel_two_primaries_answer_and_a_duplicate_judges(make):
    manager = make(primary=["l/ok-n3", "m/ok-n5"], duplicate=["n/ok"])
    response = ask(manager, use_parallel=True)
    assert response.success
    counts = {name: tally.success_count for name, tally in manager.statistics().items()}
    assert (counts["l/ok-n3"], counts["m/ok-n5"]) == (1, 1)
    assert counts["n/ok"] >= 2  # asked in both orders


def test_one_manager_serves_many_calls_at_once_and_many_loops(make):
    manager = make(primary=["o/ok-n1"])

    async def many():
        return await asyncio.gather(*(manager.generate_response(f"{i}") for i in range(8)))

    for _ in range(3):
        assert all(response.success for response in asyncio.run(many()))
    assert manager.statistics()["o/ok-n1"].success_count == 24


def test_what_was_learnt_is_there_for_the_next_process(make, workspace):
    manager = make(primary=["p/ok-n1"])
    ask(manager)
    manager.close()
    assert make(primary=["p/ok-n1"]).router.arm("chat", "p/ok-n1").successes > 0.9


def test_as_a_context_manager_of_an_application(make):
    async def application():
        async with make(primary=["q/ok-n1"]) as manager:
            return await manager.generate_response("hello")

    assert asyncio.run(application()).success


def test_without_a_path_the_embedded_model_is_meant(workspace):
    with LLMManager() as manager:
        assert manager.config.candidates("chat") == ("embedded",)


def test_a_wrong_file_is_refused_before_anything_is_asked(workspace):
    with pytest.raises(UnknownNameError, match="no-such-preset"):
        LLMManager("no-such-preset")
    (workspace / "wrong.yaml").write_text("llm: {default_provider: openrouter, default_modl: x}\n")
    with pytest.raises(ConfigError, match=r"llm.default_modl: unknown key; did you mean default_model\?"):
        LLMManager("wrong.yaml")


def test_a_program_that_never_closes_it_ends_cleanly_and_forgets_nothing(server, workspace):
    tree = {
        "llm": {"default_provider": "mock", "default_model": "r/ok"},
        "providers": {"mock": {"base_url": server.url}},
    }
    (workspace / "a.yaml").write_text(yaml.safe_dump(tree))
    program = (
        "import asyncio; from agentlab.llm.manager import LLMManager; "
        "print(asyncio.run(LLMManager('a.yaml').generate_response('hello')).success)"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("True\n", 0)
    assert "ResourceWarning" not in done.stderr
    (model,) = read_statistics(workspace / ".agentlab" / "llm.sqlite").models
    assert (model.model, model.answered) == ("r/ok", 1)
