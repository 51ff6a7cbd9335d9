"""`llm:` with a scripted model, and what it says where it calls tools."""

import json
from typing import Any


def llm(tier: str = "full", **script: Any) -> dict[str, Any]:
    """One model of that tier, without retries; `script` as in the config."""
    return {
        "providers": {"script": {"kind": "scripted", **script}},
        "models": {"m": {"provider": "script", "id": "m", "tier": tier}},
        "roles": {"primary": ["m"]},
        "ledger": {"enabled": False},
        "defaults": {"retries": 0, "timeout": {"first_token": 0.1}},
    }


def calls(*steps: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A script that calls these tools, in turn."""
    return {"mode": "replies", "replies": [json.dumps({"tool": tool, "arguments": inputs}) for tool, inputs in steps]}
