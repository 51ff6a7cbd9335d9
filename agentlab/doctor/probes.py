"""Looks that load a heavy library. Each runs in a process of its own: a broken build can end the process.

`python -m agentlab.doctor.probes NAME` prints one JSON object as its last line.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agentlab
from agentlab import machine

_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe saw, or why it saw nothing."""

    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def ask(name: str) -> Found:
    """Run a probe in a new process and wait for it; whatever goes wrong becomes `error`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agentlab.doctor.probes", name],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            env=machine.inherited_environment(),
            cwd=Path(agentlab.__file__).parent.parent,  # -m puts this folder first on the path
        )
    except subprocess.TimeoutExpired:
        return Found(error=f"no answer within {_SECONDS:.0f} seconds")
    return understand(done.returncode, done.stdout, done.stderr)


def understand(status: int, out: bytes, log: bytes) -> Found:
    """What a probe's process said. Libraries print too, so only the last line counts."""
    if status < 0:
        return Found(error=f"the process crashed while loading it (signal {-status})")
    if status > 0:
        lines = log[-4000:].decode(errors="replace").strip().splitlines()
        return Found(error=(lines[-1] if lines else f"exit status {status}")[:200])
    try:
        values = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Found(error="the probe gave no usable answer")
    return Found(values=values) if isinstance(values, dict) else Found(error="the probe gave no usable answer")


def _hardware() -> dict[str, Any]:
    return machine.describe().as_dict()


def _llama_cpp() -> dict[str, Any]:
    import llama_cpp

    return {
        "version": llama_cpp.__version__,
        "gpu_offload": bool(llama_cpp.llama_supports_gpu_offload()),
        "features": llama_cpp.llama_print_system_info().decode(errors="replace").strip(" |"),
    }


def _bitsandbytes() -> dict[str, Any]:
    """Whether a 4-bit round trip works on the best device, not just the import."""
    import bitsandbytes
    import torch

    from agentlab import machine

    device = machine.device()
    weights = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
    packed, state = bitsandbytes.functional.quantize_4bit(weights, quant_type="nf4")
    error = (bitsandbytes.functional.dequantize_4bit(packed, state) - weights).abs().max().item()
    return {"version": bitsandbytes.__version__, "device": device, "error": float(error)}


_PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "hardware": _hardware,
    "llama_cpp": _llama_cpp,
    "bitsandbytes": _bitsandbytes,
}

if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_PROBES[sys.argv[1]]()) + "\n")
