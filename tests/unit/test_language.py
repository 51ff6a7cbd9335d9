"""How far names and statements say what they are about: figures that may only fall. The rules are in docs/style.md."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Participles, pronouns and adverbs: as the name of a variable they leave open what it holds.
EMPTY_WORDS = frozenset(
    [
        "found",
        "said",
        "told",
        "asked",
        "held",
        "given",
        "known",
        "each",
        "there",
        "own",
        "made",
        "ended",
        "shown",
        "wanted",
        "here",
        "past",
        "meant",
        "drawn",
        "spent",
        "taken",
        "kept",
        "left",
        "gone",
        "begun",
        "heard",
        "lost",
        "other",
        "others",
        "how",
        "what",
        "who",
        "whom",
        "why",
        "way",
        "place",
        "places",
        "whole",
        "rest",
        "more",
        "less",
        "least",
        "most",
        "again",
        "apart",
        "beside",
        "behind",
        "under",
        "over",
    ]
)
IRREGULAR_PARTICIPLES = frozenset(
    [
        "begun",
        "bound",
        "bred",
        "built",
        "chosen",
        "drawn",
        "found",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "kept",
        "known",
        "laid",
        "led",
        "left",
        "lost",
        "made",
        "meant",
        "met",
        "seen",
        "sent",
        "shot",
        "shown",
        "sought",
        "spent",
        "sung",
        "taken",
        "thrown",
        "told",
        "torn",
        "understood",
        "won",
        "worn",
        "wound",
        "written",
    ]
)
COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)
MOST_EMPTY_NAMES = 0.005
MOST_PARTICIPLE_FUNCTIONS = 0.005
MOST_CLASS_NAMES_TWICE = 5
MOST_NESTED_COMPREHENSIONS = 20


def list_nodes() -> Iterator[ast.AST]:
    """Every node of the sources that ship."""
    for package in ("agentlab", "cli"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


NODES = tuple(list_nodes())
FUNCTIONS = [node for node in NODES if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_participle(name: str) -> bool:
    """Whether a name is one word, and that a participle."""
    word = name.strip("_")
    return "_" not in word and (word in IRREGULAR_PARTICIPLES or (word.endswith("ed") and not word.endswith("eed")))


def has_comprehension_within(node: ast.AST) -> bool:
    """Whether a comprehension has a second level."""
    generators = getattr(node, "generators", ())
    below = (inner for child in ast.iter_child_nodes(node) for inner in ast.walk(child))
    return len(generators) > 1 or any(isinstance(inner, COMPREHENSIONS) for inner in below)


def test_names_say_what_they_hold() -> None:
    variables = [node.id for node in NODES if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names = [*variables, *(node.arg for node in NODES if isinstance(node, ast.arg)), *(node.name for node in FUNCTIONS)]
    empty = Counter(name for name in names if name.strip("_") in EMPTY_WORDS)
    assert empty.total() <= MOST_EMPTY_NAMES * len(names), empty.most_common(20)


def test_functions_are_verbs_or_nouns() -> None:
    participles = [node.name for node in FUNCTIONS if is_participle(node.name)]
    assert len(participles) <= MOST_PARTICIPLE_FUNCTIONS * len(FUNCTIONS), sorted(participles)


def test_a_class_can_be_found_by_its_name() -> None:
    classes = Counter(node.name for node in NODES if isinstance(node, ast.ClassDef))
    twice = sorted(name for name, count in classes.items() if count > 1)
    assert len(twice) <= MOST_CLASS_NAMES_TWICE, twice


def test_comprehensions_have_one_level() -> None:
    nested = sum(has_comprehension_within(node) for node in NODES if isinstance(node, COMPREHENSIONS))
    assert nested <= MOST_NESTED_COMPREHENSIONS
