"""Smaller vocabularies: what stays answers as before, and what the base says of old tokens is said of new ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agentlab.compress.checkpoint_formats import write_dense
from agentlab.compress.vocabulary import Fewer, cut_vocabulary
from agentlab.errors import ModelFileError
from agentlab.train.base import load_base, load_tokenizer
from tests.unit.train.chats import CHATML, CORPUS, bytewise

from .decoders import decoder, nothing
from .test_pruners_structure import tokenizer_folder


def test_old_tokens_in_new_ones() -> None:
    fewer = Fewer(kept=(0, 2, 3), pieces=((0,), (1, 2), (1,), (2,)))
    tokens, begins = fewer.window([0, 1, 3, 1, 2])
    assert tokens == [0, 1, 2, 2, 1]  # as many as before; what is left over is cut off
    assert begins == [1, -1, 2, 3]
    logs = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))
    np.testing.assert_allclose(np.exp(fewer.distributions(logs)), [[0.1, 0.5, 0.4]], rtol=1e-6)


def test_words_that_were_left_out_are_spelt_in_pieces(tmp_path: Path) -> None:
    before, words = bytewise(CHATML), tokenizer_folder(tmp_path / "words")
    (tmp_path / "fewer").mkdir()
    fewer = cut_vocabulary(
        decoder(vocab_size=len(before) + 3), words, before(CORPUS[0])["input_ids"], tmp_path / "fewer"
    )
    assert len(fewer.pieces) == len(before) + 3
    text = "".join(CORPUS)
    old = before(text)["input_ids"]
    new = [piece for token in old for piece in fewer.pieces[token]]
    assert len(new) > len(old)
    assert before.decode([fewer.kept[token] for token in new]) == text


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
    fewer = cut_vocabulary(model, words, seen, tmp_path / "fewer")
    token_ids = list(fewer.kept)
    assert len(token_ids) < len(before)
    write_dense(model, tmp_path / "fewer", tmp_path / "out", "float32", nothing)
    after = load_tokenizer(tmp_path / "out")
    ids = after(text)["input_ids"]
    assert after.convert_ids_to_tokens(ids) == before.convert_ids_to_tokens(seen)
    new = load_base(tmp_path / "out", "fp32", "sdpa").model(torch.tensor([ids])).logits
    torch.testing.assert_close(new, old[..., token_ids])
    for sample in (*CORPUS, "Zwölf Boxkämpfer \N{SNOWMAN}"):
        assert after.decode(after(sample)["input_ids"]) == before.decode(before(sample)["input_ids"])
    turns = [{"role": "user", "content": text}]
    assert after.apply_chat_template(turns, tokenize=False) == before.apply_chat_template(turns, tokenize=False)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert after.convert_ids_to_tokens(written["eos_token_id"]) == ["<|im_end|>"]
    assert written["vocab_size"] == len(after) == len(token_ids)


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
    with pytest.raises(ModelFileError, match=r"Cannot read tokenizer\.json"):
        cut_vocabulary(decoder(), tmp_path, [1], tmp_path)
