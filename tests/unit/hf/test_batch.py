"""Rows side by side say what each says alone, whatever the architecture, and leave when they are finished."""

import functools
import itertools
import pkgutil
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agentlab.errors import UsageError
from agentlab.hf import prefill
from agentlab.hf.batch import AnswerBatch, AnswerRow, Token
from agentlab.lora import reading
from agentlab.lora.rowwise import rowwise
from agentlab.lora.stacked import BASE
from tests.unit.lora.test_rowwise import convolutional

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {},
    "Mistral": {"sliding_window": 6},
    "Gemma2": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Gemma3Text": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Qwen3Next": {
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        # as small as the rest: by default most of the work is theirs
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
}
ENDS = {7, 8}


@pytest.fixture(autouse=True)
def _no_opinions() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers have opinions on tiny models
        yield


def model_of(kind: str) -> Any:
    """A random one of this architecture."""
    import transformers

    if kind == "GPT2":
        return convolutional()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**SIZES, **MODELS[kind])
        return getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()


def adapters_of(kind: str, folder: Path) -> list[Path]:
    """Two random adapters, in PEFT format; the same every time."""
    from peft import LoraConfig, get_peft_model

    for number, (name, rank) in enumerate({"one": 4, "two": 2}.items()):
        targets = ["c_attn", "c_proj"] if kind == "GPT2" else ["q_proj", "k_proj", "o_proj"]
        config = LoraConfig(r=rank, target_modules=targets, fan_in_fan_out=kind == "GPT2")
        with torch.random.fork_rng():
            torch.manual_seed(number)
            model = get_peft_model(model_of(kind), config)
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / name)
    return [folder / "one", folder / "two"]


def rows_of(count: int, **keys: Any) -> list[AnswerRow]:
    """Rows of the base and of two adapters, in no order, with prompts of 1 to 20 tokens and answers of 1 to 12."""
    chance = random.Random(0)
    return [
        AnswerRow(
            chance.choice([BASE, 0, 1]),
            [chance.randrange(10, 64) for _ in range(chance.randint(1, 20))],
            chance.randint(1, 12),
            **keys,
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def alone(model: Any, adapters: Any, row: AnswerRow) -> tuple[list[int], list[float]]:
    """The likeliest tokens and their log-probabilities, from the whole text anew for each token."""
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < row.max_tokens and (not tokens or tokens[-1] not in ENDS):
        adapters.rows([row.adapter])
        logits = model(torch.tensor([[*row.prompt, *tokens]])).logits[0, -1].float().log_softmax(-1)
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.max()))
    return tokens, logprobs


@functools.cache
def rows_alone(kind: str) -> list[tuple[list[int], list[float]]]:
    """What each of 20 rows says alone; once for all tests of the architecture, of which it takes most of the time."""
    model = model_of(kind)
    with tempfile.TemporaryDirectory() as place, rowwise(model, adapters_of(kind, Path(place))) as adapters:
        return [alone(model, adapters, row) for row in rows_of(20)]


def collected(steps: Iterator[Sequence[Token]]) -> dict[AnswerRow, list[Token]]:
    tokens_by_row: dict[AnswerRow, list[Token]] = {}
    for tokens in steps:
        for token in tokens:
            tokens_by_row.setdefault(token.row, []).append(token)
    return tokens_by_row


@pytest.mark.parametrize("waves", [False, True], ids=["entering between steps", "in waves"])
@pytest.mark.parametrize("kind", [*MODELS, "GPT2"])
def test_rows_say_what_each_says_alone(kind: str, waves: bool, tmp_path: Path) -> None:
    model, rows = model_of(kind), rows_of(20, logprob=True)
    expected = dict(zip(rows, rows_alone(kind), strict=True))
    with rowwise(model, adapters_of(kind, tmp_path)) as adapters:
        batch = AnswerBatch(model, adapters, ENDS)
        tokens_by_row = collected(batch.run(rows, 6, waves=waves))
    assert (batch.slow is not None) == (kind == "Qwen3Next")
    assert len(batch) == 0
    for row, (tokens, logprobs) in expected.items():
        assert [token.token for token in tokens_by_row[row]] == tokens
        assert [token.logprob for token in tokens_by_row[row]] == pytest.approx(logprobs, abs=1e-4)
        assert [token.finish for token in tokens_by_row[row]] == [
            *[None] * (len(tokens) - 1),
            "stop" if tokens[-1] in ENDS else "length",
        ]
    assert len({tuple(tokens) for tokens, _ in expected.values()}) > 10


