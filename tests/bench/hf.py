"""The batch engine beside what it replaces and beside PEFT: answers, a step, choices, memory, and equal texts.

24 rows under 3 adapters, prompts of 20 to 400 tokens, answers of 10 to 120: the engine, the static batch that scoring
used before (`generate` on left-padded rows; what is finished goes on), and PEFT's `adapter_names` with `generate`. A
step of 24 rows beside the base's own. 20 choice items under 16 adapters, beside the same adapter by adapter with the
question read for every answer. Memory while 500 rows come and go. The embedded model, one thread; rounds alternate,
times are medians of processor time, and texts are compared first.

Usage: python tests/bench/hf.py [ROUNDS]     writes .agentlab/bench/hf.json; exit 1 where a bound is missed
"""

import copy
import importlib.metadata
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import psutil
import torch
from checkpoint import checkpoint
from transformers import DynamicCache, StoppingCriteriaList

from agentlab import machine
from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.onednn_weights import pack_weights
from agentlab.lora.rowwise import Rowwise, rowwise
from agentlab.lora.stacked import BASE
from agentlab.runs.atomic import write_json
from agentlab.tasks.generate import generate
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.conversations import ConversationTurn
from agentlab.train.masks import IGNORED, Example
from agentlab.train.scoring import Scorer

OUT = Path(".agentlab/bench/hf.json")
ROWS, ADAPTERS, MANY, RANK = 24, 3, 16, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLOSE = 1e-3  # between two logits: then rounding decides which token is said
STATIC, NAMES = "static batch", "PEFT adapter_names + generate"
Texts = list[list[int]]


def adapters_of(path: Path, place: Path, count: int) -> list[Path]:
    """Random ones, strong enough to change answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), config)
    for number in range(count):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        model.save_pretrained(str(place / str(number)))
    return [place / str(number) for number in range(count)]


def rows_of(count: int, vocabulary: int, seed: int) -> list[AnswerRow]:
    """By adapter, as static batches want them."""
    chance = random.Random(seed)
    rows = [
        AnswerRow(
            number * ADAPTERS // count,
            [chance.randrange(100, vocabulary) for _ in range(chance.randint(20, 400))],
            chance.randint(10, 120),
        )
        for number in range(count)
    ]
    rows[0].prompt, rows[1].max_tokens = [*rows[0].prompt * 20][:400], 120  # so that every draw has the same longest
    return rows


def engine(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], size: int = ROWS) -> Texts:
    """What the engine says."""
    said: dict[AnswerRow, list[int]] = {row: [] for row in rows}
    for tokens in AnswerBatch(model, adapters, ()).run(rows, size):
        for each in tokens:
            said[each.row].append(each.token)
    return list(said.values())


def generated(model: Any, rows: Sequence[AnswerRow], **keys: Any) -> Texts:
    """`generate` on a static, left-padded batch up to the longest answer."""
    longest, most = max(len(row.prompt) for row in rows), max(row.max_tokens for row in rows)
    ids = torch.tensor([[0] * (longest - len(row.prompt)) + list(row.prompt) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
    with quietly():
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False, temperature=None, top_p=None,
            top_k=None, pad_token_id=0, eos_token_id=None, **keys,
        )  # fmt: skip
    return [each[longest : longest + row.max_tokens].tolist() for each, row in zip(out, rows, strict=True)]


def static(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow]) -> Texts:
    """What scoring did before: `Scorer._generated` of 22 November 2026."""

    def go_on(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(len(ids), dtype=torch.bool)

    adapters.rows([row.adapter for row in rows])
    return generated(model, rows, stopping_criteria=StoppingCriteriaList([go_on]))


def flips(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], ours: Texts, theirs: Texts) -> tuple[int, float]:
    """How many texts differ, and the widest gap between the two likeliest logits where one first does."""
    found, widest = 0, 0.0
    for row, one, other in zip(rows, ours, theirs, strict=True):
        place = next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
        if place is not None:
            adapters.rows([row.adapter])
            best = model(torch.tensor([[*row.prompt, *one[:place]]])).logits[0, -1].topk(2).values.tolist()
            found, widest = found + 1, max(widest, best[0] - best[1])
    return found, widest


def alone(model: Any, adapters: Rowwise, row: AnswerRow) -> list[int]:
    """The decoder of one row."""
    cache, tokens, said = DynamicCache(), list(row.prompt), []
    adapters.rows([row.adapter])
    while len(said) < row.max_tokens:
        out = model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens = [int(out.logits[0, -1].argmax())]
        said += tokens
    return said


def step_of(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], past: int) -> Callable[[], float]:
    """Seconds of one more step of rows that have so many tokens, a median of eight."""
    batch = AnswerBatch(model, adapters, ())
    batch.admit([AnswerRow(row.adapter, (list(row.prompt) * 20)[:past], 10_000) for row in rows])

    def timed() -> float:
        taken = []
        for _ in range(8):
            began = time.process_time()
            batch.step()
            taken.append(time.process_time() - began)
        return statistics.median(taken)

    return timed


def base_step(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], past: int) -> Callable[[], float]:
    """The same of the base alone, as transformers does it: a `DynamicCache`, no padding."""
    adapters.rows([BASE] * len(rows))
    ids = torch.tensor([(list(row.prompt) * 20)[:past] for row in rows])
    state = {"cache": model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values}

    def timed() -> float:
        adapters.rows([BASE] * len(rows))
        taken = []
        for _ in range(8):
            began = time.process_time()
            out = model(input_ids=ids[:, -1:], past_key_values=state["cache"], use_cache=True, logits_to_keep=1)
            out.logits[:, -1].argmax(-1).tolist()
            taken.append(time.process_time() - began)
        return statistics.median(taken)

    return timed


def chosen_before(scores: Scorer, adapter: str, items: Sequence[Any]) -> list[str]:
    """`Scorer.choices` as it was: the question is read again for every answer."""
    asked = [
        (adapter, Example(0, (*ids, *after), (*[IGNORED] * len(ids), *after), 0))
        for item in items
        for ids in [scores._ids([ConversationTurn("user", item.prompt)])]
        for after in (
            scores._base.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in item.expected["among"]
        )
    ]
    known = iter(scores.logprobs(asked))
    found = [[next(known) for _ in item.expected["among"]] for item in items]
    return [item.expected["among"][each.index(max(each))] for item, each in zip(items, found, strict=True)]


def resident_over(model: Any, adapters: Rowwise, count: int) -> list[float]:
    """MiB at the end of each hundred rows that came and went."""
    chance, process, found = random.Random(5), psutil.Process(), []
    for _ in range(count // 100):
        rows = [
            AnswerRow(chance.randrange(-1, ADAPTERS), [chance.randrange(100, 9000)] * chance.randint(5, 60), 6)
            for _ in range(100)
        ]
        engine(model, adapters, rows)
        found.append(process.memory_info().rss / 2**20)
    return found


def alternated(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, and what it returned last; the order is drawn anew each time."""
    chance = random.Random(0)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for way in chance.sample(list(ways), len(ways)):
            began = time.process_time()
            found[way] = ways[way]()
            seconds[way].append(time.process_time() - began)
    return seconds, found


