"""What `agentlab adapters blend` and `export` answer: a new file or folder, and how it is used."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from agentlab.lora.exporting import plan_serving
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import Blended
from agentlab.runs.document import AnswerDocument, Block, Code, Table, Text

_WORST = 5  # modules that are shown


class BlendResult(AnswerDocument):
    """A child, and the share of its energy that fitted into its rank."""

    name: str
    path: str
    parents: list[str]
    method: str
    weights: list[float]
    rank: int
    density: float | None
    seed: int
    kept: float
    modules: dict[str, float]

    @classmethod
    def of(cls, parents: Sequence[Adapter], blended: Blended) -> "BlendResult":
        recipe = blended.recipe
        return cls(
            name=blended.path.name,
            path=str(blended.path),
            parents=[str(parent.path) for parent in parents],
            method=recipe.method,
            weights=list(recipe.weights),
            rank=recipe.rank,
            density=recipe.density,
            seed=recipe.seed,
            kept=blended.kept,
            modules=blended.modules,
        )

    def blocks(self) -> list[Block]:
        worst = sorted(self.modules.items(), key=lambda pair: pair[1])[:_WORST]
        rows = [("all", f"{self.kept:.2%}"), *((name, f"{share:.2%}") for name, share in worst if share < self.kept)]
        blocks: list[Block] = [Code(self.path), Table(("module", f"energy kept at rank {self.rank}"), rows)]
        if self.density is not None:
            blocks.append(Text(f"Children made by {self.method} are not low-rank, so the missing energy is lost."))
        return blocks


class ExportResult(AnswerDocument):
    """A copy for other programs."""

    path: str
    format: str
    bytes: int
    usage: list[str]
    remarks: list[str]

    @classmethod
    def of_gguf(cls, path: Path) -> "ExportResult":
        usage = [shlex.join(["llama-cli", "-m", "BASE.gguf", "--lora", str(path)])]
        usage.append(f"llama_cpp.Llama('BASE.gguf', lora_path={str(path)!r})")
        return cls(path=str(path), format="gguf", bytes=path.stat().st_size, usage=usage, remarks=[])

    @classmethod
    def of_peft(cls, adapter: Adapter) -> "ExportResult":
        plan = plan_serving({adapter.path.name: adapter})
        usage = [shlex.join(["vllm", "serve", adapter.settings.base[0] or "BASE", *plan.flags])]
        usage.append(f"peft.PeftModel.from_pretrained(base, {str(adapter.path)!r})")
        size = sum(part.stat().st_size for part in adapter.path.iterdir())
        return cls(path=str(adapter.path), format="peft", bytes=size, usage=usage, remarks=list(plan.problems))

    def blocks(self) -> list[Block]:
        usage = [Code(f"  {line}") for line in self.usage]
        return [Code(self.path), *usage, *(Text(f"Warning: {remark}") for remark in self.remarks)]
