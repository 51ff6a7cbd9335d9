"""The corpora by name. Each is a function that draws one case: `rng` decides all, `shelf` holds what cases are made of.

To add one, write such a function, enter it here, and run `make fuzz SECONDS=20 ARGS="--corpus NAME"`.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.corpora import command_lines, configs, inputs, model_files, requests, run_folders

Corpus = Callable[[Random, Path], Case]

CORPORA: dict[str, Corpus] = {
    "command lines": command_lines.command_line,
    "configs": configs.config,
    "yaml": configs.yaml,
    "requests": requests.requests,
    "checkpoints": model_files.checkpoint,
    "adapters": model_files.adapter,
    "gguf": model_files.gguf,
    "csv": inputs.csv,
    "jsonl": inputs.jsonl,
    "templates": inputs.template,
    "run folders": run_folders.run_folder,
}
