"""Which base model an adapter belongs to, and where it lies on this machine. Nothing is loaded."""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path, PurePath

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import read_card
from agentlab.lora.settings import read_settings
from agentlab.models.store import find

_HINT = "Say with --base where the base model lies: a name of `agentlab models list`, or a path with a slash."


def base_of(adapter: Path, given: str | None, workspace: Workspace) -> Path:
    """The base model of an adapter folder: as given, or else what its card or its config names.

    An adapter that comes from another machine names a path there: then a model of the path's last part is taken.

    Args:
        adapter: the folder.
        given: a name or a path with a slash; None to believe the adapter.
        workspace: where names are looked up.

    Raises:
        UsageError: the adapter does not say.
        MissingFileError: it is not on this machine, or what was given is not there.
        UnknownNameError: nothing bears the given name.
        DataError: card or config are damaged.
    """
    if given is not None:
        return find(given, workspace)
    names = [name for name in (read_card(adapter).base.path, read_settings(adapter).base[0]) if name]
    if not names:
        raise UsageError(f"{adapter} does not say which base model it belongs to.", hint=_HINT)
    for name in (*names, *(PurePath(name).name for name in names)):
        try:
            return find(name, workspace)
        except (MissingFileError, UnknownNameError):
            continue
    raise MissingFileError(f"The base model of {adapter} is not on this machine: {names[0]}.", hint=_HINT)


def same_base(adapter: Path, base: Path, *, any_base: bool = False) -> bool | None:
    """Whether a checkpoint folder holds what an adapter was trained on, by its card; None where the card does not say.

    Args:
        adapter: the folder.
        base: the checkpoint folder.
        any_base: let another one pass.

    Raises:
        UsageError: it does not.
        MissingFileError: it is no checkpoint folder.
        DataError: the card is damaged.
    """
    known = read_card(adapter).base.fingerprint
    if known is None:
        return None
    same = known == fingerprint_of(base)
    if not same and not any_base:
        raise UsageError(
            f"{adapter.name} was trained on another base model than {base}: the fingerprints differ.",
            hint="Name the right one with --base, or take this one all the same with --any-base.",
        )
    return same


def check_fit(folders: Collection[Path], base: Path | None) -> list[str]:
    """See that adapters can be applied together, and to a checkpoint folder, if it is there by now.

    Headers are read, and to tell two bases apart, the latter's bytes.

    Returns:
        The modules that the adapters change.

    Raises:
        UsageError: an adapter was made for another base, or its layers are not the base's.
        MissingFileError, DataError, ModelFileError: an adapter is damaged, or more than a low-rank matrix per module.
    """
    from agentlab.lora.reading import Adapter, union
    from agentlab.lora.stacked import layer_of
    from agentlab.train.base import outline

    with ExitStack() as stack:
        adapters = {folder: stack.enter_context(Adapter(folder)) for folder in folders}
        if not adapters:
            return []
        modules = list(union(list(adapters.values()), any_base=True))
        if base is None:
            return modules
        model = outline(base)
        for folder, adapter in adapters.items():
            if str(base) != read_card(folder).base.path and same_base(folder, base, any_base=True) is False:
                raise UsageError(
                    f"{folder.name} was trained on another base model than {base}: the fingerprints differ.",
                    hint="Name the right one with base; `agentlab adapters show` tells it.",
                )
            for name, module in adapter.modules.items():
                if sorted(layer_of(model, name).weight.shape) != sorted(module.shape):
                    raise UsageError(
                        f"{folder.name} does not fit {base.name}: {name} has another shape.",
                        hint="Name the base that the adapter was trained on.",
                    )
        return modules
