"""What keeps a connection from being set up at all is a typed error, so that a study can fall back."""

import asyncio
from pathlib import Path

import pytest

from agentlab.errors import LLMConnectionError
from agentlab.llm.config import Timeout
from agentlab.llm.transport import Transport


def post(base_url: str) -> None:
    async def run() -> None:
        transport = Transport(base_url, Timeout(), {})
        try:
            async with transport.post("/chat/completions", {}):
                pass
        finally:
            await transport.close()

    asyncio.run(run())


def test_unreadable_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    with pytest.raises(LLMConnectionError, match="set up"):
        post("https://127.0.0.1:9/v1")
