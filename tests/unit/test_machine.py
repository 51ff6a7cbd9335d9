"""How many threads: a config's key, the variable, the cores, in this order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentlab import machine

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_the_key_comes_before_the_variable_and_that_before_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.threads() == 8
    assert machine.threads(workers=2) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    assert machine.threads() == 12
    assert machine.threads(workers=5) == 2
    assert machine.threads(workers=99) == 1
    assert machine.threads(3, workers=99) == 3


def test_processes_of_a_launch_share_the_cores_and_each_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert machine.threads() == 6


@pytest.mark.parametrize(
    ("text", "count"), [("3,2", 3), (" 5 ", 5), ("0", 8), ("-1", 8), ("", 8), ("all", 8), ("9" * 5000, 8), ("²", 8)]
)
def test_what_a_variable_may_hold(monkeypatch: pytest.MonkeyPatch, text: str, count: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert machine.threads() == count


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux: a process is bound to a core")
def test_the_affinity_bounds_whatever_library_a_command_loads() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    code = (
        "import os, sys; sys.argv[1:] = ['--version']; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from agentlab import __main__; __main__.main(); print(os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "1", done.stderr


def test_torch_has_its_threads_again_afterwards() -> None:
    import torch

    def fail() -> None:
        raise KeyError(torch.get_num_threads())

    before = torch.get_num_threads()
    with pytest.raises(KeyError, match=str(before + 1)), machine.torch_threads(before + 1):
        fail()
    assert torch.get_num_threads() == before


def test_a_worker_inherits_variables_by_a_list_of_names() -> None:
    inherited = {"PATH": "/bin", "HOME": "/home/x", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "HF_HOME": "/hf"}
    secret = {"OPENAI_API_KEY": "k", "HF_TOKEN": "k", "NVIDIA_API_KEY": "k", "TORCH_API_KEY": "k", "PGPASSWORD": "k"}
    pip = {"PIP_INDEX_URL": "https://u:p@index", "https_proxy": "http://u:p@proxy"}
    assert machine.inherited_environment({**inherited, **secret, **pip}) == inherited
    assert machine.inherited_environment({**inherited, **secret, **pip}, pip=True) == {**inherited, **pip}
