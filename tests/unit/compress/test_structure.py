"""Narrower MLPs, fewer layers, fewer tokens: plain models of their architecture, written and loaded."""

import json
from pathlib import Path

import pytest
import torch

from agentlab.compress.packed import write_dense
from agentlab.compress.structure import cut_vocabulary, drop_layers, narrow
from agentlab.errors import ModelFileError, UsageError
from agentlab.train.base import load_base, load_tokenizer
from tests.unit.train.chats import CHATML, CORPUS, bytewise

from .decoders import KINDS, decoder, logits, nothing, statistics


def tokenizer_folder(folder: Path) -> Path:
    bytewise(CHATML).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_do_nothing_go_first(kind: str, tmp_path: Path) -> None:
    changes = {"mlp_bias": True} if kind == "llama" else {}
    model = decoder(kind, **changes)
    for layer in model.model.layers:
        for value in layer.mlp.up_proj.parameters():
            value[50:90] = 0
    before = logits(model)
    narrow(model, statistics(model, tmp_path / "known"), 160)
    assert model.config.intermediate_size == 160
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    write_dense(model, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "float32", nothing)
    assert torch.equal(logits(load_base(tmp_path / "out", "fp32", "sdpa").model), logits(model))
    with pytest.raises(UsageError, match="160 channels"):
        narrow(model, statistics(model, tmp_path / "again"), 160)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_do_nothing_go_first(kind: str, tmp_path: Path) -> None:
    model = decoder(kind)
    middle = model.model.layers[1]
    for module in (middle.self_attn.o_proj, middle.mlp.down_proj):
        module.weight.zero_()
    before = logits(model)
    assert drop_layers(model, statistics(model, tmp_path / "known").influences(), 1) == [1]
    assert torch.equal(logits(model), before)
    write_dense(model, tokenizer_folder(tmp_path / "words"), tmp_path / "out", "float32", nothing)
    reread = load_base(tmp_path / "out", "fp32", "sdpa").model
    assert torch.equal(logits(reread), before)
    assert reread.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False).shape[1] <= 5
    with pytest.raises(UsageError, match="2 cannot go"):
        drop_layers(model, [0.1, 0.2], 2)


@pytest.mark.parametrize("tied", [True, False])
def test_texts_of_seen_tokens_are_split_and_answered_as_before(tied: bool, tmp_path: Path) -> None:
    before = bytewise(CHATML)
    words = tokenizer_folder(tmp_path / "words")
    model = decoder(vocab_size=len(before) + 3, tie_word_embeddings=tied)
    model.config.eos_token_id = [before.convert_tokens_to_ids("<|im_end|>")]
    text = CORPUS[0]
    seen = before(text)["input_ids"]
    old = model(torch.tensor([seen])).logits
    (tmp_path / "fewer").mkdir()
    kept = cut_vocabulary(model, words, seen, tmp_path / "fewer")
    assert len(kept) < len(before)
    write_dense(model, tmp_path / "fewer", tmp_path / "out", "float32", nothing)
    after = load_tokenizer(tmp_path / "out")
    ids = after(text)["input_ids"]
    assert after.convert_ids_to_tokens(ids) == before.convert_ids_to_tokens(seen)
    new = load_base(tmp_path / "out", "fp32", "sdpa").model(torch.tensor([ids])).logits
    torch.testing.assert_close(new, old[..., kept])
    for other in (*CORPUS, "Zwölf Boxkämpfer \N{SNOWMAN}"):
        assert after.decode(after(other)["input_ids"]) == before.decode(before(other)["input_ids"])
    turns = [{"role": "user", "content": text}]
    assert after.apply_chat_template(turns, tokenize=False) == before.apply_chat_template(turns, tokenize=False)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert after.convert_ids_to_tokens(written["eos_token_id"]) == ["<|im_end|>"]
    assert written["vocab_size"] == len(after) == len(kept)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"type": "Unigram"}, "SentencePiece"),
        ({"type": "BPE", "byte_fallback": True}, "SentencePiece"),
        ({"type": "WordPiece"}, "WordPiece"),
    ],
)
def test_other_vocabularies_are_refused_by_name(model: dict[str, object], name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(ModelFileError, match=name):
        cut_vocabulary(decoder(), tmp_path, [1], tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFileError, match="can be read"):
        cut_vocabulary(decoder(), tmp_path, [1], tmp_path)
