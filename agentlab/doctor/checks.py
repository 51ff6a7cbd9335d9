"""What a finding means: from plain values to rows. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agentlab.doctor.probes import Found
from agentlab.errors import MissingError, UnknownNameError
from agentlab.gguf.worker_errors import REBUILD
from agentlab.runs.document import AnswerDocument, Block, Table, Text

PYTHON = (3, 11)
KEYS = ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
OURSELVES = "agentlab-toolkit"  # absent in a checkout that is not installed
# Distributions whose absence breaks a command.
LIBRARIES = (
    OURSELVES,
    "torch",
    "transformers",
    "peft",
    "trl",
    "safetensors",
    "llama-cpp-python",
    "bitsandbytes",
    "optuna",
    "pydantic",
)
_ENOUGH_MEMORY, _LITTLE_MEMORY = 2 << 30, 1 << 29
_ENOUGH_DISK, _LITTLE_DISK = 3 << 30, 400 << 20
# The largest step between NF4 levels on [-1, 1] is 0.30, so a sound round trip is off by at most half of it.
_NF4_ERROR = 0.16
_REBUILD_LLAMA = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
# Takes as long as the first install. Nothing needs it: what was found out is remembered, and answers are right.
_FASTER = f"Answers are correct but slower. A generic build may make better use of this processor: {REBUILD}"
Status = Literal["ok", "warn", "missing"]


class DoctorRow(BaseModel):
    """One thing that was looked at. `remedy` says how to put it right, None when there is nothing to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def _row(name: str, status: Status, detail: str, remedy: str | None = None) -> DoctorRow:
    return DoctorRow(name=name, status=status, detail=detail, remedy=remedy)


class DoctorReport(AnswerDocument):
    """All rows, in the order of the examination."""

    rows: list[DoctorRow]

    def blocks(self) -> list[Block]:
        """A table, then the remedies, each in full so that a command can be copied."""
        table = Table(("what", "status", "found"), [(row.name, row.status, row.detail) for row in self.rows])
        return [table, *(Text(f"{row.name}: {row.remedy}") for row in self.rows if row.status != "ok" and row.remedy)]

    def require(self, names: Sequence[str]) -> None:
        """Insist on some rows.

        Raises:
            UnknownNameError: there is no row of that name.
            MissingError: one of them is not ok.
        """
        by_name = {row.name: row for row in self.rows}
        for name in names:
            if name not in by_name:
                raise UnknownNameError("doctor row", name, list(by_name))
        failed = [by_name[name] for name in names if by_name[name].status != "ok"]
        if failed:
            details = "; ".join(f"{row.name}: {row.detail}" for row in failed)
            raise MissingError(f"Required but missing: {details}.", hint=failed[0].remedy)


def python(version: tuple[int, int, int]) -> DoctorRow:
    """The interpreter."""
    detail = ".".join(str(part) for part in version)
    if version[:2] >= PYTHON:
        return _row("python", "ok", detail)
    return _row("python", "missing", detail, "Install Python 3.11 or newer.")


def libraries(versions: Mapping[str, str | None]) -> DoctorRow:
    """The installed distributions by name; None is not installed."""
    absent = [name for name, version in versions.items() if version is None]
    detail = ", ".join(f"{name} {version or '(absent)'}" for name, version in versions.items())
    if absent == [OURSELVES]:
        return _row("libraries", "warn", detail, "Run `make setup` in the checkout.")
    if absent:
        remedy = f"pip install {' '.join(name for name in absent if name != OURSELVES)}"
        return _row("libraries", "missing", detail, remedy)
    return _row("libraries", "ok", detail)


def memory(total: int, available: int) -> DoctorRow:
    """Main memory in bytes. The embedded model takes 0.25 GB, training it about 2 GB."""
    detail = f"{available / 1e9:.1f} of {total / 1e9:.1f} GB free"
    remedy = "Close other programs; training takes about 2 GB, the embedded model 0.25 GB."
    return _row("memory", _level(available, _ENOUGH_MEMORY, _LITTLE_MEMORY), detail, remedy)


def disk(free: int) -> DoctorRow:
    """Free bytes where models and runs go."""
    remedy = "Free some space, or set AGENTLAB_HOME to a folder on another disk."
    return _row("disk", _level(free, _ENOUGH_DISK, _LITTLE_DISK), f"{free / 1e9:.1f} GB free", remedy)


def torch(finding: Found) -> DoctorRow:
    """Whether torch loads, and where it computes."""
    if finding.error:
        return _row("torch", "missing", finding.error, "pip install --force-reinstall torch")
    seen = finding.values
    bf16 = "bfloat16 in hardware" if seen.get("bf16") else "bfloat16 in software, slower than float32"
    return _row("torch", "ok", f"{seen['device']}, {seen['cores']} cores, {seen['processor']}, {bf16}")


