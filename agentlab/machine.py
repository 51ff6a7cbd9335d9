"""The only place that asks the hardware: cores, memory, device, dtype, threads.

Nothing here may decide what an experiment computes. It says where it runs; results of it go into the manifest.
"""

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda", "mps"]
_VARIABLE = "OMP_NUM_THREADS"  # what OpenMP, torch, NumPy and every launcher understand


def cores() -> int:
    """CPU cores this process may use: the affinity mask, further limited by a cgroup v2 quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            count = min(count, max(1, int(limit) // int(period)))
    return count


def threads(given: int | None = None, *, workers: int = 1) -> int:
    """Threads of one process, for whatever computes in it: the one place that decides.

    More threads than free cores are ruinous for small models, so the cores are shared: with the processes that a
    launcher has started here (LOCAL_WORLD_SIZE), and with `workers`: processes of this one that compute at the same
    time, maybe itself among them. What the config has `given` is taken as it is; else OMP_NUM_THREADS is shared, or
    else the cores.
    """
    launched = _count("LOCAL_WORLD_SIZE") or 1
    return given or max(1, (_count(_VARIABLE) or cores() // launched) // workers)


def _count(variable: str) -> int | None:
    """A positive number in the environment; of a list of nested levels, as OpenMP knows it, the first."""
    text = os.environ.get(variable, "").partition(",")[0].strip()
    return int(text) or None if text.isdecimal() and len(text) <= 4 else None


def worker_environment(thread_count: int) -> dict[str, str]:
    """Variables for a worker process: fixed threads, and waiting threads that give their core away."""
    return {_VARIABLE: str(thread_count), "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}


# What a process of ours needs of this one's environment. Keys, tokens and passwords of whatever name are not among it:
# workers parse strangers' files in native code.
_INHERITED = (
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TZ|TERM|LANG|LANGUAGE|LC_[A-Z]+|TMPDIR|TEMP|TMP|VIRTUAL_ENV|CONDA_PREFIX"
    r"|SYSTEMROOT|COMSPEC|WINDIR|PATHEXT|APPDATA|LOCALAPPDATA|USERPROFILE|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_LIBRARY_PATH"
    r"|XDG_(CACHE|CONFIG|DATA|RUNTIME)_(HOME|DIR)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PYTHON[A-Z0-9]*|COVERAGE_[A-Z_]+|MALLOC_[A-Z_]+|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|TF32_OVERRIDE)"
    r"|(CUDA|CUDNN|CUBLAS|NCCL|HIP|HSA|ROCM|ROCR|OMP|KMP|GOMP|MKL|OPENBLAS|BLIS|NUMEXPR|GGML|BNB|BITSANDBYTES)_[A-Z0-9_]+"
    r"|(PYTORCH|TORCH|TORCHINDUCTOR|TRITON|ONEDNN|DNNL|TOKENIZERS|TRANSFORMERS)_(?!.*(KEY|TOKEN|SECRET))[A-Z0-9_]+"
    r"|(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|HF_HOME|HF_ENDPOINT|HF_HUB_(CACHE|OFFLINE|(DISABLE|ENABLE)_[A-Z_]+)"
    r"|AGENTLAB_(HOME|CACHE|TRUST|EXPAND)|NO_COLOR"
)

# pip reaches its index by these; an address among them may hold a password, which is for pip.
_INHERITED_BY_PIP = r"(?i:PIP_[A-Z_]+|NETRC|(https?|all|no)_proxy)"


def inherited_environment(environment: Mapping[str, str] = os.environ, *, pip: bool = False) -> dict[str, str]:
    """The variables that a process of ours may see, by a list of names; more of them where it is `pip`."""
    allowed = re.compile(f"{_INHERITED}|{_INHERITED_BY_PIP}" if pip else _INHERITED, re.ASCII)
    return {name: value for name, value in environment.items() if allowed.fullmatch(name)}


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the `with` block. They change the last bits of sums."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory."""

    total: int
    available: int


def memory() -> Memory:
    """Main memory, limited by a cgroup v2 limit where there is one."""
    import psutil

    seen = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = min(int(seen.total), int(text)) if text != "max" else int(seen.total)
    return Memory(total=total, available=min(int(seen.available), total))


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the machine offers, for `doctor` and the manifest."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    device: Device
    device_name: str
    device_memory_bytes: int | None
    bf16: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _has_gpu() -> bool:
    """Whether this machine may have a GPU that torch can use; asked first, because importing torch takes a second."""
    if sys.platform != "linux":
        return True
    return any(next(Path("/dev").glob(pattern), None) for pattern in ("nvidia[0-9]*", "kfd", "dxg"))


def gpu_memory() -> int:
    """Bytes of the first GPU's memory, 0 without one."""
    if device() != "cuda":
        return 0
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def free_bytes(device: Device) -> int:
    """Bytes of its memory that nobody uses."""
    if device != "cuda":
        return memory().available
    import torch

    return int(torch.cuda.mem_get_info()[0])


def device() -> Device:
    """The best torch device of this machine."""
    if not _has_gpu():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe() -> Hardware:
    """Ask everything once. Imports torch where there may be a GPU."""
    import platform  # every command imports this module, and few ask this

    kind = device()
    name, device_memory, bf16 = platform.processor() or platform.machine(), None, _cpu_has_bf16()
    if kind == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        name, device_memory, bf16 = properties.name, int(properties.total_memory), torch.cuda.is_bf16_supported()
    return Hardware(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor_name(),
        cores=cores(),
        memory_bytes=memory().total,
        device=kind,
        device_name=name,
        device_memory_bytes=device_memory,
        bf16=bf16,
    )


def _cpu_flags() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return {}
    fields = (line.partition(":") for line in info.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): text.strip() for name, _, text in fields}


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; torch computes it everywhere, only slower."""
    flags = _cpu_flags().get("flags", "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def processor() -> str:
    """The processor's name with a digest of what it can do, such as "AMD EPYC 3f2a9c01": what decides its kernels."""
    return f"{_processor_name()} {hashlib.sha256(_cpu_flags().get('flags', '').encode()).hexdigest()[:8]}"


def _processor_name() -> str:
    import platform

    return _cpu_flags().get("model name") or platform.processor() or platform.machine()