@pytest.mark.parametrize("kind", [*MODELS, "GPT2"])
def test_prompts_that_are_read_in_pieces_change_no_answer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prefill._PIECE, "cpu", 8)
    model, rows = model_of(kind), rows_of(20)
    expected = {row: said for row, (said, _) in zip(rows, rows_alone(kind), strict=True)}
    long = [AnswerRow(row.adapter, [*row.prompt * 26][:26], 5) for row in rows[:3]]
    rows += long
    with rowwise(model, adapters_of(kind, tmp_path)) as adapters:
        expected |= {row: alone(model, adapters, row)[0] for row in long}
        batch = AnswerBatch(model, adapters, ENDS)
        tokens_by_row = collected(in_turns(batch, rows))
    assert {row: [token.token for token in tokens] for row, tokens in tokens_by_row.items()} == expected


def in_turns(batch: AnswerBatch, rows: Sequence[AnswerRow]) -> Iterator[list[Token]]:
    """A row comes with every step; the prompts are read meanwhile."""
    waiting = list(reversed(rows))
    while waiting or batch:
        if waiting:
            batch.enter([waiting.pop()])
        yield batch.read()
        yield batch.step()


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A model and its two adapters."""
    model = model_of("Llama")
    with rowwise(model, adapters_of("Llama", tmp_path)) as adapters:
        yield model, adapters


def test_a_common_beginning_is_read_once_for_each_adapter(llama: tuple[Any, Any]) -> None:
    model, adapters = llama
    rows = [
        AnswerRow(adapter, [*range(10, 50), *range(20, 20 + size)], 6) for adapter in (0, BASE, 1) for size in (1, 9, 4)
    ]
    rows += [AnswerRow(0, [9], 3), AnswerRow(0, rows[0].prompt, 6)]  # the first keeps those of adapter 0 from sharing
    expected = {row: alone(model, adapters, row)[0] for row in rows}
    batch, counted = AnswerBatch(model, adapters, ENDS), []
    hook = model.register_forward_pre_hook(lambda *args: counted.append(args[2]["input_ids"]), with_kwargs=True)
    tokens_by_row = collected(iter([batch.admit(rows[:9]), batch.admit(rows[9:])]))
    hook.remove()
    assert sum(ids.numel() for ids in counted[:6]) == 3 * (40 + 3 * 16)  # of each adapter; of its rows the rest
    for tokens in iter(batch.step, []):
        for token in tokens:
            tokens_by_row[token.row].append(token)
    assert {row: [token.token for token in tokens] for row, tokens in tokens_by_row.items()} == expected


def test_rows_that_are_let_go_leave_the_others_as_they_are(llama: tuple[Any, Any]) -> None:
    model, adapters = llama
    rows = rows_of(12)
    expected = {row: alone(model, adapters, row)[0] for row in rows}
    batch = AnswerBatch(model, adapters, ENDS)
    tokens_by_row = collected(iter([batch.admit(rows), batch.step()]))
    evicted_rows = [row for row in rows if not tokens_by_row[row][-1].finish][::2]
    batch.evict([*evicted_rows, *evicted_rows, rows_of(1)[0]])
    for tokens in iter(batch.step, []):
        for token in tokens:
            tokens_by_row[token.row].append(token)
    assert all(len(tokens_by_row[row]) == 2 for row in evicted_rows)
    assert all([token.token for token in tokens_by_row[row]] == expected[row] for row in set(rows) - set(evicted_rows))


def test_draws_do_not_depend_on_the_company(llama: tuple[Any, Any]) -> None:
    model, adapters = llama

    def drawn(count: int) -> list[list[int]]:
        rows = rows_of(count, temperature=1.5, top_p=0.9)
        for number, row in enumerate(rows):
            row.generator = torch.Generator().manual_seed(number)
        tokens_by_row = collected(AnswerBatch(model, adapters, ENDS).run(rows, count))
        return [[token.token for token in tokens_by_row[row]] for row in rows]

    many = drawn(8)
    assert drawn(3) == many[:3]
    assert len(set(map(tuple, many))) > 5


def test_a_row_that_cannot_be_answered_is_refused_and_the_rest_stay(llama: tuple[Any, Any]) -> None:
    batch = AnswerBatch(*llama, ())
    batch.admit([AnswerRow(0, [10, 11], 50)])
    for wrong in (
        AnswerRow(0, [], 5),
        AnswerRow(0, [10], 0),
        AnswerRow(2, [10], 5),
        AnswerRow(0, [10], 5, temperature=1.0),
    ):
        with pytest.raises(UsageError):
            batch.admit([AnswerRow(1, [12], 5), wrong])
    assert len(batch) == len(batch.step()) == 1


def test_a_wave_is_the_same_to_the_bit_whatever_came_before(llama: tuple[Any, Any]) -> None:
    def marks(skipped: int) -> list[list[float | None]]:
        rows = rows_of(18, logprob=True)
        tokens_by_row = collected(AnswerBatch(*llama, ENDS).run(rows[skipped:], 6, waves=True))
        return [[token.logprob for token in tokens_by_row[row]] for row in rows[12:]]

    assert marks(12) == marks(6) == marks(0)


def test_a_run_that_is_left_leaves_nothing(llama: tuple[Any, Any]) -> None:
    batch = AnswerBatch(*llama, ENDS)
    run = batch.run(rows_of(20), 10)
    next(run)
    assert len(batch) > 0
    run.close()
    assert len(batch) == 0


def test_nobody_waits_for_more_than_a_piece_of_another_prompt(
    llama: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prefill._PIECE, "cpu", 16)
    model, adapters = llama
    batch, widths = AnswerBatch(model, adapters, ()), list[int]()
    first, long, short = AnswerRow(0, [10, 11], 40), AnswerRow(0, [12] * 100, 9), AnswerRow(1, [13] * 5, 9)
    batch.admit([first])
    hook = model.register_forward_pre_hook(lambda *args: widths.append(args[2]["input_ids"].numel()), with_kwargs=True)
    batch.enter([long, short])
    turns = [[token.row for token in [*batch.read(), *batch.step()]] for _ in range(8)]
    hook.remove()
    assert max(widths) == 16
    assert all(first in turn for turn in turns)
    assert [short in turn for turn in turns] == [True] * 8  # it was read first
    assert [long in turn for turn in turns] == [False] * 7 + [True]


def test_a_row_that_is_let_go_while_it_is_read_is_read_no_further(
    llama: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prefill._PIECE, "cpu", 8)
    batch = AnswerBatch(*llama, ENDS)
    long, *short = [AnswerRow(0, [12] * 100, 9), *(AnswerRow(index % 2, [14 + index] * 4, 6) for index in range(4))]
    expected = [alone(*llama, row)[0] for row in short]
    batch.enter([long, *short])
    steps = [batch.read(), batch.read()]  # two of the short ones, a piece of the long one
    assert long in batch
    batch.evict([long, short[3]])
    tokens_by_row = collected(iter([*steps, *in_turns(batch, [])]))
    assert [[token.token for token in tokens_by_row[row]] for row in short[:3]] == expected[:3]
    assert not {long, short[3]} & set(tokens_by_row)


class FullError(Exception):
    """No memory, injected."""


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("target", ["agentlab.hf.cache._Layer.fit", "agentlab.hf.cache._Layer.write"])
def test_where_memory_runs_out_as_a_row_enters_the_others_go_on(
    llama: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, target: str, at_once: bool
) -> None:
    before, after = AnswerRow(0, [10, 11, 12], 9), AnswerRow(1, [20] * 30, 6)
    expected = [alone(*llama, row)[0] for row in (before, after)]
    batch = AnswerBatch(*llama, ENDS)
    first_tokens = [*batch.admit([before]), *batch.step()]
    failed = AnswerRow(1, [20] * 100, 6)
    if not at_once:
        batch.enter([failed])
    with failing(monkeypatch, target, at=2), pytest.raises(FullError):
        _ = batch.admit([failed]) if at_once else batch.read()
    assert len(batch) == 1
    tokens_by_row = collected(iter([first_tokens, batch.admit([after]), *iter(batch.step, [])]))
    assert [[token.token for token in tokens_by_row[row]] for row in (before, after)] == expected


@pytest.mark.parametrize("target", ["agentlab.hf.cache._Layer.fit", "agentlab.hf.batch._logprobs"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3Next"])
def test_where_a_step_fails_all_rows_are_gone_and_others_may_come(
    kind: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = model_of(kind), [AnswerRow(adapter, [10] * 5, 9, logprob=True) for adapter in (0, 1)]
    with rowwise(model, adapters_of(kind, tmp_path)) as adapters:
        expected = {row: alone(model, adapters, row)[0] for row in rows}
        batch = AnswerBatch(model, adapters, ENDS)
        batch.admit(rows)
        batch.enter([AnswerRow(0, [10] * 5, 3)])
        target = "agentlab.hf.cache.read" if kind == "Qwen3Next" and "fit" in target else target
        with failing(monkeypatch, target, at=2 if "cache" in target else 1), pytest.raises(FullError):
            batch.step()
        assert len(batch) == 0
        assert batch.read() == batch.step() == []
        tokens_by_row = collected(batch.run(rows, 2))
    assert {row: [token.token for token in tokens_by_row[row]] for row in rows} == expected


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, target: str, at: int) -> Iterator[None]:
    """A call of this function fails, the first being 1."""
    true, calls = pkgutil.resolve_name(target), itertools.count(1)

    def called(*args: Any, **keys: Any) -> Any:
        if next(calls) == at:
            raise FullError
        return true(*args, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(target, called)
        yield


def test_an_admission_that_fails_midway_leaves_the_others(llama: tuple[Any, Any]) -> None:
    model, adapters = llama
    before = AnswerRow(0, [10, 11, 12], 6)
    expected = alone(model, adapters, before)[0]
    batch = AnswerBatch(model, adapters, ENDS)
    tokens = batch.admit([before])
    wrong = [
        AnswerRow(1, [*range(10, 50), number], 9) for number in range(20, 23)
    ]  # read first, for their common beginning
    with pytest.raises(UsageError, match="adapter 2, but there are 2"):
        batch.admit([*wrong, AnswerRow(2, [10], 5)])
    assert len(batch) == 1
    while batch:
        tokens += batch.step()
    assert [token.token for token in tokens] == expected


def test_a_row_whose_numbers_overflow_spoils_neither_its_neighbours_nor_who_comes_in_its_place(
    llama: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapters = llama
    wild = shutil.copytree(tmp_path / "two", tmp_path / "wild") / "adapter_model.safetensors"
    save_file({name: factor * 1e25 for name, factor in load_file(wild).items()}, wild)
    monkeypatch.setattr(reading, "_MOST_FACTOR", float("inf"))  # such adapters are refused
    monkeypatch.setattr(reading, "_MOST_CHANGE", float("inf"))
    adapter = adapters.put(wild.parent)
    wild_row = AnswerRow(adapter, list(range(10, 30)), 2, temperature=1.0, generator=torch.Generator(), logprob=True)
    long, short = AnswerRow(0, list(range(20, 40)), 12), AnswerRow(1, [10], 6)
    expected = {row: alone(model, adapters, row)[0] for row in (long, short)}
    batch = AnswerBatch(model, adapters, ())
    steps = [batch.admit([long, wild_row]), batch.step(), batch.admit([short])]
    tokens_by_row = collected(iter([*steps, *iter(batch.step, [])]))
    assert all(token.logprob != token.logprob for token in tokens_by_row[wild_row])  # no numbers
    assert {row: [token.token for token in tokens_by_row[row]] for row in expected} == expected


def test_positions_that_the_longest_row_decides_are_each_row_s_own(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "original_max_position_embeddings": 24}
    ropes = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=ropes, initializer_range=0.5)).eval()
    rows = [AnswerRow(BASE, [10 + position % 7 for position in range(size)], 8) for size in (5, 30, 12)]
    with rowwise(model, []) as adapters:
        expected = [alone(model, adapters, row)[0] for row in rows]
        batch = AnswerBatch(model, adapters, ENDS)
        tokens_by_row = collected(batch.run(rows, 3))
    assert "by the longest row" in str(batch.slow)
    assert [[token.token for token in tokens_by_row[row]] for row in rows] == expected


def test_a_long_row_takes_no_memory_for_those_that_have_left(llama: tuple[Any, Any]) -> None:
    batch = AnswerBatch(*llama, ())
    first, *neighbours = [AnswerRow(0, [10, 11], 50) for _ in range(20)]
    batch.admit([first, *neighbours])
    batch.evict(neighbours)
    batch.admit([AnswerRow(1, list(range(10, 60)) * 4, 5)])
    rows, _, columns, _ = batch._table._layers[0]._held[0].shape  # type: ignore[union-attr] # of the table
    assert rows == 2
    assert columns < 400
