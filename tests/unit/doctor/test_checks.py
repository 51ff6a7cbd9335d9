"""What a finding means."""

import pytest

from agentlab.doctor import checks
from agentlab.doctor.probes import Found

CPU = Found({"device": "cpu", "cores": 2, "processor": "a CPU", "bf16": False})
CUDA = Found({"device": "cuda", "device_name": "a GPU", "device_memory_bytes": 24 * 10**9})
BROKEN = Found(error="ImportError: libcudart.so.12: cannot open shared object file")


def test_an_old_python_is_missing() -> None:
    assert checks.python((3, 11, 0)).status == "ok"
    assert checks.python((3, 10, 9)).status == "missing"


def test_an_absent_library_is_named_with_the_command_that_brings_it() -> None:
    row = checks.libraries({"torch": "2.13", "peft": None})
    assert (row.status, row.remedy) == ("missing", "pip install peft")
    assert checks.libraries({"torch": "2.13"}).status == "ok"


def test_a_checkout_that_is_not_installed_is_only_a_warning() -> None:
    row = checks.libraries({"agentlab-toolkit": None, "torch": "2.13"})
    assert row.status == "warn"
    assert "make setup" in (row.remedy or "")


def test_the_remedy_never_installs_us_from_the_package_index() -> None:
    row = checks.libraries({"agentlab-toolkit": None, "peft": None, "trl": None})
    assert (row.status, row.remedy) == ("missing", "pip install peft trl")


@pytest.mark.parametrize("free", [0, 10**8, 10**9, 10**11])
def test_memory_and_disk_have_three_levels(free: int) -> None:
    order = ["missing", "warn", "ok"]
    for check in (lambda value: checks.memory(2 * value + 1, value), checks.disk):
        assert order.index(check(free).status) <= order.index(check(free * 10).status)
        assert check(0).status == "missing"
        assert check(10**11).status == "ok"


def test_a_gpu_is_welcome_and_never_needed() -> None:
    assert checks.gpu(CPU).status == "warn"
    assert "a GPU, 24 GB" in checks.gpu(CUDA).detail


def test_llama_cpp_without_offload_beside_a_gpu_has_a_rebuild_command() -> None:
    row = checks.gpu_offload(Found({"gpu_offload": False}), CUDA)
    assert row.status == "warn"
    assert row.remedy
    assert 'CMAKE_ARGS="-DGGML_CUDA=on"' in row.remedy
    assert "--no-binary llama-cpp-python" in row.remedy
    assert checks.gpu_offload(Found({"gpu_offload": True}), CUDA).status == "ok"


def test_a_library_that_cannot_be_loaded_is_a_row_and_says_why() -> None:
    for row in (
        checks.torch(BROKEN),
        checks.llama_cpp(BROKEN),
        checks.bitsandbytes(BROKEN),
        checks.gpu_offload(BROKEN, CPU),
    ):
        assert row.status == "missing"
        assert row.remedy
    assert "libcudart" in checks.llama_cpp(BROKEN).detail
    assert checks.gpu(BROKEN).status == "warn"


@pytest.mark.parametrize(("error", "status"), [(0.15, "ok"), (0.9, "missing"), (float("nan"), "missing")])
def test_4_bit_weights_that_come_back_wrong_are_not_support(error: float, status: str) -> None:
    assert checks.bitsandbytes(Found({"version": "0.50.2", "device": "cpu", "error": error})).status == status


def test_keys_are_told_by_name_and_never_by_value() -> None:
    row = checks.keys({"OPENAI_API_KEY": "sk-planted-secret", "OPENROUTER_API_KEY": ""})
    assert (row.status, row.detail) == ("ok", "OPENAI_API_KEY")
    assert "planted" not in row.model_dump_json()
    assert checks.keys({}).status == "warn"


def test_a_folder_that_cannot_be_written_is_missing() -> None:
    row = checks.folders({"models": None, "runs": "/x: Read-only file system"})
    assert row.status == "missing"
    assert "runs: /x: Read-only" in row.detail
    assert checks.folders({"models": None}).status == "ok"


def test_the_model_is_there_broken_or_absent() -> None:
    assert checks.model("m", "/models/m.gguf", None).status == "ok"
    for row in (checks.model("m", None, None), checks.model("m", "/models/m.gguf", "wrong size")):
        assert (row.status, row.remedy) == ("missing", "agentlab models pull m")


def test_the_engine_says_which_settings_it_has_and_why_not_others() -> None:
    used = {"nas and llm": "repacked weights", "pipeline": "repacked weights and flash attention"}
    row = checks.engine("m", used, {}, None)
    assert (row.status, row.remedy) == ("ok", None)
    assert "pipeline with repacked weights and flash attention" in row.detail
    row = checks.engine("m", {"nas and llm": "plain settings"}, {"repacked weights": "it dies (SIGILL)"}, None)
    assert row.status == "warn"
    assert "nas and llm with plain settings; repacked weights not used: it dies (SIGILL)" in row.detail
    for remedy in (row.remedy, checks.engine("m", {}, {}, "it died (SIGILL)").remedy):
        assert "CMAKE_ARGS=-DGGML_NATIVE=off" in (remedy or "")
    assert checks.engine(None, {}, {}, None).status == "missing"
