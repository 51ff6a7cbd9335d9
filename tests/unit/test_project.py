"""Promises of the project files that nothing else would notice if they broke."""

import os
import re
import shutil
import subprocess
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

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
