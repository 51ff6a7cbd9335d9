"""How far names and statements say what they are about: figures that may only fall. The rules are in docs/style.md."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# Participles, pronouns and adverbs: as the name of a variable they leave open what it holds.
EMPTY_NAME = re.compile(
    r"found|said|told|asked|held|given|known|each|there|own|made|ended|shown|wanted|here|past|"
    r"meant|drawn|spent|taken|kept|left|gone|begun|heard|lost|other|others|how|what|who|whom|why|"
    r"way|place|places|whole|rest|more|less|least|most|again|apart|beside|behind|under|over"
)
IRREGULAR_PARTICIPLE = re.compile(
    r"begun|bound|bred|built|chosen|drawn|found|given|gone|grown|heard|held|kept|known|laid|led|"
    r"left|lost|made|meant|met|seen|sent|shot|shown|sought|spent|sung|taken|thrown|told|torn|"
    r"understood|won|worn|wound|written"
)
COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)
MOST_EMPTY_NAMES = 0.005
MOST_EMPTY_NAMES_OF_TESTS = 0.006
MOST_PARTICIPLE_FUNCTIONS = 0.005
MOST_CLASS_NAMES_TWICE = 5
MOST_NESTED_COMPREHENSIONS = 20


def list_nodes(*folders: str) -> tuple[ast.AST, ...]:
    paths = chain.from_iterable((REPOSITORY / folder).rglob("*.py") for folder in folders)
    return tuple(node for path in sorted(paths) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def nodes() -> tuple[ast.AST, ...]:
    """Every node of the sources that ship."""
    return list_nodes("agentlab", "cli")


def list_functions(nodes: Iterable[ast.AST]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_participle(name: str) -> bool:
    """Whether a name is one word, and that a participle."""
    word = name.strip("_")
    if word.endswith("ed"):
        return "_" not in word and not word.endswith("eed")
    return IRREGULAR_PARTICIPLE.fullmatch(word) is not None


def has_comprehension_within(node: ast.AST) -> bool:
    """Whether a comprehension has a second level."""
    generators = getattr(node, "generators", ())
    below = (inner for child in ast.iter_child_nodes(node) for inner in ast.walk(child))
    return len(generators) > 1 or any(isinstance(inner, COMPREHENSIONS) for inner in below)


def share_of_empty_names(nodes: Iterable[ast.AST]) -> tuple[float, Counter[str]]:
    """Of variables, parameters and functions; and which they are."""
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.append(node.name)
    empty = Counter(name for name in names if EMPTY_NAME.fullmatch(name.strip("_")))
    return empty.total() / len(names), empty


def test_names_say_what_they_hold(nodes: tuple[ast.AST, ...]) -> None:
    share, empty = share_of_empty_names(nodes)
    assert share <= MOST_EMPTY_NAMES, empty.most_common(20)


def test_names_of_tests_say_what_they_hold() -> None:
    share, empty = share_of_empty_names(list_nodes("tests"))
    assert share <= MOST_EMPTY_NAMES_OF_TESTS, empty.most_common(20)


def test_functions_are_verbs_or_nouns(nodes: tuple[ast.AST, ...]) -> None:
    functions = list_functions(nodes)
    participles = [node.name for node in functions if is_participle(node.name)]
    assert len(participles) <= MOST_PARTICIPLE_FUNCTIONS * len(functions), sorted(participles)


def test_a_class_can_be_found_by_its_name(nodes: tuple[ast.AST, ...]) -> None:
    classes = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    twice = sorted(name for name, count in classes.items() if count > 1)
    assert len(twice) <= MOST_CLASS_NAMES_TWICE, twice


def test_comprehensions_have_one_level(nodes: tuple[ast.AST, ...]) -> None:
    nested = sum(has_comprehension_within(node) for node in nodes if isinstance(node, COMPREHENSIONS))
    assert nested <= MOST_NESTED_COMPREHENSIONS
