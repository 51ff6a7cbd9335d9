"""A tiny checkpoint with random weights: how an answer starts, stops, repeats itself, and what is refused.

The model means nothing; what counts is that its words come out as asked.
"""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from agentlab.errors import BadRequestError, ContextOverflowError, MissingFileError, ModelFileError
from agentlab.hf import prefill
from agentlab.hf.cache import HEADROOM
from agentlab.hf.decoder import HfDecoder
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.workers.chat import EngineRequest

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT has opinions on every model
TEMPLATE = (
    "{% if messages[0].content == 'no' %}{{ raise_exception('never') }}{% endif %}"
    "{% for m in messages %}{{ m.content }} {% endfor %}{{ strftime_now('%Y') }}"
)
HI = [{"role": "user", "content": "w1 w2"}]


def tiny(path, hidden_size=16):
    sizes = {"hidden_size": hidden_size, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(vocab_size=40, max_position_embeddings=64, eos_token_id=38, bos_token_id=None, **sizes)
        LlamaForCausalLM(config).save_pretrained(path)
    return path


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
    return tiny(path)


@pytest.fixture
def decoder(folder):
    return HfDecoder(str(folder), "auto", 1)


def ask(decoder, messages=HI, **changes):
    chunks = list(decoder.chat(EngineRequest(messages, **({"max_tokens": 8, "temperature": 1.0} | changes))))
    assert all(chunk.finish is None for chunk in chunks[:-1])
    return "".join(chunk.text for chunk in chunks), chunks[-1]


@torch.inference_mode()
def logits_of(decoder, tokens):
    return decoder._model(torch.tensor([tokens])).logits[0, -1]


def test_an_answer_has_its_counts_and_a_seed_repeats_it(decoder):
    text, last = ask(decoder)
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("length", 3, 8)
    assert len(text.split()) == 8
    assert last.logprob is None
    assert ask(decoder)[0] == text
    assert ask(decoder, seed=1)[0] != text


def test_the_cache_changes_nothing(decoder):
    """Token by token with the attention cache, as without it from the text so far."""
    text, last = ask(decoder, temperature=0.0, max_tokens=6, logprob=True)
    prompt, logprobs = decoder._tokenize(HI), []
    for word in text.split():
        logits = logits_of(decoder, prompt)
        prompt.append(int(logits.argmax()))
        logprobs.append(float(logits.log_softmax(-1).max()))
        assert decoder._decode(prompt[-1:]) == word
    assert last.logprob == pytest.approx(sum(logprobs) / 6, abs=1e-5)


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(decoder):
    text, _ = ask(decoder)
    third = text.split()[2]
    answer, last = ask(decoder, stop=(f" {third}",))
    assert (answer, last.finish) == (text.partition(f" {third}")[0], "stop")
    assert last.completion_tokens < 8


def test_the_end_token_ends_the_answer(decoder):
    finishes = {ask(decoder, seed=seed, max_tokens=50, temperature=2.0)[1].finish for seed in range(20)}
    assert finishes == {"stop", "length"}


def test_an_answer_does_not_depend_on_the_day(decoder):
    assert decoder._tokenize(HI)[-1] == 39


def test_what_does_not_fit_is_refused_before_anything_is_computed(decoder):
    with pytest.raises(ContextOverflowError, match=r"3 tokens.* 62"):
        ask(decoder, max_tokens=62)
    with pytest.raises(BadRequestError, match=r"rejects the messages.*never"):
        ask(decoder, [{"role": "user", "content": "no"}])


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_says_so(folder, tmp_path, part):
    for file in folder.iterdir():
        if file.name != part:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="cannot load"):
        HfDecoder(str(tmp_path), "auto", 1)


def test_code_that_comes_with_a_checkpoint_is_not_run(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "thief", "auto_map": {"AutoConfig": "thief.C", "AutoModelForCausalLM": "thief.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "thief.py").write_text(f"open({str(tmp_path / 'stolen')!r}, 'w')\n")
    with pytest.raises(ModelFileError):
        HfDecoder(str(tmp_path), "auto", 1)
    assert not (tmp_path / "stolen").exists()


def test_a_pickle_is_never_read(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name.replace("model.safetensors", "pytorch_model.bin")).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError):
        HfDecoder(str(tmp_path), "auto", 1)


def test_a_checkpoint_without_a_chat_template_cannot_be_talked_to(folder, tmp_path):
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="no chat template"):
        HfDecoder(str(tmp_path), "auto", 1)


def test_half_a_character_is_refused_and_the_next_question_answered(decoder):
    with pytest.raises(BadRequestError, match="a lone surrogate"):
        ask(decoder, [{"role": "user", "content": "w1 \ud800"}])
    assert ask(decoder)[1].completion_tokens == 8


def test_the_type_it_computes_in_can_be_chosen(folder):
    assert HfDecoder(str(folder), "bfloat16", 1)._model.dtype is torch.bfloat16


# -- side by side, under adapters -------------------------------------------------------------------------------


