"""A template says what it is allowed to say, sees what it was given, and ends soon whatever it says."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentlab.errors import ConfigError
from agentlab.pipeline.templates.template import compile_template, condition

VALUES: dict[str, Any] = {
    "input": "hello world",
    "item": {"list": [3, 1, 2], "keys": "k", "rows": [{"n": 1, "s": "b"}, {"n": 2, "s": "a"}], "deep": {"_id": "x"}},
    "params": {"tone": "dry"},
    "stages": {
        "items": {"output": "first", "answer": "first", "json": {"ok": True, "list": [1, None]}, "skipped": False},
        "keys": {"output": "second", "answer": "second", "json": None, "skipped": True},
    },
    "previous": {"items": {"output": "before", "answer": "before", "json": None, "skipped": False}},
}
MEBI = 1 << 20
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def rendered(source: str, **values: Any) -> str:
    return compile_template(source).render(VALUES | values)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no tags at all\n", "no tags at all\n"),
        ("{{ input }}!", "hello world!"),
        ("{{ stages.items.output }} {{ stages['keys'].output }} {{ previous.items.output }}", "first second before"),
        ("{{ stages.items.json }} {{ none }} {{ true }} {{ 1.5 }}", '{"ok": true, "list": [1, null]} null true 1.5'),
        ("{{ item.list }} {{ item.keys }} {{ item.list[0] }} {{ item['deep']['_id'] }}", "[3, 1, 2] k 3 x"),
        ("{% if 'world' in input and not stages.items.skipped %}yes{% else %}no{% endif %}", "yes"),
        ("{% for x in item.list if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}", "1/2:3 2/2:2 "),
        ("{% for item in item.rows %}{{ item.s }}{% if not loop.last %}, {% endif %}{% endfor %}", "b, a"),
        ("{% for key, value in params|items %}{{ key }}={{ value }}{% endfor %}", "tone=dry"),
        ("{% for x in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for i in range(1, 7, 2) %}{{ i }}{% endfor %}", "135"),
        ("{% set input = input|upper %}{{ input }}", "HELLO WORLD"),
        ("{{ input[:5] ~ 1 ~ [1] }} {{ input[::-1][0] }}", "hello1[1] d"),
        ("{{ 'a' + 'b' * 3 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ -2 + 1 }}", "abbb 3 3 -1"),
        ("{{ {'a': [1, (2, 3)]} }}", '{"a": [1, [2, 3]]}'),
        ("[{{ 'shown' if stages.keys.skipped }}{{ 'shown' if stages.items.skipped }}]", "[shown]"),
        ("{{ params.mood|default('none') }} {{ params.mood is defined }}", "none false"),
        ("{# a comment #}{% raw %}{{ input }}{% endraw %}", "{{ input }}"),
    ],
)
def test_a_template_shows_its_values(source: str, text: str) -> None:
    assert rendered(source) == text


# What jinja2's own sandbox makes of a template is the reference.
SAME = [
    "{% for c in candidates %}\n{{ loop.index }}/{{ loop.length }} {{ c.model }}: {{ c.output }}\n{% endfor %}\nend\n",
    "{% for c in candidates if c.model == 'n' %}{{ loop.first }}{{ c.output }}{% else %}none{% endfor %}",
    "{% for a, b in params|items %}{{ loop.revindex }}{{ a }}{{ b }}{{ loop.previtem is defined }}{% endfor %}",
    "{% set x = 1 %}{% for i in range(3) %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% if params.tone == 'x' %}a{% elif params|length > 0 and not none %}b{% else %}c{% endif %}",
    "{{ 'a' if 1 < item.list|length < 5 else 'b' }}{{ ''|default('e', true) }}{{ params.x|default('d') }}",
    "{{ params.x is defined }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 1 is not none }}{{ [] is mapping }}",
    "{{ input|trim|lower|replace('o', '0')|replace('l', 'L', 1)|capitalize }}{{ input[:3] ~ 1 }}{{ input[-1] }}",
    "{{ candidates|map(attribute='output')|join(', ') }}{{ candidates|selectattr('model', 'eq', 'm')|first }}",
    "{{ item.list|sort|join }}{{ item.list|sort(true)|join }}{{ ['b', 'A']|sort(false, true)|join }}",
    "{{ item.list|max }}{{ item.list|sum }}{{ item.list|last }}{{ ['b', 'A', 'B']|unique|join }}",
    "{{ range(6)|select('even')|join(',') }}{{ range(6)|reject('even')|join(',') }}{{ [0, 1]|select|list|length }}",
    "{{ 7 // 2 + 7 % 2 - 2 * -3 }} {{ 7 / 2 }} {{ 2.5|round }} {{ 2.34|round(1, 'ceil') }} {{ '3.9'|int }}",
    "{{ 'a long text that is cut at a word'|truncate(12) }}{{ 'abcdefghijklmnop'|truncate(5, true, '~') }}",
    "{{ 'a\nb\n\nc'|indent(2) }}{{ 'a\nb\n\nc'|indent(2, true, true) }}{{ \"they're here\"|title }}",
    "{#- a comment -#}   {%- if true %}   x   {%- endif %}\n  {% if true %}\n  y\n  {% endif %}\nz",
    "{{ {'a': 1}['a'] }}{{ (1, 2)|length }}{{ [1] == [1] }}{{ 'o' in input }}{{ 9 not in item.list }}",
]


@pytest.mark.parametrize("source", SAME)
def test_it_says_what_jinja_says(source: str) -> None:
    reference = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    values = VALUES | {"candidates": [{"model": "m", "output": "1st"}, {"model": "n", "output": "2nd"}]}
    expected = reference.from_string(source).render(values)
    for python, as_json in (("True", "true"), ("False", "false"), ("'", '"')):
        expected = expected.replace(python, as_json)
    assert compile_template(source).render(values).replace("'", '"') == expected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("' a '|trim ~ '|'", "a|"),
        ("input|split|map('capitalize')|join('-')", "Hello-World"),
        ("'a,b'|split(',')", '["a", "b"]'),
        ("'a\r\nb\n'|lines", '["a", "b"]'),
        ("'a\nb'|indent(2)", "a\n  b"),
        ("input|replace('l', 'L', 2)", "heLLo world"),
        ("input|truncate(8, true, '..')", "hello world"),
        ("'hello my dear world'|truncate(11)", "hello..."),
        ("input|startswith('hello') and input|endswith('world')", "true"),
        ("item.list|sort|first ~ item.list|sort|last ~ item.list|max ~ item.list|sum", "1336"),
        ("item.rows|sort(attribute='s')|map(attribute='n')", "[2, 1]"),
        ("item.rows|selectattr('n', 'gt', 1)|list", '[{"n": 2, "s": "a"}]'),
        ("item.rows|sum(attribute='n') ~ item.rows|join('+', 's')", "3b+a"),
        ("[1, 1, true, '1', 'A', 'a']|unique", '[1, true, "1", "A"]'),
        ("[1, 2, 3]|select('odd')", "[1, 3]"),
        ("('12'|int) + ('x'|int(1)) + ('1.5'|float)", "14.5"),
        ("3.14159|round(2)", "3.14"),
        ("{'ä': 1}|tojson(2)", '{\n  "ä": 1\n}'),
        ("'<b>'|tojson", '"<b>"'),
        ("[3, 1]|reverse ~ 'ab'|reverse", "[1, 3]ba"),
        ("(item.list|length) ~ (input|count)", "311"),
    ],
)
def test_filters(expression: str, text: str) -> None:
    source = "{{ " + expression + " }}"
    assert rendered(source) == text


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("'DONE' in output", True),
        ("json.score >= 0.5 and visit < 3", True),
        ("stages.items.json.ok", True),
        ("stages.items.json.list[1]", False),
        ("output is in ['x', 'y']", False),
        ("output|trim == ''", False),
        ("json.list|length", False),
        ("json.missing is undefined", True),
        ("visit is divisibleby 2", True),
        ("visit is odd", False),
    ],
)
def test_a_condition_holds_or_does_not(source: str, holds: bool) -> None:
    values = VALUES | {"output": "DONE ", "json": {"score": 0.5, "list": []}, "visit": 2}
    assert condition(source).holds(values) is holds


class Program:
    """An object of the program among the values, which ought to be plain data."""

    secret = "s3cret"

    def __str__(self) -> str:
        return self.secret


@pytest.mark.parametrize(
    "expression",
    [
        *("item.object", "item.object.secret", "item.object|string", "item.object|default('x')", "item.object|tojson"),
        *("[item.object]|join", "item.list", "item.list|map('string')|join", "item.list|map(attribute='secret')|join"),
        *("item.list|first", "item.list|sort", "item.list|unique", "item.list|max", "item.object == 1", "item|items"),
        *("item.object ~ ''", "item.object + 1", "item.generator.gi_frame", "item.generator|list", "item.function"),
        *("item.object['secret']", "1 if item.object in [1] else 2", "item.list|select('eq', 1)", "-item.object"),
    ],
)
def test_objects_of_the_program_are_not_shown(expression: str) -> None:
    strangers = {"object": Program(), "list": [Program()], "generator": (n for n in range(3)), "function": print}
    with pytest.raises(ConfigError) as caught:
        rendered("{{ " + expression + " }}", item=strangers)
    assert "s3cret" not in caught.value.message


def test_what_a_template_uses_is_known_before_it_runs() -> None:
    template = compile_template(
        "{% if stages.a.skipped %}{{ item.x }}{% endif %}{% for x in stages['b'].json %}{{ x }}{% endfor %}"
        "{{ previous.c.output ~ input }}"
    )
    assert template.stages == {"a", "b"}
    assert template.previous == {"c"}
    assert template.names == {"stages", "previous", "item", "input"}
    assert condition("stages.d.output == output").stages == {"d"}


def test_the_same_source_is_compiled_once() -> None:
    assert compile_template("{{ input }} once") is compile_template("{{ input }} once")


def test_a_value_that_holds_template_syntax_stays_as_it_is() -> None:
    hostile = "{{ 7 * 7 }}{% for x in range(9) %}{{ input }}{% endfor %}{# gone #}"
    assert rendered("{{ input }}{{ item.x }}", input=hostile, item={"x": hostile}) == hostile * 2


REFUSED = [
    ("{{ inptu }}", "did you mean input"),
    ("{{ input|uper }}", "did you mean upper"),
    ("{{ input is strng }}", "did you mean string"),
    ("{{ stages.items.outptu }}", "did you mean output"),
    ("{{ stages.items }}", "write stages.items.output"),
    ("{{ stages[input].output }}", "needs a literal stage name"),
    ("{{ stages }}", "stages.NAME.output"),
    ("{% set s = stages %}", "stages.NAME.output"),
    ("{% set stages = {} %}", "choose another name"),
    ("{{ input.split(',') }}", r"write x\|split"),
    ("{{ input.strip() }}", r"write x\|trim"),
    ("{{ input|truncate(1, 2, 3, 4) }}", "it takes length"),
    ("{{ input|upper(*[1]) }}", "not supported in templates"),
    ("line 1\n\n{{ nope }}", "line 3 of the template"),
    ("{{ input", "line 1"),
    ("{% if input %}", "line 1"),
    ("{{ loop.index }}", "there is no 'loop'"),
    ("{% for x in [1] %}{% endfor %}{{ x }}", "there is no 'x'"),
    ("{{ 1e999 }}", "too large"),
    ("{{ " + "9" * 5_000 + " }}", "digits"),
    ("{{ 0x" + "f" * 5_000 + " }}", "digits"),
    ("x" * 65_537, "65,536 characters"),
    # ways out of other template languages
    ("{{ ''.__class__ }}", "__class__"),
    ("{{ ''.__mro__ }}", "__mro__"),
    ("{{ input._private }}", "_private"),
    ("{{ input|attr('__class__') }}", "no filter 'attr'"),
    ("{{ '{0.__class__}'.format(input) }}", "methods cannot be called"),
    ("{{ '{x.__class__}'.format_map({'x': 1}) }}", "methods cannot be called"),
    ("{{ ''.join.__globals__ }}", "__globals__"),
    ("{{ (1 for x in [1]).gi_frame }}", "line 1"),
    ("{{ self }}", "no 'self'"),
    ("{{ self._TemplateReference__context }}", "not supported in templates"),
    ("{{ config }}", "no 'config'"),
    ("{{ cycler('a')('b') }}", "only range"),
    ("{{ joiner() }}", "only range"),
    ("{{ namespace() }}", "only range"),
    ("{{ lipsum.__globals__ }}", "__globals__"),
    ("{{ lipsum() }}", "only range"),
    ("{{ dict() }}", "only range"),
    ("{{ item|map(attribute='a', attribute='b') }}", "repeated"),
    ("{{ input() }}", "only range"),
    ("{{ [].append(1) }}", "methods cannot be called"),
    ("{{ caller() }}", "only range"),
    ("{% for x in [1] %}{{ loop([1]) }}{% endfor %}", "only range"),
    ("{% for x in [1] %}{{ loop.cycle(1) }}{% endfor %}", "methods cannot be called"),
    ("{% for x in [1] recursive %}{% endfor %}", "recursive"),
    ("{% include 'x' %}", "include"),
    ("{% import 'x' as x %}", "import"),
    ("{% from 'x' import y %}", "import"),
    ("{% extends 'x' %}", "extends"),
    ("{% block a %}{% endblock %}", "block"),
    ("{% macro a() %}{{ a() }}{% endmacro %}", "macro"),
    ("{% call input() %}{% endcall %}", "call"),
    ("{% filter upper %}{% endfilter %}", "filter"),
    ("{% set x %}a{% endset %}", "set"),
    ("{% autoescape true %}{% endautoescape %}", "autoescape"),
    ("{% set x.y = 1 %}", "plain names"),
    ("{% do input %}", "unknown tag"),
    ("{{ input ** 2 }}", "power"),
    ("{% with x = 1 %}{% endwith %}", "with"),
    ("{{" * 30_000, "line 1"),
    ("{#" * 30_000, "line 1"),
    ("{{ " + "(" * 60_000, "nesting"),
    # depth
    ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "nesting"),
    ("{{ " + "[" * 200 + "]" * 200 + " }}", "nesting"),
    ("{{ " + "not " * 5_000 + "1 }}", "nesting"),
    ("{{ " + "-" * 20_000 + "1 }}", "nesting"),
    ("{{ 1" + " + 1" * 5_000 + " }}", "nesting"),
    ("{{ input" + "|upper" * 5_000 + " }}", "nesting"),
    ("{% for x in [1] %}" * 25 + "{% endfor %}" * 25, "nested"),
    ("{% if 1 %}" * 500 + "{% endif %}" * 500, "nesting"),
]


@pytest.mark.parametrize(("source", "sentence"), REFUSED, ids=[source[:40] for source, _ in REFUSED])
def test_what_is_not_allowed_is_refused_before_it_runs(source: str, sentence: str) -> None:
    start_time = time.perf_counter()
    with pytest.raises(ConfigError, match=sentence):
        compile_template(source)
    assert time.perf_counter() - start_time < 2


def test_a_condition_that_fails_is_quoted_as_it_is() -> None:
    with pytest.raises(
        ConfigError, match=r"^The condition \"\{'a': '\{0\}'\}.b\": the mapping has no 'b'; it has a\.$"
    ):
        condition("{'a': '{0}'}.b").holds({})
    with pytest.raises(ConfigError, match="expected true or false, not a list"):
        condition("[1]").holds({})


@pytest.mark.parametrize("source", ["{{ input }}", "{% if 1 %}", "input ==", "input input", "", "input.upper()", "x"])
def test_a_condition_is_one_expression(source: str) -> None:
    with pytest.raises(ConfigError, match="in the condition"):
        condition(source)


FAILING = [
    ("{{ item.lst }}", "'lst'; did you mean list"),
    ("{{ stages.itms.output }}", "'itms'; did you mean items"),
    ("{{ candidates }}", "no candidates here; available: input"),
    ("a\nb\n{{ item.lst }}", "Line 3"),
    ("{{ item.lst.more }}", "did you mean list"),
    ("{{ [item.lst] }}{{ item.lst ~ 'a' }}", "did you mean list"),
    ("{{ item.lst|upper }}", "did you mean list"),
    ("{% for x in item.lst %}{% endfor %}", "did you mean list"),
    ("{% if item.lst == 1 %}{% endif %}", "did you mean list"),
    ("{{ item.lst + 1 }}", "did you mean list"),
    ("{{ item.rows|map(attribute='m') }}", "no 'm'"),
    ("{{ item.list[9] }}", "a list has no '9'"),
    ("{{ input + 1 }}", "as text, use `~`"),
    ("{{ input < 1 }}", "not supported"),
    ("{{ 1 / 0 }}", "division by zero"),
    ("{{ none|upper }}", "expected text, not null"),
    ("{% for x in input %}{% endfor %}", r"text has no elements; .*\|lines"),
    ("{% set a, b = [1] %}", "unpack"),
    ("{{ {1: 2} }}", "a mapping key must be text"),
    ("{{ []|first }}", "empty"),
    ("{% for x in [1] %}{{ loop }}{% endfor %}", "LoopContext"),
    # a value's Python attributes
    ("{{ ''['__class__'] }}", "text has no '__class__'"),
    ("{{ item['__class__'] }}", "no '__class__'"),
    ("{{ item.list['append'] }}", "no 'append'"),
    ("{{ input.upper }}", "text has no 'upper'"),
    ("{{ 1.5.real }}", "a number has no 'real'"),
    ("{{ item.rows|map(attribute='__class__') }}", "no '__class__'"),
    ("{{ ['a']|map(attribute='__class__.__mro__') }}", "no '__class__'"),
    ("{{ ['a']|map('attr', '__class__') }}", "no filter 'attr'"),
    ("{{ ['a']|map('map', ' each', -9) }}", "no elements"),
    ("{{ [['a']]|map('map', ' each', -9) }}", "no filter ' each'"),
    ("{{ ['a']|select('callable') }}", "no test 'callable'"),
    ("{% for x in [1] %}{{ loop['_iterable'] }}{% endfor %}", "LoopContext"),
    # size
    ("{{ 'a' * 1000000000 }}", "exceeds the limit"),
    ("{{ 1000000000 * 'a' }}", "does not work on"),
    ("{{ [1] * 1000000000 }}", "expected a number, not a list"),
    ("{{ '%1000000000d' % 1 }}", "does not work on"),
    ("{{ '%1000000000d' is even }}", "expected a number"),
    ("{{ '%1000000000d' is divisibleby(3) }}", "expected a number"),
    ("{{ ['%1000000000d']|select('odd') }}", "expected a number"),
    ("{{ 'a'|indent(1000000000, true) }}", "whole number from 0 to 100"),
    ("{{ 'a'|truncate(1000000000) }}", "whole number"),
    ("{{ 1|round(1000000000) }}", "whole number"),
    ("{{ range(1000000000) }}", "at most 100,000"),
    ("{{ big|replace('', big) }}".replace("big", "('a' * 100000)"), "exceeds the limit"),
    ("{{ range(1000)|join('a' * 10000) }}", "exceeds the limit"),
    ("{% set a = 9 %}" + "{% set a = a * a %}" * 40 + "{{ a }}", "too large"),
    ("{% set a = 'a' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}", "exceeds the limit"),
    ("{% set a = 'a' %}" + "{% set a = a + a %}" * 40 + "{{ a }}", "exceeds the limit"),
    ("{% set a = [] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}", "steps"),
    ("{% set a = [] %}{% set b = [] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60 + "{{ a == b }}", "steps"),
    ("{% set a = {} %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a|tojson }}", "steps"),
    ("{% set a = 1 %}" + "{% set a = {'k': a}|items %}" * 40 + "{{ {'a': 1}[a] }}", "no '"),
    # work
    ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
    ("{% for i in range(9999) %}{% for j in range(9999) if i == j %}{% endfor %}{% endfor %}", "steps"),
    ("{% for i in range(99999) %}" + "{{ i }}" * 100 + "{% endfor %}", "steps"),
    ("{% for i in range(9999) %}" + "a" * 9_999 + "{% endfor %}", "output exceeds"),
]


@pytest.mark.parametrize(("source", "sentence"), FAILING, ids=[source[:40] for source, _ in FAILING])
def test_what_cannot_be_rendered_ends_in_a_sentence(source: str, sentence: str) -> None:
    start_time = time.perf_counter()
    with pytest.raises(ConfigError, match=sentence) as raised:
        rendered(source)
    assert raised.value.message.startswith("Line ")
    assert time.perf_counter() - start_time < 2


HUGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "a " * (2 * MEBI),
    "wide text": lambda: "ΐ" * (4 * MEBI),
    "lines": lambda: "\n" * (4 * MEBI),
    "numbers": lambda: list(range(300_000)),
    "numbers of one hash": lambda: [number * (2**61 - 1) for number in range(60_000)],
    "nested": lambda: nested(5_000),
    "a large number": lambda: 10**4_000,
}
OPERATIONS = (
    *("input", "input|upper", "input|title", "input|indent(99)", "input|replace('a', 'b')", "input|trim('ab cd')"),
    *("input|lines", "input|split", "input|tojson(1)", "input|sort", "input|unique", "input|join", "input|max"),
    *("input|map('string')", "input|select('eq', 1)", "input|string", "input == input", "'ab' in input", "input[::-1]"),
    *("input|reverse", "input ~ 'a'", "input + input", "input * 9", "input|int", "input|float", "input|abs"),
)


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_many_operations_on_huge_values_end_soon(operation: str, value: str) -> None:
    source = "{% for i in range(500) %}{% for j in range(500) %}{% set x = " + operation + " %}{% endfor %}{% endfor %}"
    template, values = compile_template(source), {"input": HUGE[value]()}
    start_time = time.perf_counter()
    with pytest.raises(ConfigError):
        template.render(values)
    assert time.perf_counter() - start_time < 2


def test_an_input_of_the_longest_size_passes_and_a_longer_one_is_named() -> None:
    assert len(rendered("{{ input }}", input="x" * 4 * MEBI)) == 4 * MEBI
    with pytest.raises(ConfigError, match=r"text of 4,194,305 characters exceeds the limit of 4,194,304"):
        rendered("{{ input }}", input="x" * (4 * MEBI + 1))
    with pytest.raises(ConfigError, match="the output exceeds 4,194,304 characters"):
        rendered("{{ input }}.", input="x" * 4 * MEBI)


def test_a_budget_is_of_one_rendering() -> None:
    template = compile_template("{% for i in range(60000) %}{{ i }}{% endfor %}")
    assert len(template.render({})) == len(template.render({})) == 288_890


def test_a_name_set_in_a_loop_ends_with_it() -> None:
    with pytest.raises(ConfigError, match="there is no 'inner'"):
        compile_template("{% for x in [1] %}{% set inner = x %}{% endfor %}{{ inner }}")
    with pytest.raises(ConfigError, match="there is no inner here"):
        rendered("{% if not input %}{% set inner = 1 %}{% endif %}{{ inner }}")


def test_a_long_loop_over_real_values_is_no_trouble() -> None:
    rows = [{"name": f"n{number}", "score": number / 7} for number in range(2_000)]
    source = "{% for row in item.rows %}{{ loop.index }}. {{ row.name }}: {{ row.score|round(2) }}\n{% endfor %}"
    assert rendered(source, item={"rows": rows}).count("\n") == 2_000


def test_a_large_input_is_filled_in_at_once() -> None:
    template, values = (
        compile_template("Answer this: {{ input }}\nBe {{ params.tone }}.".ljust(100)),
        VALUES | {"input": "a" * 102_400},
    )
    durations = []
    for _ in range(20):
        start_time = time.perf_counter()
        template.render(values)
        durations.append(time.perf_counter() - start_time)
    assert min(durations) < 0.001


SNIPPETS = st.sampled_from(
    [
        *(
            "{{ ",
            " }}",
            "{% ",
            " %}",
            "{#",
            "#}",
            "{%- if ",
            "{% endif %}",
            "{% for x in ",
            "{% endfor %}",
            "{% set a = ",
        ),
        *(
            "input",
            "stages.a.output",
            "item",
            "loop.index",
            "range(",
            ")",
            "(",
            "[",
            "]",
            "|",
            "upper",
            "join",
            " is ",
            "'",
        ),
        *(
            '"',
            "\\",
            ".",
            ",",
            "~",
            "+",
            "**",
            "%",
            "__class__",
            "in ",
            "not ",
            "1",
            "1e9",
            "\n",
            "{% raw %}",
            "\ud800",
            "a",
        ),
    ]
)


def sentence(call: Callable[[], object]) -> str:
    """What an error of the tree says; empty without one. Any other error goes on."""
    try:
        call()
    except ConfigError as error:
        return error.message
    return ""


@given(st.text() | st.lists(SNIPPETS, max_size=24).map("".join))
def test_any_source_compiles_or_is_refused(source: str) -> None:
    message = sentence(lambda: compile_template(source))
    assert message.startswith("line ") or (not message and compile_template(source).source == source)
    message = sentence(lambda: condition(source))
    assert message.startswith("in the condition: ") or (not message and condition(source).source == source)


@given(st.lists(SNIPPETS, max_size=24).map("".join), PLAIN, PLAIN)
def test_whatever_compiles_renders_or_ends_in_a_sentence(source: str, text: Any, item: Any) -> None:
    message = sentence(lambda: compile_template(source).render({"input": text, "item": item}))
    assert message == "" or message.lower().startswith("line ")


@given(PLAIN, PLAIN, st.sampled_from([*OPERATIONS, "input[item]", "item in input", "input|sum", "input|items"]))
def test_any_value_renders_or_ends_in_a_sentence(text: Any, item: Any, operation: str) -> None:
    source = "{{ input }}{% set x = " + operation + " %}{% for y in x %}{{ y ~ item ~ loop.last }}{% endfor %}"
    message = sentence(lambda: compile_template(source).render({"input": text, "item": item}))
    assert message == "" or message.startswith("Line 1 of the template: ")


@given(PLAIN)
def test_a_value_is_shown_as_json_and_a_text_as_itself(value: Any) -> None:
    text = rendered("{{ item }}", item=value)
    assert text == (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
