"""A tiny checkpoint with random weights: how an answer starts, stops, repeats itself, and what is refused.

The model means nothing; what counts is that its words come out as asked.
"""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from agentlab.errors import BadRequestError, ContextOverflowError, ModelFileError
from agentlab.hf.decoder import Decoder
from agentlab.workers.chat import ChatRequest

TEMPLATE = (
    "{% if messages[0].content == 'no' %}{{ raise_exception('never') }}{% endif %}"
    "{% for m in messages %}{{ m.content }} {% endfor %}{{ strftime_now('%Y') }}"
)
HI = [{"role": "user", "content": "w1 w2"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of 40 words."""
    path = tmp_path_factory.mktemp("tiny")
    words = {f"w{i}": i for i in range(37)} | {"<unk>": 37, "</s>": 38, "2025": 39}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(vocab_size=40, max_position_embeddings=64, eos_token_id=38, bos_token_id=None, **sizes)
        LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def own_clock(monkeypatch):
    """A decoder stops the clock of templates, which is for its own process and not for other tests."""
    monkeypatch.setattr(chat_template_utils, "datetime", chat_template_utils.datetime)


@pytest.fixture
def decoder(folder):
    return Decoder(str(folder), None, 1)


def ask(decoder, messages=HI, **changes):
    chunks = list(decoder.chat(ChatRequest(messages, **({"max_tokens": 8, "temperature": 1.0} | changes))))
    assert all(chunk.finish is None for chunk in chunks[:-1])
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def test_an_answer_has_its_counts_and_a_seed_repeats_it(decoder):
    text, last = ask(decoder)
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("length", 3, 8)
    assert len(text.split()) == 8
    assert ask(decoder)[0] == text
    assert ask(decoder, seed=1)[0] != text


def test_the_cache_changes_nothing(decoder):
    """Token by token with the attention cache, as without it from the text so far."""
    text, _ = ask(decoder, temperature=0.0, max_tokens=6)
    prompt = decoder._tokenize(HI)
    for word in text.split():
        logits, _ = decoder._forward(prompt, None)
        prompt.append(int(logits.argmax()))
        assert decoder._decode(prompt[-1:]) == word


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(decoder):
    text, _ = ask(decoder)
    third = text.split()[2]
    said, last = ask(decoder, stop=(f" {third}",))
    assert (said, last.finish) == (text.partition(f" {third}")[0], "stop")
    assert last.completion_tokens < 8


def test_the_end_token_ends_the_answer(decoder):
    finishes = {ask(decoder, seed=seed, max_tokens=50, temperature=2.0)[1].finish for seed in range(20)}
    assert finishes == {"stop", "length"}


def test_an_answer_does_not_depend_on_the_day(decoder):
    assert decoder._tokenize(HI)[-1] == 39


def test_what_does_not_fit_is_refused_before_anything_is_computed(decoder):
    with pytest.raises(ContextOverflowError, match=r"3 tokens.* 62"):
        ask(decoder, max_tokens=62)
    with pytest.raises(BadRequestError, match=r"refuses the messages.*never"):
        ask(decoder, [{"role": "user", "content": "no"}])


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_says_so(folder, tmp_path, part):
    for file in folder.iterdir():
        if file.name != part:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="cannot load"):
        Decoder(str(tmp_path), None, 1)


def test_code_that_comes_with_a_checkpoint_is_not_run(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "thief", "auto_map": {"AutoConfig": "thief.C", "AutoModelForCausalLM": "thief.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "thief.py").write_text(f"open({str(tmp_path / 'stolen')!r}, 'w')\n")
    with pytest.raises(ModelFileError):
        Decoder(str(tmp_path), None, 1)
    assert not (tmp_path / "stolen").exists()


def test_a_pickle_is_never_read(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name.replace("model.safetensors", "pytorch_model.bin")).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError):
        Decoder(str(tmp_path), None, 1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(b"not read")
    with pytest.raises(ModelFileError, match="no safetensors"):
        Decoder(str(folder), str(adapter), 1)


def test_a_checkpoint_without_a_chat_template_cannot_be_talked_to(folder, tmp_path):
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="no chat template"):
        Decoder(str(tmp_path), None, 1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_an_adapter_changes_the_answer(folder, tmp_path, decoder):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = LlamaForCausalLM.from_pretrained(folder)
        config = LoraConfig(r=4, lora_alpha=64, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
        get_peft_model(base, config).save_pretrained(tmp_path)
    adapted = Decoder(str(folder), str(tmp_path), 1)
    given = decoder._tokenize(HI)
    assert not torch.allclose(adapted._forward(given, None)[0], decoder._forward(given, None)[0], atol=1e-3)
    assert ask(adapted, max_tokens=3)[1].completion_tokens == 3


def test_half_a_character_is_refused_and_the_next_question_answered(decoder):
    with pytest.raises(BadRequestError, match="half of a character"):
        ask(decoder, [{"role": "user", "content": "w1 \ud800"}])
    assert ask(decoder)[1].completion_tokens == 8