class Report:
    """Rows of the table, and what missed its bound."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []
        self.missed: list[str] = []

    def times(self, row: str, ours: list[float], peer: list[float], name: str, bound: float | None) -> None:
        """`bound` is how many times less ours has to take."""
        ratio = statistics.median(b / a for a, b in zip(ours, peer, strict=True))
        mine, theirs = statistics.median(ours) * 1e3, statistics.median(peer) * 1e3
        self.add(row, mine, theirs, name, "ms", ratio)
        if bound is not None and ratio < bound:
            self.missed.append(f"{row}: {ratio:.2f}x against {name}, at least {bound:g}")

    def add(self, row: str, ours: float, peer: float, name: str, unit: str, ratio: float) -> None:
        """One row, printed at once."""
        one = {"row": row, "ours": round(ours, 2), "peer": round(peer, 2), "peer_name": name, "unit": unit}
        self.rows.append({**one, "better": "lower", "ratio": round(ratio, 3)})
        print(f"{row:<44}{ours:>10.1f}{peer:>10.1f} {unit:<5}{ratio:>6.2f}x  {name}", flush=True)

    def equal(self, what: str, differ: int, count: int, gap: float | None) -> None:
        """Texts that differ; `gap` is held where it is given."""
        held = "" if gap is None else f", where the two likeliest logits are at most {gap:.1e} apart (held: {CLOSE:g})"
        print(f"{what}: {count - differ} of {count} texts are equal{held}", flush=True)
        if gap is not None and gap > CLOSE:
            self.missed.append(f"{what}: texts differ")


def answers(report: Report, base: TrainingBase, folders: list[Path], rounds: int) -> None:
    """Answers of 24 rows, in three ways."""
    from peft import PeftModel

    rows, model = rows_of(ROWS, base.model.config.vocab_size, 1), base.model
    twin = copy.deepcopy(model, {id(each): each for each in model.parameters()})
    peft: Any = PeftModel.from_pretrained(twin, str(folders[0]), adapter_name="0")
    for number in range(1, ADAPTERS):
        peft.load_adapter(str(folders[number]), adapter_name=str(number))
    names = [str(row.adapter) for row in rows]
    quick = copy.deepcopy(model)
    with rowwise(quick, folders[:ADAPTERS]) as adapters, pack_weights(quick):
        expected = [alone(quick, adapters, row) for row in rows]
        report.equal("engine, float32", *flips_of(quick, adapters, rows, expected))
        report.equal("engine, float32, entering between steps", *flips_of(quick, adapters, rows, expected, 8))
        ways = {
            "ours": lambda: engine(quick, adapters, rows),
            STATIC: lambda: static(quick, adapters, rows),
            NAMES: lambda: generated(peft.eval(), rows, adapter_names=names),
        }
        seconds, _ = alternated(ways, rounds)
        for peer, bound in ((STATIC, 2.0), (NAMES, 1.5)):
            report.times("24 answers of 10 to 120 tokens", seconds["ours"], seconds[peer], peer, bound)
        steps(report, quick, model, adapters, rows, rounds)


def steps(report: Report, model: Any, plain: Any, adapters: Rowwise, rows: Sequence[AnswerRow], rounds: int) -> None:
    """A step of 24 rows, and memory while rows come and go; `model` has packed weights, `plain` its own."""
    ways = {
        "ours": step_of(model, adapters, rows, 64),
        "any order": step_of(model, adapters, sorted(rows, key=lambda row: row.max_tokens), 64),
        "base": base_step(plain, adapters, rows, 64),
        "packed": base_step(model, adapters, rows, 64),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(5 * rounds):
        for way, taken in alternated(ways, 1)[1].items():
            found[way].append(taken)
    for row, ours in (("3 adapters", "ours"), ("adapters in any order", "any order")):
        report.times(f"step of 24 rows, {row}", found[ours], found["base"], "base alone", 1 / 1.1)
        report.times(f"step of 24 rows, {row}", found[ours], found["packed"], "base alone, packed", None)
    resident = resident_over(model, adapters, 500)
    report.add("resident after 500 rows", resident[-1], resident[0], "after 100", "MiB", resident[0] / resident[-1])
    if resident[-1] > resident[0] * 1.02:
        report.missed.append(f"memory grows: {resident}")


def flips_of(
    model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], expected: Texts, size: int = ROWS
) -> tuple[int, int, float]:
    """For `Report.equal`."""
    differ, gap = flips(model, adapters, rows, engine(model, adapters, rows, size), expected)
    return differ, len(rows), gap


def choices(report: Report, base: TrainingBase, folders: list[Path], rounds: int) -> None:
    """20 items under 16 adapters."""
    items, names = generate(("classify",), 20), [str(number) for number in range(MANY)]
    with rowwise(base.model, folders) as adapters, pack_weights(base.model):
        scores = Scorer(base, adapters, names, lambda _: None)
        asked = [((ConversationTurn("user", item.prompt),), item.expected["among"]) for item in items]
        ways = {
            "ours": lambda: [
                texts[scored.likeliest_index()]
                for row in scores.choices(names, asked)
                for (_, texts), scored in zip(asked, row, strict=True)
            ],
            "before": lambda: [answer for name in names for answer in chosen_before(scores, name, items)],
        }
        seconds, found = alternated(ways, rounds)
    same = sum(a == b for a, b in zip(found["ours"], found["before"], strict=True))
    print(f"choices: {same} of {len(found['ours'])} are equal")
    report.times("16 adapters x 20 choice items", seconds["ours"], seconds["before"], "one by one, as before", 2.0)
    if same < len(found["ours"]):
        report.missed.append("choices differ")


def half(report: Report, base: TrainingBase, folders: list[Path]) -> None:
    """How many answers bfloat16 leaves as they are in float32."""
    rows = rows_of(ROWS, base.model.config.vocab_size, 1)
    with rowwise(base.model, folders[:ADAPTERS]) as adapters, pack_weights(base.model):
        exact = engine(base.model, adapters, rows)
    twin = copy.deepcopy(base.model).bfloat16()
    with rowwise(twin, folders[:ADAPTERS]) as adapters, pack_weights(twin):
        differ = sum(a != b for a, b in zip(exact, engine(twin, adapters, rows), strict=True))
    report.equal("engine, bfloat16 and float32", differ, len(rows), None)


def main(rounds: int) -> int:
    """Compare, measure, print, write; the exit status."""
    torch.set_num_threads(1)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    report, path = Report(), checkpoint()
    print(f"{'SmolLM2-135M, float32, one thread':<44}{'ours':>10}{'peer':>10}")
    with tempfile.TemporaryDirectory(dir=OUT.parent) as place, torch.inference_mode():
        folders = adapters_of(path, Path(place), MANY)
        base = load_base(path, "fp32", "sdpa")
        answers(report, base, folders, rounds)
        choices(report, base, folders, 1)
        half(report, base, folders)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "peft", "transformers")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": report.rows, **about})
    print(f"written to {OUT}" + "".join(f"\nMISSED: {text}" for text in report.missed))
    return 1 if report.missed else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PEFT on adapters of other names
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
