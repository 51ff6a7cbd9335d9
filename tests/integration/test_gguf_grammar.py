"""Grammars of schemas in llama.cpp: its own sampler is fed texts token by token, and the embedded model writes some."""

import contextlib
import ctypes
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.schema import MAX_REPEATS, grammar_of
from agentlab.llm.structured import Rejected, fits
from agentlab.models.store import find
from agentlab.workers.chat import EngineRequest

pytestmark = pytest.mark.model
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return find("smollm2-135m", Workspace.locate(os.environ, REPOSITORY))
    except AgentlabError as error:
        pytest.fail(f"{error.message} Run `make setup`.")


class Sampler:
    """llama.cpp's grammar sampler over the model's vocabulary, which is loaded without its weights."""

    def __init__(self, model: Path) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(model).encode(), params)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._end = llama_cpp.llama_vocab_eos(self._vocabulary)

    def accepts(self, schema: Mapping[str, Any], text: str) -> bool:
        """Whether the schema's grammar allows each token of the text, and then the end."""
        with self._sampler(grammar_of(schema)) as sampler:
            for token in self._tokens(text):
                if not self._allows(sampler, token):
                    return False
                self._api.llama_sampler_accept(sampler, token)
            return self._allows(sampler, self._end)

    @contextlib.contextmanager
    def _sampler(self, grammar: str) -> Iterator[Any]:
        sampler = self._api.llama_sampler_init_grammar(self._vocabulary, grammar.encode(), b"root")
        assert sampler, f"llama.cpp refuses the grammar:\n{grammar}"
        try:
            yield sampler
        finally:
            self._api.llama_sampler_free(sampler)

    def _tokens(self, text: str) -> list[int]:
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        count = self._api.llama_tokenize(self._vocabulary, data, len(data), tokens, len(tokens), False, False)
        return list(tokens[:count])

    def _allows(self, sampler: Any, token: int) -> bool:
        one = self._api.llama_token_data(token, 0.0, 0.0)
        alone = self._api.llama_token_data_array(ctypes.pointer(one), 1, -1, False)
        self._api.llama_sampler_apply(sampler, ctypes.byref(alone))
        return bool(one.logit > -math.inf)


@pytest.fixture(scope="module")
def sampler(model: Path) -> Sampler:
    return Sampler(model)


