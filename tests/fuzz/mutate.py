"""How inputs are damaged: bytes, and trees of JSON. Everything is drawn from the generator that is handed in."""

import copy
import json
from random import Random
from typing import Any

ODD_TEXTS = (
    *("", " ", "\x00", "a\nb", "\ud800", "\u202e", "é" * 300, "x" * 5000, "9" * 400, "{a: 1}", "{{ a }}", "{% for"),
    *(
        "-",
        "--",
        "-1",
        "0",
        "1e999",
        "nan",
        "inf",
        "1_0",
        "null",
        "true",
        "~",
        "[]",
        "{}",
        ".",
        "..",
        "=",
        "'",
        '"',
        "\\",
    ),
    *(
        "*a",
        "a/b",
        "a=b",
        "a.b.c=1",
        "$(id)",
        "%s%n",
        "[red]x[/red]",
        "[/]",
        "\x1b[31m",
        "!!python/object:x",
        "[]",
        "last",
    ),
    *("${HOME}", "${SLACK_WEBHOOK_URL}", "${OPENAI_API_KEY}", "http://[::1", "file:///etc/passwd", "demo", "scripted"),
    *("../neighbour/kept.txt", "/dev/null", "/dev/zero", "/proc/self/environ", "~nosuchuser/x", "default"),
)
ODD_NUMBERS = (0, -1, 1, 2, 3, 7, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**63, 2**64, 10**30, float("nan"), float("inf"))
ODD_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, *ODD_NUMBERS)
ODD_BYTES = (
    b"\x00",
    b"\xff",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\n",
    b"\r",
    b'"',
    b"{",
    b"[" * 2000,
    b"9" * 5000,
    b"-",
    b"e9",
)


def odd_value(rng: Random) -> Any:
    """A value that hardly any field expects."""
    return copy.deepcopy(rng.choice(ODD_VALUES)) if rng.random() < 0.6 else rng.choice(ODD_TEXTS)


def damaged_bytes(rng: Random, content: bytes, within: int | None = None) -> bytes:
    """The content after one to three changes, all in its first `within` bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        end = min(len(data), within or len(data))
        start = rng.randint(0, end)
        stop = min(end, start + rng.choice((1, 1, 2, 4, 8, 64, 1000)))
        match rng.randrange(6):
            case 0 if start < end:
                data[start] ^= 1 << rng.randrange(8)
            case 1:
                del data[start:]
            case 2:
                del data[start:stop]
            case 3:
                data[start:start] = data[start:stop] * rng.choice((1, 2, 50))
            case 4:
                data[start:stop] = rng.choice(ODD_BYTES)
            case _:
                data[start:stop] = rng.randbytes(stop - start)
    return bytes(data)


def damaged_tree(rng: Random, tree: Any, values: Any = odd_value) -> Any:
    """The tree after one to three changes of its nodes; `values` draws what is put in."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        nodes = list(_nodes(tree))
        if not nodes:
            return values(rng)
        parent, key = rng.choice(nodes)
        match rng.randrange(8):
            case 0:
                del parent[key]
            case 1:
                source, source_key = rng.choice(nodes)
                parent[key] = copy.deepcopy(source[source_key])
            case 2:
                parent[key] = [parent[key]] * rng.choice((1, 2, 30))
            case 3 if isinstance(parent, dict):
                parent[rng.choice(ODD_TEXTS)] = parent.pop(key)
            case 4:
                parent[key] = nested(rng.choice((5, 150, 1000)), parent[key])
            case _:
                parent[key] = values(rng)
    return tree


def nested(depth: int, value: Any) -> Any:
    """The value below `depth` lists."""
    for _ in range(depth):
        value = [value]
    return value


def _nodes(tree: Any) -> Any:
    """Parent and key of every node, without recursion: trees are deep on purpose."""
    waiting = [tree]
    while waiting:
        parent = waiting.pop()
        pairs = parent.items() if isinstance(parent, dict) else enumerate(parent) if isinstance(parent, list) else ()
        for key, value in pairs:
            yield parent, key
            waiting.append(value)


def as_json(tree: Any) -> bytes:
    """JSON, NaN and infinity included."""
    return json.dumps(tree).encode()


def damaged_json(rng: Random, content: bytes, values: Any = odd_value) -> bytes:
    """A JSON file, damaged in its tree or, less often, in its bytes."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, content)
    return as_json(damaged_tree(rng, json.loads(content), values))
