"""The trainable form of the embedded model, for benchmarks: the workspace's, or else imported below `.agentlab`."""

import os
import sys
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.errors import UnknownNameError
from agentlab.models.importer import import_gguf
from agentlab.models.store import find

NAME = "smollm2-135m-float32"
KEPT = Path(".agentlab/bench") / NAME


def checkpoint() -> Path:
    """The checkpoint folder; made if it is not there, which takes a minute.

    Raises:
        MissingFileError: the embedded model was not pulled.
    """
    workspace = Workspace.locate(os.environ, Path.cwd())
    try:
        return find(NAME, workspace)
    except UnknownNameError:
        if KEPT.is_dir():
            return KEPT
    print(f"importing the embedded model to {KEPT}, which takes a minute", file=sys.stderr)
    return import_gguf(find("smollm2-135m", workspace), KEPT, "float32")
