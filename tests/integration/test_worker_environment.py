"""What stands in the environment of real workers: they parse strangers' files, and see no key of any name."""

import psutil
import pytest

from agentlab.gguf.dry_run import _MODULE as DRY_RUN
from agentlab.workers import templates
from agentlab.workers.channel import Channel

CANARY = "canary-9f3b1c77"
SECRETS = (
    *("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MNEMONIC", "SMTP_PW", "DATABASE_URL", "MY_LITTLE_SECRET"),
    *("NVIDIA_API_KEY", "LLAMA_CLOUD_API_KEY", "TRANSFORMERS_TOKEN", "GITHUB_TOKEN", "PIP_INDEX_URL", "HTTPS_PROXY"),
    *("AGENTLAB_SERVE_TOKEN", "SSH_AUTH_SOCK"),
)
WORKERS = (
    *("agentlab.gguf.worker", "agentlab.gguf.trusted_settings", DRY_RUN, "agentlab.hf.worker", "agentlab.study.worker"),
    *("agentlab.compress.processes", "agentlab.compress.export_check", templates.__name__),
)


@pytest.mark.parametrize("module", WORKERS)
def test_no_secret_stands_in_the_environment_of_a_worker(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    channel = Channel(module, {"OMP_NUM_THREADS": "1"})
    try:
        environment: dict[str, str] = {}
        while not environment:  # the kernel is still starting it
            assert channel.alive()
            environment = psutil.Process(channel.pid).environ()
    finally:
        channel.kill()
        channel.dispose()
    assert CANARY not in str(environment)
    assert {"PATH", "HOME"} <= set(environment)
    assert (environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]) == ("1", "0")
