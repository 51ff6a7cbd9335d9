"""Whether vLLM will serve some adapters, and the flags that make it do so. Pure.

vLLM knows one rank and one scale per adapter, ranks up to one of a few sizes, and linear layers only; by default it
holds one adapter of rank 16 (vllm/config/lora.py, vllm/lora/peft_helper.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agentlab.lora.reading import Adapter

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
_REWRITE = "write it again with `agentlab adapters export`, which gives every module one rank and scale"


@dataclass(frozen=True, slots=True)
class ServePlan:
    """Flags for `vllm serve BASE`, and one sentence per reason why they would not do."""

    flags: tuple[str, ...]
    problems: tuple[str, ...]


def plan_serving(adapters: Mapping[str, Adapter]) -> ServePlan:
    """The exact flags to serve adapters by these names, and what stands against it.

    The names should change with the content: vLLM keeps cached prefixes of an adapter that was loaded under the same
    name before.
    """
    problems = [problem for name, adapter in adapters.items() for problem in _problems(name, adapter)]
    bases = {adapter.settings.base for adapter in adapters.values()}
    if len(bases) > 1:
        problems.append(f"One server has one base model; these adapters have {len(bases)}.")
    largest = max((_rank(adapter) for adapter in adapters.values()), default=1)
    room = next((rank for rank in RANKS if rank >= largest), RANKS[-1])
    modules = tuple(f"{name}={adapter.path.resolve()}" for name, adapter in adapters.items())
    flags = ("--enable-lora", "--max-loras", str(len(adapters)), "--max-lora-rank", str(room))
    return ServePlan((*flags, "--lora-modules", *modules), tuple(problems))


def _rank(adapter: Adapter) -> int:
    return max(adapter.settings.r, *(module.rank for module in adapter.modules.values()))


def _problems(name: str, adapter: Adapter) -> list[str]:
    found = []
    if "=" in name or any(character.isspace() for character in name):
        found.append(f"{name!r} cannot be a name in --lora-modules: no spaces and no =.")
    if _rank(adapter) > RANKS[-1]:
        found.append(f"{name} has rank {_rank(adapter)}; vLLM takes {RANKS[-1]} at most: truncate it.")
    scales = {module.scale for module in adapter.modules.values()}
    if scales != {adapter.settings.scale(adapter.settings.r, adapter.settings.lora_alpha)}:
        found.append(f"{name} has modules of different rank or alpha, and vLLM would scale them alike: {_REWRITE}.")
    if adapter.settings.fan_in_fan_out:
        found.append(f"{name} is for transposed layers (fan_in_fan_out), which vLLM does not look at.")
    outside = [each for each in adapter.modules if not any(part.isdecimal() for part in each.split("."))]
    if outside:
        found.append(f"{name} changes {outside[0]}, outside the model's layers; vLLM may not load that.")
    return found
