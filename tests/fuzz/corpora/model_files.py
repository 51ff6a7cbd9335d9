"""Files of models that somebody else made: checkpoints, adapters and GGUF."""

import json
import struct
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, agentlab
from tests.fuzz.mutate import damaged_bytes, damaged_json

COPIES = {"models/base": "checkpoint", "adapters/good": "adapter", "adapters/bad": "adapter"}
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
STAGE = {"id": "a", "model": "m", "prompt": "x"}
CHAT_TEMPLATES = """
{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}
{{ 'a' * 10 ** 10 }}
{{ messages.__class__.__mro__ }}
{% for m in messages %}{{ m.content }}{% endfor %}
{{ raise_exception('no') }}
{{ strftime_now('%Y') }}
{% generation %}
{% include '/etc/passwd' %}
{{ messages|map(attribute='content')|join }}{{
""".splitlines()
OF_CHECKPOINTS = """
models list
models path base
train-persona --base base --data my.jsonl --dry-run
train-persona --base base --data my.jsonl --check
compress demo --base base --dry-run
compress plan demo --base base
debate demo --base base --dry-run
adapters merge good --base base --out merged
adapters export good --base base --format gguf --out out.gguf
llm ask hi --max-tokens 2 --adapter good
llm ask hi --max-tokens 2 --model base
""".strip().splitlines()
OF_ADAPTERS = """
adapters list
adapters show bad
adapters diff bad good
adapters blend bad good --out made --any-base
adapters merge bad --base base --out made --any-base
adapters export bad --base base --format gguf --out made --any-base
adapters export bad --base base --format peft --out made --any-base
debate demo --base base --adapter bad --adapter good --dry-run
debate demo --base base --adapter bad --adapter good
debate ping --base base --persona bad --persona good --prompt hi --max-tokens 2
llm ask hi --max-tokens 2 --adapter bad
evolve demo --base base --parent bad --parent good --dry-run
""".strip().splitlines()
OF_GGUF = """
models list
models path bad.gguf
pipeline models ./my.yaml
pipeline ./my.yaml --dry-run
pipeline validate ./my.yaml
""".strip().splitlines()
BY_LLAMA_CPP = ("models import bad.gguf", "llm ask hi --max-tokens 1 --model bad.gguf")


def checkpoint(rng: Random, shelf: Path) -> Case:
    """One file of a checkpoint is wrong."""
    names = sorted(path.name for path in (shelf / "checkpoint").iterdir())
    name = rng.choice(("config.json", *names))
    content = (shelf / "checkpoint" / name).read_bytes()
    match Path(name).suffix:
        case ".jinja":
            content = rng.choice(CHAT_TEMPLATES).encode()
        case ".json":
            content = damaged_json(rng, content)
        case _:
            content = _damaged_tensors(rng, content)
    files = {f"models/base/{name}": content, "my.jsonl": (json.dumps(TALK) + "\n").encode() * 20}
    return Case([agentlab(rng.choice(OF_CHECKPOINTS))], files, COPIES)


def adapter(rng: Random, shelf: Path) -> Case:
    """The card or the weights of an adapter are wrong."""
    name = rng.choice(("adapter_config.json", "adapter_model.safetensors"))
    content = (shelf / "adapter" / name).read_bytes()
    content = _damaged_tensors(rng, content) if name.endswith("safetensors") else damaged_json(rng, content)
    return Case([agentlab(rng.choice(OF_ADAPTERS))], {f"adapters/bad/{name}": content}, COPIES)


def gguf(rng: Random, shelf: Path) -> Case:
    """The header of a GGUF is wrong; now and then llama.cpp sees it, in its worker."""
    content = (shelf / "gguf" / "tiny.gguf").read_bytes()
    content = damaged_bytes(rng, content, within=content.find(b"token_embd.weight") + 1000)
    config = {"models": {"m": {"file": "bad.gguf"}}, "base_pipeline": {"stages": [STAGE]}}
    line = rng.choice(OF_GGUF if rng.random() < 0.9 else BY_LLAMA_CPP)
    return Case([agentlab(line)], {"models/bad.gguf": content, "my.yaml": json.dumps(config).encode()})


def _damaged_tensors(rng: Random, content: bytes) -> bytes:
    """Safetensors with a header that was damaged as JSON, its length put right; or with damaged bytes."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, content, within=600)
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged_json(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]
