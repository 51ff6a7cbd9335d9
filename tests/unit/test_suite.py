"""What the suite promises about itself: two workers can run it, a file left behind fails, a forked process is real."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.zygote import Forked

TESTS = Path(__file__).resolve().parents[1]


def pytest_on(folder: Path, source: str) -> str:
    """What two workers say of one module in a checkout with our rules."""
    (folder / "tests").mkdir()
    for name in ("conftest.py", "zygote.py"):
        shutil.copy(TESTS / name, folder / "tests")
    (folder / "tests" / "test_one.py").write_text(source)
    words = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "tests"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, errors="replace").stdout


def test_half_a_character_in_a_report_does_not_end_two_workers(tmp_path: Path) -> None:
    output = pytest_on(
        tmp_path,
        "import pytest\n"
        "def test_it():\n    assert 'half \\ud800' == ''\n"
        "@pytest.mark.parametrize('what', ['\\ud800'])\n"
        "def test_that(what, record_property):\n    record_property('what', [what])\n",
    )
    assert "1 failed, 1 passed" in output
    assert "half \\ud800" in output


def test_a_test_that_leaves_a_file_in_the_checkout_fails(tmp_path: Path) -> None:
    output = pytest_on(
        tmp_path,
        "from pathlib import Path\ndef test_it():\n    Path('a.jsonl').write_text('')\ndef test_that(): pass\n",
    )
    assert "1 error" in output
    assert "left files in the checkout" in output
    assert "a.jsonl" in output


def test_a_forked_process_is_a_child_with_streams_folder_variables_and_end_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys, psutil\n"
        "print(os.getppid(), os.getcwd(), dict(os.environ), sys.argv[1:], psutil.Process().cmdline()[1], input())\n"
        "sys.exit('gone')"
    )
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Forked([sys.executable, "-c", code, "a"], cwd=tmp_path, env={"WORD": "x"}, text=True, **streams)
    out, err = process.communicate("read\n", timeout=60)
    assert out == f"{os.getpid()} {tmp_path} {{'WORD': 'x'}} ['a'] -c read\n"
    assert (process.returncode, err) == (1, "gone\n")