def persona(folder, base, seed=0, **card):
    """A random adapter of a tiny checkpoint."""
    targets = ["c_attn"] if (base / "convolutional").exists() else ["q_proj", "v_proj"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(r=4, target_modules=targets)
        config.fan_in_fan_out = targets == ["c_attn"]
        model = get_peft_model(model, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps({"base": card}))
    return str(folder)


@pytest.fixture(scope="module")
def personas(folder, tmp_path_factory):
    parent = tmp_path_factory.mktemp("personas")
    return [None, *(persona(parent / str(seed), folder, seed) for seed in (1, 2))]


def chats(decoder, requests, after=0):
    """What is said when all are asked for a piece in turn, the later ones some pieces later."""
    running = {index: decoder.chat(request) for index, request in enumerate(requests)}
    answers, turn = ["" for _ in requests], 0
    while running:
        for index, chunks in list(running.items()):
            if turn < index * after:
                continue
            chunk = next(chunks)
            answers[index] += chunk.text
            if chunk.finish:
                running.pop(index).close()
        turn += 1
    return answers


@pytest.mark.parametrize("after", [0, 2], ids=["at once", "one after the other"])
def test_side_by_side_each_says_what_it_says_alone(decoder, personas, after):
    requests = [
        EngineRequest(HI, max_tokens=8, adapter=personas[index % 3], temperature=float(index > 3), seed=index)
        for index in range(6)
    ]
    alone = [chats(decoder, [request])[0] for request in requests]
    assert len(set(alone[:3])) == 3
    assert chats(decoder, requests, after) == alone
    assert len(decoder._batch) == 0


def test_a_long_prompt_stalls_nobody_and_is_read_no_further_when_it_is_left(decoder, monkeypatch):
    monkeypatch.setitem(prefill._PIECE, "cpu", 8)
    long = [{"role": "user", "content": " ".join(f"w{number % 30}" for number in range(39))}]
    alone = ask(decoder, long, temperature=0.0)[0]
    running = decoder.chat(EngineRequest(HI, max_tokens=60))
    while not next(running).text:
        pass
    for is_abandoned in (False, True):
        reading, text = decoder.chat(EngineRequest(long, max_tokens=8)), ""
        for _ in range(5):
            text += next(reading).text
            assert next(running).text
        assert not text
        if is_abandoned:
            reading.close()
            assert len(decoder._batch) == 1
        else:
            assert "".join(chunk.text for chunk in reading) == alone


def test_what_the_memory_does_not_hold_waits_in_its_order(decoder):
    decoder._room = 3 * (11 + HEADROOM)
    chunks = [decoder.chat(EngineRequest(HI, max_tokens=size)) for size in (8, 8, 20, 2)]
    texts = [["".join(next(stream).text for _ in range(4))] for stream in chunks]
    assert [all(pieces) for pieces in texts] == [True, True, False, False]  # the last one would fit beside them
    chunks[2].close()
    assert any(next(chunks[3]).text for _ in range(2))
    for stream in chunks:
        stream.close()
    assert (len(decoder._batch), decoder._rows) == (0, {})


def test_one_that_was_left_or_refused_leaves_its_place(decoder, personas, tmp_path):
    running = [decoder.chat(EngineRequest(HI, max_tokens=8, adapter=speaker)) for speaker in personas]
    pieces = [next(chunk.text for chunk in speaker if chunk.text) for speaker in running]
    running[1].close()
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 4}')
    (tmp_path / "adapter_model.bin").write_bytes(b"not read")
    with pytest.raises(MissingFileError, match="only a pickled"):
        next(decoder.chat(EngineRequest(HI, max_tokens=8, adapter=str(tmp_path))))
    assert len(decoder._batch) == 2
    for index in (0, 2):
        remainder = "".join(chunk.text for chunk in running[index])
        assert pieces[index] + remainder == ask(decoder, adapter=personas[index], temperature=0.0)[0]


def test_an_adapter_of_another_base_is_refused_by_its_name(decoder, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    same = persona(tmp_path / "same", folder, path="elsewhere", fingerprint=fingerprint_of(tmp_path / "copy"))
    assert ask(decoder, adapter=same)[1].completion_tokens
    foreign = persona(tmp_path / "other", folder, path="elsewhere", fingerprint="sha256:0")
    with pytest.raises(ModelFileError, match=r"^other cannot be used with tiny.*another base"):
        ask(decoder, adapter=foreign)
    wide = tiny(tmp_path / "wide", hidden_size=32)
    with pytest.raises(ModelFileError, match=r"^larger cannot be used with tiny.*maps 16 to"):
        ask(decoder, adapter=persona(tmp_path / "larger", wide))


def test_layers_that_are_not_linear_go_the_slow_way_and_say_so_once(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "base")
    config = GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=1, n_head=2, eos_token_id=38)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "convolutional").touch()
    decoder = HfDecoder(str(tmp_path / "base"), "auto", 1)
    plain, last = ask(decoder, temperature=0.0)
    assert last.note is None
    adapters = [None, *(persona(tmp_path / name, tmp_path / "base", seed) for seed, name in enumerate(("one", "two")))]
    answer, last = ask(decoder, temperature=0.0, adapter=adapters[1])
    assert "PEFT" in last.note
    assert answer != plain
    requests = [EngineRequest(HI, max_tokens=8, adapter=adapter) for adapter in adapters]
    assert chats(decoder, requests)[:2] == [plain, answer]
    assert ask(decoder, adapter=adapters[2])[1].note is None
