"""The tables of the package `gguf`: types of tensors with their sizes, architectures, types of files."""

from functools import lru_cache
from importlib import util
from pathlib import Path
from types import ModuleType


@lru_cache(1)
def constants() -> ModuleType:
    """`gguf.constants`, loaded by itself: the package around it imports numpy, which takes longer than all the rest.

    Raises:
        ImportError: the package is not there, or has no such module.
    """
    package = util.find_spec("gguf")
    if package is None or package.origin is None:
        raise ImportError("the package gguf is not installed")
    spec = util.spec_from_file_location(f"{__name__}.library", Path(package.origin).parent / "constants.py")
    if spec is None or spec.loader is None:
        raise ImportError("the package gguf has no constants")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
