"""What a hint prints can be typed: through a shell's quotes, the option parser and the config, to the end."""

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from agentlab.config.overrides import parse
from agentlab.nas.config import NasConfig
from cli.main import build_app
from tests.cli.conftest import Answer

Call = Callable[..., Answer]

REPOSITORY = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(build_app())
START = datetime.fromisoformat("2023-01-01")
VALUE = "1"  # stands where a message fills something in
ENDS = re.compile(r"[.;:,)`]+$")


# -- files as Excel writes them where decimals have a comma ---------------------------------------------------------


def german(separator: str = ";", dates: str = "%d.%m.%Y %H:%M", grouped: bool = False) -> str:
    """Hours of a load, with a column of words and a separator at the end of each line."""
    lines = ["Datum und Uhrzeit;Last [MW];Grad;Wetter;Störung".replace(";", separator)]
    for number in range(400):
        when = START + timedelta(hours=number)
        load = 1200.5 + number * number % 97
        text = f"{load:,.2f}".translate(str.maketrans(",.", ".,")) if grouped else f"{load:.2f}".replace(".", ",")
        grad = f"{number % 24 / 2:.1f}".replace(".", ",")
        fields = [when.strftime(dates), text, grad, "trüb" if number % 3 else "schön", ""]
        lines.append(separator.join(f'"{field}"' if separator == "," else field for field in fields))
    return "\r\n".join(lines) + "\r\n"


FILES = {
    "windows": german().encode("windows-1252"),
    "byte order mark": german().encode("utf-8-sig"),
    "thousands": german(grouped=True).encode(),
    "tabs, days with a slash": german("\t", "%d/%m/%Y %H:%M:%S").encode(),
    "bars, two-digit years": german("|", "%d.%m.%y %H:%M").encode(),
    "commas and quotes": german(",").encode("latin-1"),
    "american": german(dates="%m/%d/%Y %I:%M %p").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_error_names_the_whole_command_that_reads_the_file(agentlab: Call, workspace: Path, name: str) -> None:
    path = workspace / "die last.csv"
    path.write_bytes(FILES[name])
    typed = ["nas", "demo", "--data", path, "--set=llm=none", "--horizon", "2", "--dry-run"]
    refused = agentlab(*typed)
    assert refused.code == 2, refused.err
    command = shlex.split(refused.err.partition("hint: To read the file: ")[2])
    assert command[: len(typed) + 1] == ["agentlab", *map(str, typed)]
    answer = agentlab(*command[1:])
    assert answer.code == 0, answer.err
    assert "400 rows, 2 columns (Last [MW], Grad), one row per h, 2023-01-01T00:00" in answer.out


def test_a_file_that_differs_in_one_thing_gets_one_setting(agentlab: Call, workspace: Path) -> None:
    lines = [f"{START + timedelta(hours=n)},{n % 17},{n % 5}" for n in range(400) if n != 9]
    (workspace / "s.csv").write_text("date,a,b\n" + "\n".join(lines) + "\n")
    refused = agentlab("nas", "demo", "--data", "s.csv", "--horizon=2", "--set=data.gaps=error", "--set=llm=none")
    (hint,) = [line for line in refused.err.splitlines() if line.startswith("hint: ")]
    assert hint.endswith("--set=llm=none --set data.gaps=ffill")
    assert agentlab(*shlex.split(hint.partition(": agentlab ")[2]), "--dry-run").code == 0


def test_all_columns_of_words_are_left_out_at_once(agentlab: Call, workspace: Path) -> None:
    names = [f"w{number}" for number in range(40)]
    lines = [f"{START + timedelta(hours=n)},{','.join(['word'] * 40)},{n % 17}" for n in range(400)]
    (workspace / "s.csv").write_text(f"date,{','.join(names)},a\n" + "\n".join(lines) + "\n")
    refused = agentlab("nas", "demo", "--data", "s.csv", "--horizon=2", "--set=llm=none")
    assert agentlab(*shlex.split(refused.err.partition(": agentlab ")[2]), "--dry-run").code == 0


def test_the_only_column_is_never_to_be_left_out(agentlab: Call, workspace: Path) -> None:
    lines = [f"{START + timedelta(hours=n)},{n % 17}%" for n in range(400)]
    (workspace / "s.csv").write_text("date,a\n" + "\n".join(lines) + "\n")
    refused = agentlab("nas", "demo", "--data", "s.csv", "--horizon=2", "--set=llm=none")
    assert "hint: With data.decimal '.', numbers must be written like 1234.5, without other characters." in refused.err


def test_words_among_numbers_can_also_be_corrected(agentlab: Call, workspace: Path) -> None:
    lines = [f"{START + timedelta(hours=n)},{n % 17},{n % 5 or 'none'}" for n in range(400)]
    (workspace / "s.csv").write_text("date,a,b\n" + "\n".join(lines) + "\n")
    refused = agentlab("nas", "demo", "--data", "s.csv", "--horizon=2", "--set=llm=none")
    assert "leave missing numbers empty. To read the file: agentlab nas demo" in refused.err


def test_a_forecast_is_made_from_a_file_of_the_same_kind(agentlab: Call, workspace: Path) -> None:
    (workspace / "last.csv").write_bytes(FILES["windows"])
    tiny = ["--set=training.train_fraction=0.1", "--set=model.d_model=4", "--set=model.n_heads=1", "--horizon=2"]
    refused = agentlab("nas", "train", "demo", "--data", "last.csv", *tiny, "--tag", "de")
    assert refused.code == 2
    done = agentlab(*shlex.split(refused.err.partition(": agentlab ")[2]))
    assert done.code == 0, done.err
    answer = agentlab("nas", "predict", "last", "--input", "last.csv")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0] == "Datum und Uhrzeit,Last [MW],Grad"
    assert answer.out.splitlines()[1].startswith("17.01.2023 16:00,")


