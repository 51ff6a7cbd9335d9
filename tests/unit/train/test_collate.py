"""Rows as tensors, and what a model makes of them: as much as of every conversation alone."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentlab.train.collate import Collator
from agentlab.train.masks import IGNORED, Example

PAD = 9


def of(length, start=10, line=1):
    ids = tuple(range(start, start + length))
    return Example(line, ids, (IGNORED, *ids[1:]), 0)


A, B, C = of(3), of(2, 20), of(4, 30)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=64, attn_implementation=request.param, **sizes)
    return LlamaForCausalLM(config).eval()


def logits(model, batch, use_cache=False):
    with torch.no_grad():
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return model(**inputs, use_cache=use_cache).logits


def alone(model, example):
    with torch.no_grad():
        return model(input_ids=torch.tensor([example.input_ids])).logits[0]


def test_one_conversation_a_row_is_padded_on_the_right():
    batch = Collator(PAD, "padded")([(A,), (B,)])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[10, 11, 12], [20, 21, PAD]],
        "labels": [[IGNORED, 11, 12], [IGNORED, 21, IGNORED]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
    }
    with pytest.raises(ValueError, match="must hold exactly one conversation"):
        Collator(PAD, "padded")([(A, B)])


def test_positions_restart_at_every_conversation_of_a_row():
    batch = Collator(PAD, "packed")([(A, B), (C,)])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[10, 11, 12, 20, 21], [30, 31, 32, 33, PAD]],
        "labels": [[IGNORED, 11, 12, IGNORED, 21], [IGNORED, 31, 32, 33, IGNORED]],
        "position_ids": [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]],
    }
    batch = Collator(PAD, "flat")([(A, B), (C,)])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch["input_ids"].tolist() == [[*A.input_ids, *B.input_ids, *C.input_ids]]


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        ("padded", [(A,), (B,), (C,)]),
        ("packed", [(A, B), (C,)]),
        ("packed", [(A,), (B,), (C,)]),
        ("packed", [(of(1), of(1, 40), A), (B, of(1))]),
        ("flat", [(A, B), (C,)]),
    ],
)
def test_a_model_sees_each_conversation_as_if_it_were_alone(model, layout, rows):
    batch = Collator(PAD, layout)(rows)
    batch_logits = logits(model, batch)
    where = [[example for row in rows for example in row]] if layout == "flat" else rows
    for index, row in enumerate(where):
        at = 0
        for example in row:
            example_logits = batch_logits[index, at : at + len(example.input_ids)]
            torch.testing.assert_close(example_logits, alone(model, example), atol=1e-5, rtol=0)
            at += len(example.input_ids)


def test_with_a_cache_packed_conversations_would_see_each_other(model):
    second = logits(model, Collator(PAD, "packed")([(A, B)]), use_cache=True)[0, 3:]
    assert (second - alone(model, B)).abs().max() > 0.01


def test_packed_and_padded_conversations_give_the_same_loss_and_gradient(model):
    losses_and_gradients = []
    for layout, rows in (("padded", [(A,), (B,), (C,)]), ("packed", [(A, B), (C,)]), ("flat", [(A, B), (C,)])):
        model.zero_grad()
        loss = model(**Collator(PAD, layout)(rows), num_items_in_batch=torch.tensor(6), use_cache=False).loss
        loss.backward()
        losses_and_gradients.append((loss.detach(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()))
    for loss, gradient in losses_and_gradients[1:]:
        torch.testing.assert_close(loss, losses_and_gradients[0][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(gradient, losses_and_gradients[0][1], atol=1e-6, rtol=0)
