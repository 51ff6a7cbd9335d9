"""Files that hold a user's data: series, questions and conversations; and templates of prompts."""

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, agentlab
from tests.fuzz.mutate import ODD_TEXTS, as_json, damaged_bytes, damaged_tree, odd_value
from tests.fuzz.shelf import PIPELINE

TAGS = (
    *"""
{{ input }}
{{ stages.a.output }}
{{ params.x }}
{{ 10 ** 9 ** 9 }}
{{ 'a' * 10 ** 10 }}
{{ range(10 ** 12) }}
{{ input|replace('', input) }}
{{ input.__class__ }}
{{ self }}
{{ loop }}
{{ a }}
{{ input|center(10 ** 9) }}
{{ input|indent(10 ** 9) }}
{{ '%99999999d' % 1 }}
{{ '{0:>999999999}'.format(1) }}
{{ input|tojson }}
{{ input[::-1] }}
{{ {'a': [1]}|dictsort }}
{{ input|batch(0)|list }}
{{ 1.5e308 * 10 }}
{{ 1 / 0 }}
{{ -input }}
{{ (1, 2, 3)|join(input) }}
{% for a in range(99999) %}
{% endfor %}
{% if input %}
{% endif %}
{% set a = input %}
{% set a = a ~ a %}
{% include 'x' %}
{% macro m() %}
{% endmacro %}
{% raw %}
""".strip().splitlines(),
    *("{#", "#}", "{{", "}}", "{%", "%}", "\x00", "\u2028"),
    *("{{ " + "(" * 300, "{{ " + "-" * 3000 + "1 }}", "{{ a" + ".b" * 3000 + " }}"),
)
ROWS: list[Any] = [
    {"id": "q1", "question": "What is 1 + 1?", "answer": "2", "check": "exact"},
    {"prompt": "Name a colour.", "choices": ["red", "blue"], "answer": "red"},
    {"input": "Say hi.", "expected": "hi", "params": {"x": 1}},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
]
OF_ROWS = """
debate demo --questions my.jsonl --dry-run
debate demo --questions my.jsonl --base base --dry-run
evolve demo --questions my.jsonl --base base --parent adapter --parent adapter --dry-run
train-persona --data my.jsonl --check
train-persona --data my.jsonl --base base --dry-run
pipeline ./far.yaml --inputs my.jsonl
compress demo --base base --text my.jsonl --dry-run
""".strip().splitlines()
OF_SERIES = "nas demo --data my.csv --dry-run --set=llm=none"


def csv(rng: Random, _: Path) -> Case:
    """A series for `nas`: cells, lines or bytes are wrong."""
    rows = [["date", "load", "wind"]]
    for hour in range(rng.choice((0, 1, 30, 300))):
        date = f"2020-{1 + hour // 672:02}-{1 + hour // 24 % 28:02} {hour % 24:02}:00"
        rows.append([date, str(hour**2 % 17), str(hour % 5)])
    for _change in range(rng.randint(0, 4)):
        row = rng.choice(rows)
        match rng.randrange(4):
            case 0:
                row[rng.randrange(len(row) + 1) :] = [str(odd_value(rng))]
            case 1:
                row.append(str(odd_value(rng)))
            case 2:
                rows.append(row)
            case _:
                rng.shuffle(rows)
    text = rng.choice(("\n", "\r\n", "\r")).join(rng.choice((",", ",", ";", "\t")).join(row) for row in rows)
    content = text.encode(rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    if rng.random() < 0.4:
        content = damaged_bytes(rng, content)
    split = "--set=data.split={train: 0.6, val: 0.2, test: 0.2}"
    target = f"--target={rng.choice(ODD_TEXTS)}".replace("\x00", "")
    flags = rng.sample(("--date-column=date", "--target=load", "--horizon=2", target, split), 3)
    return Case([[*agentlab(OF_SERIES), *flags]], {"my.csv": content})


def jsonl(rng: Random, _: Path) -> Case:
    """Lines of questions, inputs or conversations, damaged as trees or bytes."""
    rows = [rng.choice(ROWS) for _row in range(rng.choice((1, 3, 20)))]
    rows = [damaged_tree(rng, row) if rng.random() < 0.4 else row for row in rows]
    content = b"\n".join(map(as_json, rows))
    if rng.random() < 0.3:
        content = damaged_bytes(rng, content)
    files = {"my.jsonl": content, "far.yaml": as_json(PIPELINE)}
    return Case([agentlab(rng.choice(OF_ROWS))], files, {"models/base": "checkpoint", "adapters/adapter": "adapter"})


def template(rng: Random, _: Path) -> Case:
    """A prompt and a condition of a pipeline that really runs; its model is a script."""
    tree: Any = copy.deepcopy(PIPELINE)
    first, second = tree["base_pipeline"]["stages"]
    text = "".join(rng.choice(TAGS) for _tag in range(rng.randint(1, 5)))
    first["prompt"] = damaged_bytes(rng, text.encode()).decode(errors="replace") if rng.random() < 0.3 else text
    if rng.random() < 0.3:
        second["when"] = rng.choice(TAGS).strip("{}% ") or "x"
    if rng.random() < 0.2:
        second["system"] = rng.choice(TAGS)
    return Case([agentlab("pipeline ./far.yaml --input words")], {"far.yaml": json.dumps(tree).encode()})
