"""YAML is read as plain data with places; what is not plain is refused with file, line and column."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.yaml_tree import MAX_BYTES, MAX_DEPTH, read_text, read_value, read_yaml, write_yaml
from agentlab.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
KEYS = TEXT.filter(lambda key: key != "<<")
TREES = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=3), max_leaves=8)
)


@given(TREES)
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    assert read_yaml(write_yaml(tree), "x").data == tree


@given(st.dictionaries(st.text("abcdefgh", min_size=1), TEXT, max_size=5))
def test_other_readers_of_yaml_see_the_same_text(tree: dict[str, str]) -> None:
    parsed = yaml.safe_load(write_yaml(tree))
    assert {str(key): value for key, value in parsed.items()} == tree


@given(st.text(max_size=40) | st.text("{}[]:-#&*!|>'\"%@`,?\t\n \\U0x.~<", max_size=20))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        tree = read_yaml(text, "fuzz.yaml")
        assert read_yaml(write_yaml(tree.data), "again.yaml").data == tree.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("3", 3),
        ("0x1F", 31),
        ("-2.5", -2.5),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2013-01-31", "2013-01-31"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("'1'", "1"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    scalar = read_value(text, "--set x")
    assert scalar == value
    assert type(scalar) is type(value)


def test_every_key_and_element_knows_its_place() -> None:
    tree = read_yaml("a:\n  b: 1\n\n  on: 2\nstages:\n- id: x\n- id: y\n", "f.yaml")
    assert tree.data == {"a": {"b": 1, "on": 2}, "stages": [{"id": "x"}, {"id": "y"}]}
    assert str(tree.places[("a", "b")]) == "2:3"
    assert str(tree.places[("a", "on")]) == "4:3"
    assert str(tree.places[("stages", "1")]) == "7:3"
    assert str(tree.places[("stages", "1", "id")]) == "7:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "f.yaml:1:1: a config must be a mapping of keys to values."),
        ("just text", "f.yaml:1:1: a config must be a mapping of keys to values."),
        ("a:\n\tb: 1\n", "f.yaml:2:1: indent with spaces, not tabs."),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a is given twice; first on line 1."),
        ("a: [1, 2\nb: 3\n", "f.yaml:2:2: a bracket is not closed, or a comma is missing."),
        ("a: 'x\n", "f.yaml:2:1: a quote is not closed."),
        ("a: b: c\n", "f.yaml:1:5: unexpected colon; quote the text, or check the indentation."),
        ("a: @x\n", "f.yaml:1:4: a value cannot start with this character; put it in quotes."),
        ("a: *x\n", "f.yaml:1:4: this alias has no anchor."),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a config must be one document; a second one starts here."),
        ("a: .inf\n", "f.yaml:1:4: numbers must be finite; `null` resets a key to its default."),
        ("a: 1e999\n", "f.yaml:1:4: numbers must be finite; `null` resets a key to its default."),
        ("a: !!int x\n", "f.yaml:1:4: this is not a valid number."),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key must be a single value."),
        ('a: "\\ud800"\n', "f.yaml:1:4: the text contains an unpaired surrogate."),
        ('a: "\\UFFFFFFFF"\n', "f.yaml: an escape sequence is invalid."),
        ("a: 1\nb: \x00\n", "f.yaml:2: a control character is not allowed in YAML."),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "f.yaml:2:5: merge keys are not supported; use `extends`."),
    ],
)
def test_broken_yaml_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "f.yaml")
    assert caught.value.message == message


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!binary", "!!timestamp", "!mine"])
@pytest.mark.parametrize("body", ["x", "[x]", "{a: x}"])
def test_only_plain_data_is_read(tag: str, body: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml:1:4: the tag .* is not supported"):
        read_yaml(f"a: {tag} {body}\n", "f.yaml")


def test_aliases_that_multiply_are_bounded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    with pytest.raises(ConfigError, match="more than 20000 values"):
        read_yaml(bomb, "f.yaml")


def test_an_alias_may_not_contain_itself() -> None:
    with pytest.raises(ConfigError, match="32 levels"):
        read_yaml("a: &a [*a]\n", "f.yaml")


def test_an_alias_that_is_used_twice_is_plain_data() -> None:
    assert read_yaml("a: &x {b: 1}\nc: *x\n", "f").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_nesting_is_bounded() -> None:
    with pytest.raises(ConfigError, match=f"nested deeper than {MAX_DEPTH} levels"):
        read_yaml("a: " + "[" * 5000, "f.yaml")


def test_multi_line_text_stays_readable() -> None:
    assert write_yaml({"prompt": "one\ntwo\n"}) == "prompt: |\n  one\n  two\n"


def test_a_file_that_is_no_config_is_explained(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    for name, words in {"none.yaml": "no config file", "big.yaml": "larger than 256 KiB", "latin.yaml": ":2: "}.items():
        with pytest.raises(ConfigError, match=words):
            read_text(tmp_path / name, name)
    with pytest.raises(ConfigError, match="it is a folder, not a file"):
        read_text(tmp_path, "folder")


@pytest.mark.parametrize(
    "number", ["9" * 101, "-" + "9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 5000, "0." + "1" * 5000]
)
def test_a_number_of_many_digits_is_refused(number: str) -> None:
    for read in (read_value, lambda text, label: read_yaml(f"a: {text}", label)):
        with pytest.raises(ConfigError, match=r"x:1:\d: this is not a valid number"):
            read(number, "x")


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(read_text(tmp_path / "bom.yaml", "bom"), "bom").data == {"a": 1}