NUMBER = {"type": "number", "exclusiveMinimum": 0, "maximum": 12.5}
OPTIONAL = {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}}
LINKED = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}
HELD: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"type": "string", "minLength": 1, "maxLength": 3},
        ['"abc"', '"\\n\\u00e9a"', '"日本語"', '"\U0001f600"', '"\\""'],
        ['""', '"abcd"', '"a\nb"', '"a\tb"', '"\x01"', '"\x7f"', '"\\ud83d"', '"\\x"', '"a', "abc"],
    ),
    (
        {"enum": ["a\nb", "\x01", 'é"\\', None, 1.5, [1, {"a": 2}], "\ud83d"]},
        ['"a\\nb"', '"\\u0001"', '"é\\"\\\\"', "null", "1.5", '[1, {"a": 2}]', '"\\ud83d"'],
        ['"a\nb"', '"\x01"', '"anb"', "1.50", "[]"],
    ),
    ({"const": 'tab\tquote"', "type": "string"}, ['"tab\\tquote\\""'], ['"tab\tquote\\""', '"tab"']),
    ({"type": "integer", "enum": ["1", 1, 1.5, True]}, ["1"], ['"1"', "1.5", "true"]),
    ({"type": "integer", "minimum": 13, "maximum": 100_187}, ["13", "99", "100187", "2000"], ["12", "100188", "013"]),
    ({"type": "integer", "exclusiveMinimum": -5, "maximum": 30}, ["-4", "0", "30"], ["-5", "31", "-0", "1.0", "1e1"]),
    ({"type": "integer"}, ["0", "-7", "9007199254740993"], ["00", "1.0", "+1"]),
    (NUMBER, ["0.001", "12.5", "12.500", "1", "12.499"], ["0", "0.0", "0.000", "12.51", "-1", "13", "1e0"]),
    ({"type": "object", "properties": OPTIONAL, "required": ["b"]}, ['{"b": "x"}', '{"a":1,"b":"","c":null}'], ["{}"]),
    (
        {"type": "object", "properties": OPTIONAL, "required": ["b"]},
        [],
        ['{"b":"x","a":1}', '{"b":"","d":1}', '{"b":"",}'],
    ),
    ({"type": "object", "properties": OPTIONAL}, ["{}", '{"c":null}', '{"a":1,"c":null}'], ['{"d":1}', "{,}"]),
    ({"type": "object", "properties": {'a\n"': {}}, "required": ['a\n"']}, ['{"a\\n\\"": 1}'], ['{"a\n\\"": 1}']),
    ({"type": "object", "properties": {"a": {}}, "required": ["a", "z"]}, ['{"a":1,"z":[]}'], ['{"a":1}', '{"z":1}']),
    (
        {"type": "object", "properties": {"ab": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
        ["{}", '{"ab":1}', '{"x":true}', '{"ab":1,"x":true,"y":false}', '{"a":true}', '{"abc":true}', '{"":true}'],
        ['{"ab":true}', '{"\\u0061b":true}', '{"x":1}', '{"ab":1,"ab":true}', '{"x":true,"ab":1}'],
    ),
    ({"type": "array", "items": {"enum": [1]}, "minItems": 1, "maxItems": 3}, ["[1]", "[1, 1,1]"], ["[]", "[1,1,1,1]"]),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False, "minItems": 1},
        ["[1]", "[1, null]"],
        ["[]", "[1,null,2]", "[null]"],
    ),
    ({"type": "string", "pattern": r"^[A-Z]{2}-\d+$"}, ['"AB-12"'], ['"ab-12"', '"AB-"', '"AB-12 "', '"xAB-1"']),
    ({"type": "string", "pattern": r"a\sb"}, ['"xa bx"', '"a\\tb"', '"a\\nb"'], ['"ab"', '"a\tb"', '"a\nb"']),
    (
        {"type": "string", "pattern": r'^(yes|no|"maybe"|[^a-z\\]|\.{2,3})?$'},
        ['"yes"', '"\\"maybe\\""', '"A"', '"\\n"', '""', '".."'],
        ['"b"', '"\\\\"', '"yesno"', '"...."'],
    ),
    ({"type": "string", "format": "date-time"}, ['"2026-11-22T10:00:00Z"'], ['"2026-13-01T10:00:00Z"', '"2026-11-22"']),
    (LINKED, ['{"next": {"next": null}}'], ["{}", '{"next": 1}']),
    ({}, ['{"a": [1, "x", null, {"b": -1.5e3}]}', "3", "[]"], ["{a:1}", '"\n"', "01", "nan"]),
    ({"properties": OPTIONAL, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, ['{"a":1}', '{"b":""}'], ["{}"]),
    ({"type": ["string", "null"], "maxLength": 2}, ["null", '"ab"'], ['"abc"', "1"]),
    (
        {
            "allOf": [
                {"properties": {"a": {"minimum": 1}}, "required": ["a"]},
                {"properties": {"a": {"type": "integer"}}},
            ]
        },
        ['{"a":1}'],
        ['{"a":0}', '{"a":1.5}', "{}"],
    ),
    (
        {"allOf": [{"anyOf": [{"type": "string"}, {"enum": [1, 2]}]}, {"anyOf": [{"const": 2}, {"type": "null"}]}]},
        ["2"],
        ["1", "null", '"a"'],
    ),
    (
        {"$defs": {"none": False}, "properties": {name: {"$ref": "#/$defs/none"} for name in "ab"}},
        ["{}"],
        ['{"a":1}', '{"b":1}'],
    ),
    # llama.cpp would try every way to count parts that may be empty, and never end
    ({"type": "string", "pattern": "^([a-z]{0,20} ?){0,20}$"}, ['""', '"ab cd ef"'], ['"AB"']),
    ({"type": "string", "pattern": "^(((a?){0,512}b?){0,512}c?){0,512}$"}, ['"abcab"'], ['"d"']),
    ({"type": "string", "maxLength": 10**9}, ['"' + "a" * MAX_REPEATS + '"'], ['"' + "a" * (MAX_REPEATS + 1) + '"']),
]


@pytest.mark.parametrize(("schema", "fitting", "misfits"), HELD, ids=range(len(HELD)))
def test_a_grammar_takes_what_fits_and_nothing_else(
    sampler: Sampler, schema: dict[str, Any], fitting: list[str], misfits: list[str]
) -> None:
    assert [text for text in fitting if not sampler.accepts(schema, text)] == []
    assert [text for text in misfits if sampler.accepts(schema, text)] == []


# -- any schema, any text ---------------------------------------------------------------------------------------

Made = tuple[dict[str, Any], "st.SearchStrategy[str]"]  # a schema, and texts that fit it
letters = st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"], exclude_characters="\x7f")


def text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@st.composite
def strings(draw: st.DrawFn) -> Made:
    min_length, extra_length = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    return {"type": "string", "minLength": min_length, "maxLength": min_length + extra_length}, st.text(
        letters, min_size=min_length, max_size=min_length + extra_length
    ).map(text_of)


@st.composite
def numbers(draw: st.DrawFn) -> Made:
    point = draw(st.integers(0, 3))
    low, high = sorted(draw(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000))))
    if point == 0:
        return {"type": "integer", "minimum": low, "maximum": high}, st.integers(low, high).map(str)
    unit = 10**point
    inside = st.integers(low, high).map(lambda n: "0" if n == 0 else f"{n / unit:.{point}f}")
    return {"type": "number", "minimum": low / unit, "maximum": high / unit}, inside


