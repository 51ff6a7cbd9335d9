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


def adapters_of(path: Path, folder: Path, count: int) -> list[Path]:
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
        model.save_pretrained(str(folder / str(number)))
    return [folder / str(number) for number in range(count)]


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
    tokens_by_row: dict[AnswerRow, list[int]] = {row: [] for row in rows}
    for tokens in AnswerBatch(model, adapters, ()).run(rows, size):
        for row_token in tokens:
            tokens_by_row[row_token.row].append(row_token.token)
    return list(tokens_by_row.values())


def generated(model: Any, rows: Sequence[AnswerRow], **keys: Any) -> Texts:
    """`generate` on a static, left-padded batch up to the longest answer."""
    longest, limit = max(len(row.prompt) for row in rows), max(row.max_tokens for row in rows)
    ids = torch.tensor([[0] * (longest - len(row.prompt)) + list(row.prompt) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
    with quietly():
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, temperature=None, top_p=None,
            top_k=None, pad_token_id=0, eos_token_id=None, **keys,
        )  # fmt: skip
    return [output[longest : longest + row.max_tokens].tolist() for output, row in zip(out, rows, strict=True)]


def static(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow]) -> Texts:
    """What scoring did before: `Scorer._generated` of 22 November 2026."""

    def go_on(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(len(ids), dtype=torch.bool)

    adapters.rows([row.adapter for row in rows])
    return generated(model, rows, stopping_criteria=StoppingCriteriaList([go_on]))


def flips(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], ours: Texts, theirs: Texts) -> tuple[int, float]:
    """How many texts differ, and the widest gap between the two likeliest logits where one first does."""
    flipped, widest = 0, 0.0
    for row, one, other in zip(rows, ours, theirs, strict=True):
        index = next((index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
        if index is not None:
            adapters.rows([row.adapter])
            best = model(torch.tensor([[*row.prompt, *one[:index]]])).logits[0, -1].topk(2).values.tolist()
            flipped, widest = flipped + 1, max(widest, best[0] - best[1])
    return flipped, widest


def alone(model: Any, adapters: Rowwise, row: AnswerRow) -> list[int]:
    """The decoder of one row."""
    cache, tokens, answer = DynamicCache(), list(row.prompt), []
    adapters.rows([row.adapter])
    while len(answer) < row.max_tokens:
        out = model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens = [int(out.logits[0, -1].argmax())]
        answer += tokens
    return answer


def step_of(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], length: int) -> Callable[[], float]:
    """Seconds of one more step of rows that have so many tokens, a median of eight."""
    batch = AnswerBatch(model, adapters, ())
    batch.admit([AnswerRow(row.adapter, (list(row.prompt) * 20)[:length], 10_000) for row in rows])

    def timed() -> float:
        durations = []
        for _ in range(8):
            began = time.process_time()
            batch.step()
            durations.append(time.process_time() - began)
        return statistics.median(durations)

    return timed


def base_step(model: Any, adapters: Rowwise, rows: Sequence[AnswerRow], length: int) -> Callable[[], float]:
    """The same of the base alone, as transformers does it: a `DynamicCache`, no padding."""
    adapters.rows([BASE] * len(rows))
    ids = torch.tensor([(list(row.prompt) * 20)[:length] for row in rows])
    state = {"cache": model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values}

    def timed() -> float:
        adapters.rows([BASE] * len(rows))
        durations = []
        for _ in range(8):
            began = time.process_time()
            out = model(input_ids=ids[:, -1:], past_key_values=state["cache"], use_cache=True, logits_to_keep=1)
            out.logits[:, -1].argmax(-1).tolist()
            durations.append(time.process_time() - began)
        return statistics.median(durations)

    return timed


def chosen_before(scores: Scorer, adapter: str, items: Sequence[Any]) -> list[str]:
    """`Scorer.choices` as it was: the question is read again for every answer."""
    queries = [
        (adapter, Example(0, (*ids, *after), (*[IGNORED] * len(ids), *after), 0))
        for item in items
        for ids in [scores._ids([ConversationTurn("user", item.prompt)])]
        for after in (
            scores._base.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in item.expected["among"]
        )
    ]
    logprob_stream = iter(scores.logprobs(queries))
    item_logprobs = [[next(logprob_stream) for _ in item.expected["among"]] for item in items]
    return [
        item.expected["among"][logprobs.index(max(logprobs))]
        for item, logprobs in zip(items, item_logprobs, strict=True)
    ]


def resident_over(model: Any, adapters: Rowwise, count: int) -> list[float]:
    """MiB at the end of each hundred rows that came and went."""
    chance, process, readings = random.Random(5), psutil.Process(), []
    for _ in range(count // 100):
        rows = [
            AnswerRow(chance.randrange(-1, ADAPTERS), [chance.randrange(100, 9000)] * chance.randint(5, 60), 6)
            for _ in range(100)
        ]
        engine(model, adapters, rows)
        readings.append(process.memory_info().rss / 2**20)
    return readings


def alternated(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, and what it returned last; the order is drawn anew each time."""
    chance = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, Any] = {}
    for _ in range(rounds):
        for name in chance.sample(list(ways), len(ways)):
            began = time.process_time()
            outputs[name] = ways[name]()
            seconds[name].append(time.process_time() - began)
    return seconds, outputs


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

    def equal(self, title: str, differ: int, count: int, gap: float | None) -> None:
        """Texts that differ; `gap` is held where it is given."""
        note = "" if gap is None else f", where the two likeliest logits are at most {gap:.1e} apart (held: {CLOSE:g})"
        print(f"{title}: {count - differ} of {count} texts are equal{note}", flush=True)
        if gap is not None and gap > CLOSE:
            self.missed.append(f"{title}: texts differ")


def answers(report: Report, base: TrainingBase, folders: list[Path], rounds: int) -> None:
    """Answers of 24 rows, in three ways."""
    from peft import PeftModel

    rows, model = rows_of(ROWS, base.model.config.vocab_size, 1), base.model
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
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
    durations: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5 * rounds):
        for name, duration in alternated(ways, 1)[1].items():
            durations[name].append(duration)
    for row, ours in (("3 adapters", "ours"), ("adapters in any order", "any order")):
        report.times(f"step of 24 rows, {row}", durations[ours], durations["base"], "base alone", 1 / 1.1)
        report.times(f"step of 24 rows, {row}", durations[ours], durations["packed"], "base alone, packed", None)
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
        questions = [((ConversationTurn("user", item.prompt),), item.expected["among"]) for item in items]
        ways = {
            "ours": lambda: [
                texts[scored.likeliest_index()]
                for row in scores.choices(names, questions)
                for (_, texts), scored in zip(questions, row, strict=True)
            ],
            "before": lambda: [answer for name in names for answer in chosen_before(scores, name, items)],
        }
        seconds, outputs = alternated(ways, rounds)
    same = sum(a == b for a, b in zip(outputs["ours"], outputs["before"], strict=True))
    print(f"choices: {same} of {len(outputs['ours'])} are equal")
    report.times("16 adapters x 20 choice items", seconds["ours"], seconds["before"], "one by one, as before", 2.0)
    if same < len(outputs["ours"]):
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
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder, torch.inference_mode():
        folders = adapters_of(path, Path(folder), MANY)
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
