"""Exit statuses in words."""

import signal

import pytest

from agentlab.errors import AgentlabError, LLMTimeoutError, ModelFileError, WorkerDiedError
from agentlab.gguf.worker_errors import CAUSES, at_fault, fault, out_of_memory
from agentlab.workers.exit_status import describe


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGABRT, "check inside llama.cpp"),
        (signal.SIGSEGV, "crashed"),
        (signal.SIGILL, "another processor"),
        (signal.SIGKILL, "lack of memory"),
    ],
)
def test_a_signal_is_named_however_it_is_reported(number: signal.Signals, word: str) -> None:
    for status in (-number, 128 + number):
        cause, _ = describe(status, CAUSES)
        assert word in cause
        assert number.name in cause


def test_a_binary_for_another_processor_is_to_be_rebuilt() -> None:
    assert "--no-binary llama-cpp-python" in (describe(132, CAUSES)[1] or "")


@pytest.mark.parametrize("number", [4, 6, 7, 8, 9, 11, 15])
def test_every_death_by_a_signal_names_a_remedy(number: int) -> None:
    assert describe(-number, CAUSES)[1]


@pytest.mark.parametrize(
    ("number", "expected"), [(4, "SIGILL"), (11, "SIGSEGV"), (6, "SIGABRT"), (9, None), (15, None)]
)
def test_the_library_is_at_fault_unless_somebody_or_memory_was(number: int, expected: str | None) -> None:
    assert fault(-number, "GGML_ASSERT failed") == fault(128 + number, "") == expected
    assert fault(-number, "std::bad_alloc") is None
    message = f"The process running m died: {describe(-number, CAUSES)[0]}."
    assert at_fault(WorkerDiedError(message)) is (expected is not None)
    assert not at_fault(WorkerDiedError(f"{message}\nfailed to allocate"))


@pytest.mark.parametrize("status", [0, 1, 70, 255, -64])
def test_any_other_status_has_words_too(status: int) -> None:
    assert describe(status, CAUSES)[0]


@pytest.mark.parametrize(
    "message",
    [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate  41.96 MB)",
        "llama_model_load: error loading model: error loading model vocabulary: std::bad_alloc",
        "failed to allocate CUDA0 buffer of size 1073741824",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.0 MiB on device 0: cudaMalloc failed: out of memory",
        "CUDA error: out of memory",
        "MemoryError",
        "The process for m.gguf cannot be started: Cannot allocate memory.",
        "mmap failed: address space exhausted",
    ],
)
@pytest.mark.parametrize("kind", [ModelFileError, WorkerDiedError])
def test_want_of_memory_is_known_in_all_its_words(message: str, kind: type[AgentlabError]) -> None:
    assert out_of_memory(kind(f"llama.cpp cannot load m.gguf: {message}"))
    assert not out_of_memory(LLMTimeoutError(message))


@pytest.mark.parametrize(("number", "expected"), [(9, True), (6, True), (11, False), (15, False)])
def test_a_worker_killed_while_loading_ran_out_and_one_killed_later_did_not(number: int, expected: bool) -> None:
    cause, _ = describe(-number, CAUSES)
    assert out_of_memory(WorkerDiedError(f"The process running m died while it loaded the model: {cause}.")) is expected
    assert not out_of_memory(WorkerDiedError(f"The process running m died: {cause}."))


def test_a_damaged_file_is_not_want_of_memory() -> None:
    assert not out_of_memory(ModelFileError("llama.cpp cannot load m: tensor data is not within the file bounds"))