@st.composite
def values(draw: st.DrawFn) -> Made:
    choices = draw(
        st.lists(
            st.none() | st.booleans() | st.integers() | st.text(st.characters(max_codepoint=0x1FFFF), max_size=5),
            min_size=1,
            max_size=4,
        )
    )
    return {"enum": choices}, st.sampled_from(choices).map(
        lambda value: json.dumps(value) if "\\ud" in json.dumps(value) and not _is_whole(value) else text_of(value)
    )


def _is_whole(value: Any) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in str(value))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Made]) -> Made:
    names = draw(st.lists(st.text(letters, max_size=3), unique=True, max_size=3))
    parts = {name: draw(inner) for name in names}
    required = [name for name in names if draw(st.booleans())]
    schema = {"type": "object", "properties": {name: part[0] for name, part in parts.items()}, "required": required}
    additional = draw(
        st.sampled_from([None, False, True]) | inner.map(lambda schema_and_strategy: schema_and_strategy[0])
    )
    if additional is not None:
        schema["additionalProperties"] = additional

    @st.composite
    def instance(draw: st.DrawFn) -> str:
        chosen = [name for name in names if name in required or draw(st.booleans())]
        return "{" + ", ".join(f"{text_of(name)}: {draw(parts[name][1])}" for name in chosen) + "}"

    return schema, instance()


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Made]) -> Made:
    item, min_items, extra_items = draw(inner), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    first = draw(st.lists(inner, max_size=2))
    schema = {"type": "array", "items": item[0], "minItems": min_items, "maxItems": min_items + extra_items}
    if first:
        schema["prefixItems"] = [part[0] for part in first]

    @st.composite
    def instance(draw: st.DrawFn) -> str:
        count = draw(st.integers(min_items, min_items + extra_items))
        return "[" + ", ".join(draw((first[n] if n < len(first) else item)[1]) for n in range(count)) + "]"

    return schema, instance()


def _any_of(parts: list[Made]) -> Made:
    return {"anyOf": [part[0] for part in parts]}, st.one_of([part[1] for part in parts])


leaves = strings() | numbers() | values() | st.just(({"type": "boolean"}, st.sampled_from(["true", "false"])))
schemas = st.recursive(
    leaves,
    lambda inner: objects(inner) | arrays(inner) | st.lists(inner, min_size=1, max_size=3).map(_any_of),
    max_leaves=6,
)
slips = st.sampled_from(
    ['"', "\\", "\n", "\x00", "\x1f", "\x7f", ",", "{", "}", "]", "-", ".", "0", "9", "e", "é", "\\u0000"]
)


@st.composite
def schema_and_texts(draw: st.DrawFn) -> tuple[dict[str, Any], str, list[str]]:
    """A schema, a text that fits it, and others that may: of other schemas, and with a slip of the pen."""
    (schema, fitting), (_, unrelated) = draw(schemas), draw(schemas)
    text, strange = draw(fitting), [draw(unrelated)]
    for _ in range(6):
        at, width = draw(st.integers(0, len(text))), draw(st.integers(0, 2))
        strange.append(text[:at] + draw(slips | st.just("")) + text[at + width :])
    return schema, text, strange


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(schema_and_texts())
def test_what_a_grammar_takes_fits_and_what_fits_is_taken(
    sampler: Sampler, case: tuple[dict[str, Any], str, list[str]]
) -> None:
    schema, text, strange = case
    assert not isinstance(fits(text, schema), Rejected)
    assert sampler.accepts(schema, text)
    for candidate in strange:
        if sampler.accepts(schema, candidate):
            assert not isinstance(fits(candidate, schema), Rejected), candidate


# -- the model itself -------------------------------------------------------------------------------------------

WRITTEN = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 12},
        "code": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3}$"},
        "line": {"enum": ["one\ntwo", "tab\t", 'a "word"']},
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "count": {"type": "integer", "minimum": 13, "maximum": 1200},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "code", "line", "share", "count", "tags"],
    "additionalProperties": False,
}


def test_the_model_writes_what_fits_however_wildly_it_draws(model: Path) -> None:
    with contextlib.closing(WorkerEngine(EngineConfig(path=model, context=1024, threads=1))) as engine:
        for seed in range(8):
            messages = [{"role": "user", "content": "Describe a parcel."}]
            request = EngineRequest(messages, schema=WRITTEN, max_tokens=300, temperature=1.8, seed=seed)
            chunks = list(engine.chat(request))
            text = "".join(chunk.text for chunk in chunks)
            assert chunks[-1].finish == "stop", text
            assert not isinstance(fits(text, WRITTEN), Rejected), text
            assert list(fits(text, WRITTEN)) == WRITTEN["required"]