# -- every hint in the source ---------------------------------------------------------------------------------------


def texts(path: Path) -> Iterator[str]:
    """What a module says: its strings, with a value where a message fills something in; no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | inside):
            yield node.value


def settings() -> list[tuple[str, str]]:
    """Every `--set KEY=...` that a message or an example prints, with the rest of its line."""
    assignments = []
    for path in sorted([*(REPOSITORY / "agentlab").rglob("*.py"), *(REPOSITORY / "cli").glob("*.py")]):
        for text in texts(path):
            for match in re.finditer(r"--set[ =]([\w.'\"%\[{][^\n]*=[^\n]*)", text):
                assignments.append((f"{path.relative_to(REPOSITORY)}", match[1].split(" --set")[0]))
    return assignments


def test_every_setting_that_is_printed_passes_a_shell_and_the_parser() -> None:
    assert len(settings()) > 15
    for where, text in settings():
        token = next(iter(shlex.split(re.split(r" \(|`", text)[0])))
        parse(ENDS.sub("", token))  # raises what a user would see
        assert "=" in token, (where, text)


def commands(text: str) -> list[list[str]]:
    """The commands that a text prints, each as a shell splits it; prose after a command is cut where it is told."""
    split_commands = []
    for match in re.finditer(r"agentlab ((?:[a-z][a-z-]*)(?: [^\n`;()]*)?)", text):
        words = match[1].split()
        if words and words[0] in GROUP.commands:
            split_commands.append(words)
    return split_commands


def test_every_command_that_is_printed_exists_with_its_options() -> None:
    printed = [
        words
        for path in [*(REPOSITORY / "agentlab").rglob("*.py"), *(REPOSITORY / "cli").glob("*.py")]
        for text in texts(path)
        for words in commands(text)
    ]
    assert len(printed) > 100
    for words in printed:
        _known(words)


def _known(words: list[str]) -> None:
    """Whether a command and its long options exist, and those that it cannot do without stand there."""
    command, arguments = GROUP.commands[words[0]], words[1:]
    while hasattr(command, "commands"):
        named = ENDS.sub("", arguments[0]) if arguments else ""
        if named not in command.commands and "run" not in command.commands:
            return  # the name of a group alone
        command, arguments = (
            command.commands.get(named) or command.commands["run"],
            arguments[named in command.commands :],
        )
    option_names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in arguments:
        option = ENDS.sub("", word.partition("=")[0])
        if option.startswith("--"):
            assert option in option_names | {"--help"}, (words, option)
    options_set = {ENDS.sub("", word.partition("=")[0]) for word in arguments if word.startswith("--")}
    needed = [param.opts for param in command.params if param.required and param.opts[0].startswith("--")]
    assert not options_set or all(options_set & set(options) for options in needed), (words, needed)


def readme() -> list[str]:
    """The command lines of the README."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("agentlab ")]


def test_the_readmes_lines_are_parsed_as_they_are_typed() -> None:
    lines = [shlex.split(line, comments=True) for line in readme()]
    assert sum(words[1] == "nas" for words in lines) >= 8
    for words in lines:
        _known(words[1:])
        for flag, value in pairwise(words):
            if flag == "--set":
                parse(value)


def test_the_readmes_searches_are_planned(agentlab: Call, workspace: Path) -> None:
    """Those that need no run and no file of the reader's."""
    for line in readme():
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "nas" and not {"predict", "export", "--resume", "--data", "--approve"} & set(words):
            plan = agentlab(*words, "--dry-run", "--set", "llm=none")
            assert plan.code == 0, (line, plan.err)


def test_the_readme_says_for_every_shell_how_the_command_is_found() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for script in (".venv/bin/activate", "activate.fish", "Activate.ps1", "activate.bat", ".venv/bin/agentlab"):
        assert script in text


def test_the_config_keys_of_a_csv_are_those_that_errors_name() -> None:
    data = NasConfig().data
    assert (data.separator, data.decimal, data.encoding, data.ignore) == (",", ".", "utf-8", ())
