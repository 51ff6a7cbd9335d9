"""Promises of the project files that nothing else would notice if they broke."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def pins() -> list[str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_uv_and_pip_are_given_the_same_pins() -> None:
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == pins()


def test_every_direct_dependency_is_pinned_except_pip() -> None:
    pinned = {name_of(pin) for pin in pins()}
    project = PROJECT["project"]
    direct = {name_of(r) for r in [*project["dependencies"], *project["optional-dependencies"]["dev"]]}
    assert direct - pinned == {"pip"}


def test_pins_name_no_index_or_file() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins())


def test_ignore_rules_are_anchored() -> None:
    """An unanchored `models/` would drop agentlab/models from git and from the wheel."""
    rules = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/models/*", "/runs/*", "/adapters/*", "!/*/.gitkeep"} <= set(rules)
    assert not {"models/", "runs/", "adapters/", "models", "runs"} & set(rules)


def test_readme_never_says_to_install_the_strangers_package() -> None:
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        assert not re.search(r"pip install agentlab(?!-toolkit)\b", page.read_text()), page


def test_llama_cpp_is_built_without_amx_where_the_compiler_knows_of_it() -> None:
    """GCC 12 makes code of AMX that dies; an image is built for other processors than the one that builds it."""
    flags = ["-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"]
    compiler = [shutil.which("cc") or "cc", *flags, "-E", "-"]
    has_amx_flags = subprocess.run(compiler, input=b"", capture_output=True, check=False).returncode == 0
    show = [
        "make",
        "-C",
        str(REPOSITORY),
        "--no-print-directory",
        "--eval=show:;@echo $$CFLAGS; echo $$CXXFLAGS",
        "show",
    ]
    env = {**os.environ, "CFLAGS": "-O2", "CXXFLAGS": "-O1"}
    output_lines = subprocess.run(show, capture_output=True, text=True, check=True, env=env).stdout.splitlines()
    assert output_lines == [
        " ".join([optimisation, *(flags if has_amx_flags else [])]) for optimisation in ("-O2", "-O1")
    ]
    assert "CMAKE_ARGS=-DGGML_NATIVE=off" in (REPOSITORY / "Dockerfile").read_text()


def test_no_module_imports_one_that_leads_back_to_it() -> None:
    """Imports inside functions and for types alone count, too: a circle that is hidden has to be read as one."""
    graph = grimp.build_graph("agentlab", cache_dir=None)
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


IMPORT_STRING = re.compile(r"(?P<module>agentlab(\.\w+)+)(:\w[\w.]*)?")
IMPORTERS = {"import_module", "__import__", "imported", "run_module"}


def height_of(module: str, layers: Sequence[str]) -> int | None:
    """Where the layers of the project have a module, from the top; None for what stands above them all."""
    for height, layer in enumerate(layers):
        if any(module == part or module.startswith(f"{part}.") for part in layer.split(" | ")):
            return height
    return None


def hidden_imports(source: str) -> Iterator[str]:
    """Modules that a file names in strings for something to import; `?` is one that it computes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            if match := IMPORT_STRING.fullmatch(node.value):
                yield match["module"]
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IMPORTERS:
                named = node.args[0]
                yield named.value if isinstance(named, ast.Constant) and isinstance(named.value, str) else "?"


def upward_imports(module: str, source: str, layers: Sequence[str]) -> list[str]:
    """What a module imports by a string although it stands above it."""
    own_height = height_of(module, layers)
    if own_height is None:
        return []
    heights = {name: -1 if name == "?" else height_of(name, layers) for name in hidden_imports(source)}
    return sorted(name for name, height in heights.items() if height is not None and height < own_height)


# Registries, whose tables let a lower package make what a higher one brings, and who computes what it imports.
KNOWN_UPWARD = {
    "agentlab.plugins": ["?"],
    "agentlab.study.executor": ["agentlab.nas.objective"],
    "agentlab.study.worker": ["?"],  # as its parent says, from that table
}


def test_no_string_imports_what_stands_above() -> None:
    layers = next(c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    upward: dict[str, list[str]] = {}
    for path in sorted((REPOSITORY / "agentlab").rglob("*.py")):
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        if names := upward_imports(module, path.read_text(), layers):
            upward[module] = names
    assert upward == KNOWN_UPWARD


@pytest.mark.parametrize(
    "source",
    [
        'import_module("agentlab.integrations.deep_agent")',
        'importlib.import_module("agentlab.integrations")',
        '__import__("agentlab.doctor.examine")',
        'imported("agentlab.integrations.mlflow:log_run")',
        'import_module(f"agentlab.integrations.{name}")',
        'TABLE = {"mlflow": "agentlab.integrations.mlflow:log_run"}',
    ],
)
def test_a_hidden_import_is_seen(source: str) -> None:
    layers = ["cli", "agentlab.doctor | agentlab.integrations", "agentlab.compress"]
    assert upward_imports("agentlab.compress.run", source, layers)
    assert upward_imports("agentlab.integrations.x", source, layers) in ([], ["?"])


MOST_LINES, MOST_BODY_LINES = 400, 50


def test_files_and_functions_are_as_short_as_contributing_says() -> None:
    rule = f"Files have at most {MOST_LINES} lines, bodies of functions at most {MOST_BODY_LINES}"
    assert rule in " ".join((REPOSITORY / "CONTRIBUTING.md").read_text().split())
    too_long: list[str] = []
    for path in chain((REPOSITORY / "agentlab").rglob("*.py"), (REPOSITORY / "cli").rglob("*.py")):
        source = path.read_text()
        too_long += [f"{path}: {count}" for count in [source.count("\n")] if count > MOST_LINES]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or 0) - node.body[0].lineno + 1
                too_long += [f"{path} {node.name}: {count}"] if count > MOST_BODY_LINES else []
    assert too_long == []
