"""JSON schemas as grammars for llama.cpp (GBNF). Pure.

What fits the grammar is JSON and fits the schema, but for what a grammar cannot count or compare, which
`docs/pipeline-reference.md` lists; an answer is checked again. Where the choice is between too wide and too narrow, the
grammar is narrow: it asks for the properties in the order of the schema, for numbers without an exponent where there
are bounds, and for no property that the schema does not name unless `additionalProperties` is given.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from functools import reduce
from typing import Any

from agentlab.errors import BadRequestError
from agentlab.gguf.grammar_terminals import MAX_REPEATS, MOST_DIGITS, between, pattern_rule
from agentlab.gguf.schema_merge import MOST_PARTS, TELLING, TYPES, json_text, kinds_of, merge_schemas, types_of

_DEEPEST = 64
_DECIMALS, _MOST_DECIMALS = 3, 12  # after the point: so many more than the bounds of a number have
_LARGEST = Decimal(10) ** 30
_NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$defs", "definitions"}
_NOTES |= {"$schema", "$id", "$comment"}
_NEVER = r"[\x7F]"  # stands nowhere outside of a string
_HEX = "[0-9a-fA-F]"
_CHAR = (  # no raw control characters, and no half of a character
    r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] HEX HEX HEX | [dD] [0-7] HEX HEX))'
).replace("HEX", _HEX)
_DATE = '[0-9] [0-9] [0-9] [0-9] "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_CLOCK = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]'
_TIME = f'{_CLOCK} ":" [0-5] [0-9] ("." [0-9] [0-9] [0-9])? ("Z" | [+-] {_CLOCK})'
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": ' "-" '.join(f"{_HEX}{{{count}}}" for count in (8, 4, 4, 4, 12)),
}


def grammar_of(schema: Mapping[str, Any]) -> str:
    """The grammar, with the rule `root`.

    Raises:
        BadRequestError: nothing fits the schema, it refers to what is not there, or it is nested too deeply.
    """
    rules = _Rules(schema)
    try:
        with localcontext(prec=100):  # digits: the largest bound with all its decimals
            root = rules.of(schema)
    except _NothingFits as error:
        raise BadRequestError(f"The schema cannot be turned into a grammar: {error}.") from None
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, RecursionError) as error:
        raise BadRequestError(f"The schema cannot be turned into a grammar: {error!r:.200}.") from error
    return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in rules.bodies.items())])


def literal(text: str) -> str:
    """A text as GBNF matches it."""
    return '"' + "".join({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\x7f": "\\x7F"}.get(c, c) for c in text) + '"'


def repeat_rule(rule: str, minimum: int, maximum: int | None) -> str:
    """So many of a rule, as far as llama.cpp can count: `minimum` and `maximum` are cut to `MAX_REPEATS`."""
    minimum = min(minimum, MAX_REPEATS)
    bound = "" if maximum is None else str(min(max(maximum, minimum), MAX_REPEATS))
    return "" if bound == "0" else f"{rule}{{{minimum},{bound}}}"


class _NothingFits(ValueError):  # noqa: N818 - a state, not a fault
    """No value fits this part of the schema."""


class _Rules:
    """Collects rules: each schema becomes an expression of them."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.bodies: dict[str, str] = {"space": '" "?', "comma": 'space "," space'}
        self._root, self._names, self._references = root, dict[str, str](), dict[str, str | None]()
        self._depth = self._parts = 0

    def of(self, schema: Any) -> str:
        self._depth += 1
        self._parts += 1
        try:
            if self._depth > _DEEPEST:
                raise ValueError("it is nested too deeply")
            if self._parts > MOST_PARTS:
                raise ValueError("it has too many parts or combinations of parts")
            return self._of(schema)
        finally:
            self._depth -= 1

    def _of(self, schema: Any) -> str:
        if schema is True or (isinstance(schema, Mapping) and _is_free(schema)):
            return self._any()
        if not isinstance(schema, Mapping):
            raise _NothingFits("no value matches the schema `false`")
        if "$ref" in schema:
            other_keywords = {key: value for key, value in schema.items() if key != "$ref"}
            if _is_free(other_keywords):
                return self._reference_rule(schema["$ref"])
            return self.of(merge_schemas(self._target(schema), other_keywords))
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                other_keywords = {key: value for key, value in schema.items() if key != keyword}
                if keyword == "allOf":
                    return self.of(reduce(merge_schemas, map(self._resolve, schema[keyword]), other_keywords))
                alone = _is_free(other_keywords)
                return self._either(
                    [part if alone else merge_schemas(other_keywords, self._resolve(part)) for part in schema[keyword]]
                )
        if "enum" in schema or "const" in schema:
            return self._values(schema)
        types = types_of(schema)
        if len(types) != 1:
            return self._any() if types == list(TYPES) else self._either([{**schema, "type": kind} for kind in types])
        return self._rule_of_type(types[0], schema)

    def _rule_of_type(self, kind: str, schema: Mapping[str, Any]) -> str:
        make: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
        }
        return make[kind](schema) if kind in make else {"null": '"null"', "boolean": '("true" | "false")'}[kind]

    # -- rules --------------------------------------------------------------------------------------------------

    def _add_rule(self, body: str) -> str:
        """A rule with this body, made once."""
        if body not in self._names:
            self._names[body] = f"r{len(self._names)}"
            self.bodies[self._names[body]] = body
        return self._names[body]

    def _any(self) -> str:
        if "any" not in self.bodies:
            char = self._char()
            self.bodies["text"] = f'"\\"" {char}* "\\""'
            self.bodies["pair"] = 'text space ":" space any'
            self.bodies["any"] = (
                '"{" space (pair (comma pair)*)? space "}" | "[" space (any (comma any)*)? space "]" | text | '
                f'{self._number({})} | "true" | "false" | "null"'
            )
        return "any"

    def _char(self) -> str:
        self.bodies["char"] = _CHAR
        return "char"

    # -- schemas of schemas -------------------------------------------------------------------------------------

    def _either(self, parts: Sequence[Any]) -> str:
        alternatives: list[str] = []
        for part in parts:
            try:
                alternatives.append(self.of(part))
            except _NothingFits:
                continue
        if not alternatives:
            raise _NothingFits("no value matches any of its alternatives")
        return f"({' | '.join(dict.fromkeys(alternatives))})"

    def _reference_rule(self, reference: str) -> str:
        """A rule for what a reference leads to: it may contain itself."""
        if reference not in self._references:
            name = self._references[reference] = f"d{len(self._references)}"
            try:
                self.bodies[name] = self.of(self._target({"$ref": reference}))
            except _NothingFits:
                self.bodies[name], self._references[reference] = _NEVER, None  # a rule inside it may have its name
                raise
        rule = self._references[reference]
        if rule is None:
            raise _NothingFits(f"no value matches {reference[:80]}")
        return rule

    def _target(self, schema: Mapping[str, Any]) -> Any:
        node: Any = self._root
        reference = str(schema["$ref"])
        if reference != "#" and not reference.startswith("#/"):
            raise ValueError(f"it has the unsupported reference {reference[:80]!r}")
        for part in reference.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            node = node[int(key)] if isinstance(node, list) else node[key]
        return node

    def _resolve(self, schema: Any) -> Any:
        """A part of `allOf` or `anyOf` without a reference at its top, so that it can be merged."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                return schema
            schema = merge_schemas({key: value for key, value in schema.items() if key != "$ref"}, self._target(schema))
        raise ValueError("it refers to itself")

    # -- values -------------------------------------------------------------------------------------------------

    def _values(self, schema: Mapping[str, Any]) -> str:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if "enum" in schema and "const" in schema:
            values = [value for value in values if json_text(value) == json_text(schema["const"])]
        fitting = [value for value in values if "type" not in schema or kinds_of(value) & {*types_of(schema)}]
        if not fitting:
            raise _NothingFits("none of its allowed values has the required type")
        return f"({' | '.join(dict.fromkeys(literal(json_text(value)) for value in fitting))})"

    def _string(self, schema: Mapping[str, Any]) -> str:
        form, min_length, max_length = str(schema.get("format")), schema.get("minLength", 0), schema.get("maxLength")
        _check_order(min_length, max_length)
        inner = pattern_rule(schema["pattern"], self._add_rule) if "pattern" in schema else _FORMATS.get(form)
        if inner is None:
            inner = repeat_rule(self._char(), int(min_length), None if max_length is None else int(max_length))
        return self._add_rule(f'"\\"" {inner} "\\""')

    def _number(self, schema: Mapping[str, Any]) -> str:
        low, high, decimals = _bounds(schema)
        if low is None and high is None:
            fraction = "" if schema.get("type") == "integer" else ' ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?'
            return self._add_rule(f'"-"? ("0" | [1-9] [0-9]{{0,{MOST_DIGITS - 1}}}){fraction}')
        alternatives = between(low, high, decimals)
        if not alternatives:
            raise _NothingFits("no number lies between its bounds")
        return self._add_rule(" | ".join(alternatives))

    def _string_other_than(self, names: Sequence[str]) -> str:
        """What stands between the quotes of a string that is none of these names: letter by letter another one."""
        if not names:
            return f"{self._char()}*"
        following: dict[str, list[str]] = {}
        for name in names:
            if name:
                following.setdefault(name[0], []).append(name[1:])
        codes = "".join(f"\\U{ord(letter):08X}" for letter in following)
        # no escapes: they could write a name otherwise
        alternatives = [f'[^"\\\\\\x7F\\x00-\\x1F{codes}] {self._char()}*']
        alternatives += [
            f"{literal(json_text(letter)[1:-1])} {self._string_other_than(endings)}"
            for letter, endings in following.items()
        ]
        return f"({' | '.join(alternatives)}){'' if '' in names else '?'}"

    def _array(self, schema: Mapping[str, Any]) -> str:
        min_items, max_items = int(schema.get("minItems", 0)), schema.get("maxItems")
        _check_order(min_items, max_items)
        # without a bound a small model may never end it
        max_items = MAX_REPEATS if max_items is None else int(max_items)
        first = [self.of(part) for part in schema.get("prefixItems", [])][:max_items]
        try:
            item = self.of(schema.get("items", True)) if max_items > len(first) else None
        except _NothingFits:
            item = None
        if item is None and len(first) < min_items:
            raise _NothingFits("its array cannot reach minItems")
        inner = ""
        if item is not None:
            next_item = self._add_rule(f"comma {self._add_rule(item)}")
            if first:
                inner = repeat_rule(next_item, max(0, min_items - len(first)), max_items - len(first))
            else:
                inner = f"{self._add_rule(item)} {repeat_rule(next_item, max(0, min_items - 1), max_items - 1)}"
                inner = inner if min_items else f"({inner})?"
        for index in reversed(range(len(first))):
            inner = f"{'comma ' if index else ''}{first[index]} {inner}".rstrip()
            inner = inner if index < min_items else f"({inner})?"
        return self._add_rule(f'"[" space {inner} space "]"')

    def _object(self, schema: Mapping[str, Any]) -> str:
        """Pairs in the order of the schema: a rule for what may follow each of them."""
        properties, required = dict(schema.get("properties", {})), list(schema.get("required", []))
        additional = schema.get("additionalProperties", not properties and not required)
        properties |= {name: True if additional is False else additional for name in required if name not in properties}
        pairs: list[tuple[str, bool]] = []
        starts: list[str] = []  # what may come first
        for name, part in properties.items():
            try:
                pairs.append((f'{literal(json_text(name))} space ":" space {self.of(part)}', name in required))
            except _NothingFits:
                if name in required:
                    raise
        following = ""
        if additional is not False:
            key = self._add_rule(f'"\\"" {self._string_other_than(list(properties))} "\\""')
            pair = self._add_rule(f'{key} space ":" space {self.of(additional)}')
            following = f"(comma {pair})*"
            starts.append(f"{pair} {following}")
        for pair, needed in reversed(pairs):
            starts = [f"{pair} {following}", *([] if needed else starts)]
            following = self._add_rule(f"comma {pair} {following}" if needed else f"(comma {pair})? {following}")
        optional = "" if any(needed for _, needed in pairs) else "?"
        inner = f"({' | '.join(starts)}){optional}" if starts else ""
        return self._add_rule(f'"{{" space {inner} space "}}"')


def _bounds(schema: Mapping[str, Any]) -> tuple[Decimal | None, Decimal | None, int]:
    """The least and the largest number, and how many decimals it is written with."""
    bounds = {key: Decimal(str(schema[key])) for key in TELLING["number"] if kinds_of(schema.get(key)) & {"number"}}
    exponents = [int(bound.normalize().as_tuple().exponent) for bound in bounds.values()]
    decimals = (
        0 if schema.get("type") == "integer" else min(_MOST_DECIMALS, max([0, *(-e for e in exponents)]) + _DECIMALS)
    )
    unit = Decimal(10) ** decimals
    lows, highs = [], []
    for key, bound in bounds.items():
        if key.endswith("inimum") and bound > -_LARGEST:
            lowest = (bound * unit).to_integral_value("ROUND_FLOOR" if key[0] == "e" else "ROUND_CEILING")
            lows.append((lowest + (key[0] == "e")) / unit)
        elif key.endswith("aximum") and bound < _LARGEST:
            highest = (bound * unit).to_integral_value("ROUND_CEILING" if key[0] == "e" else "ROUND_FLOOR")
            highs.append((highest - (key[0] == "e")) / unit)
    low, high = max(lows, default=None), min(highs, default=None)
    if max((abs(bound) for bound in (low, high) if bound is not None), default=Decimal(0)) > _LARGEST:
        raise _NothingFits("no representable number lies between its bounds")
    return low, high, decimals


def _check_order(minimum: int, maximum: int | None) -> None:
    if maximum is not None and maximum < minimum:
        raise _NothingFits(f"its minimum count of {minimum} exceeds its maximum count of {maximum}")


def _is_free(schema: Mapping[str, Any]) -> bool:
    return not schema.keys() - _NOTES