def gpu(finding: Found) -> DoctorRow:
    """Whether there is an accelerator. Nothing needs one."""
    seen = finding.values
    if seen.get("device") in ("cuda", "mps"):
        size = seen.get("device_memory_bytes")
        detail = seen["device_name"] + (f", {size / 1e9:.0f} GB" if size else "")
        return _row("gpu", "ok", detail)
    remedy = "A GPU is optional. If the machine has a CUDA device, install a CUDA build of torch (pytorch.org)."
    return _row("gpu", "warn", "none that torch can use; everything runs on the CPU", remedy)


def llama_cpp(finding: Found) -> DoctorRow:
    """Whether llama.cpp loads."""
    if finding.error:
        return _row("llama.cpp", "missing", finding.error, _REBUILD_LLAMA)
    return _row("llama.cpp", "ok", f"{finding.values['version']}; {finding.values['features']}")


def engine(model: str | None, used: Mapping[str, str], against: Mapping[str, str], problem: str | None) -> DoctorRow:
    """Whether the embedded model answers, and with which settings.

    `used`: settings by who uses them; `against`: why settings are not used, by their name. `problem`: why it does not
    answer; None if it does.
    """
    if model is None:
        return _row("engine", "missing", "no model to test it with", "agentlab models pull")
    if problem:
        return _row("engine", "missing", f"{model} does not answer: {problem}", REBUILD)
    detail = "; ".join([f"{model} answers", *(f"{user} with {settings}" for user, settings in used.items())])
    detail += "".join(f"; {settings} not used: {reason}" for settings, reason in against.items())
    return _row("engine", "warn", detail, _FASTER) if against else _row("engine", "ok", detail)


def gpu_offload(llama: Found, hardware: Found) -> DoctorRow:
    """Whether llama.cpp uses the accelerator that torch sees."""
    remedy = f'CMAKE_ARGS="-DGGML_CUDA=on" {_REBUILD_LLAMA}'
    if llama.error:
        return _row("gpu-offload", "missing", "llama.cpp does not load", _REBUILD_LLAMA)
    if llama.values.get("gpu_offload"):
        return _row("gpu-offload", "ok", "llama.cpp was built with GPU offload")
    if hardware.values.get("device") == "cuda":
        return _row("gpu-offload", "warn", "llama.cpp was built for the CPU only", remedy)
    return _row("gpu-offload", "warn", "CPU build, which suits this machine", f"With a GPU: {remedy}")


def bitsandbytes(finding: Found) -> DoctorRow:
    """Whether 4-bit weights survive a round trip."""
    remedy = "pip install --force-reinstall 'bitsandbytes>=0.50'"
    if finding.error:
        return _row("bitsandbytes", "missing", finding.error, remedy)
    version, device, error = finding.values["version"], finding.values["device"], float(finding.values["error"])
    if not error <= _NF4_ERROR:
        detail = f"{version}: 4-bit weights come back wrong on {device} (off by {error:.2f})"
        return _row("bitsandbytes", "missing", detail, remedy)
    return _row("bitsandbytes", "ok", f"{version}, 4-bit works on {device}")


def keys(env: Mapping[str, str]) -> DoctorRow:
    """Which keys are set, by name; never their values."""
    key_names = [name for name in KEYS if env.get(name)]
    if key_names:
        return _row("keys", "ok", ", ".join(key_names))
    remedy = f"For hosted models, set one of {', '.join(KEYS)} in the environment or in the workspace's .env."
    return _row("keys", "warn", "none; the embedded model needs no key", remedy)


def folders(problems: Mapping[str, str | None]) -> DoctorRow:
    """Whether the workspace's folders can be written: folder -> what is wrong, None when nothing is."""
    wrong = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if wrong:
        remedy = "Make them writable, or set AGENTLAB_HOME to another folder."
        return _row("folders", "missing", "; ".join(wrong), remedy)
    return _row("folders", "ok", f"{', '.join(problems)} are writable")


def model(name: str, path: str | None, problem: str | None) -> DoctorRow:
    """The embedded model: where it lies, and what is wrong with it."""
    remedy = f"agentlab models pull {name}"
    if path is None:
        return _row("model", "missing", f"{name} is not on this machine", remedy)
    if problem:
        return _row("model", "missing", problem, remedy)
    return _row("model", "ok", f"{name}, verified, at {path}")


def _level(value: int, enough: int, little: int) -> Status:
    return "ok" if value >= enough else "warn" if value >= little else "missing"
