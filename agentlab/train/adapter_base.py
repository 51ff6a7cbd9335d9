"""Which base model an adapter belongs to, and where it lies on this machine. Nothing is loaded."""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path, PurePath

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import read_card
from agentlab.lora.settings import CONFIG_FILE, read_settings
from agentlab.models.base_model import BaseFile
from agentlab.models.store import find, stem_of

_HINT = "Pass the base model with --base: a name from `agentlab models list`, or a path with a slash."


def base_of(adapter: Path, base_name: str | None, workspace: Workspace) -> Path:
    """The base model of an adapter folder: as given, or else what its card or its config names.

    An adapter that comes from another machine names a path there: then a model of the path's last part is taken.
    `base_name`: a name or a path with a slash; None to believe the adapter.

    Raises:
        UsageError: the adapter does not say.
        MissingFileError: it is not on this machine, or what was given is not there.
        UnknownNameError: nothing bears the given name.
        DataError: card or config are damaged.
    """
    if base_name is not None:
        return find(base_name, workspace)
    names = [name for name in (read_card(adapter).base.path, read_settings(adapter).base[0]) if name]
    if not names:
        raise UsageError(f"{adapter} does not name its base model.", hint=_HINT)
    for name in (*names, *(PurePath(name).name for name in names)):
        try:
            return find(name, workspace)
        except (MissingFileError, UnknownNameError):
            continue
    raise MissingFileError(f"The base model of {adapter} is not on this machine: {names[0]}.", hint=_HINT)


def same_base(adapter: Path, base: Path, *, any_base: bool = False) -> bool | None:
    """Whether a checkpoint folder holds what an adapter was trained on, by its card; None where the card does not say.

    `any_base`: let another one pass.

    Raises:
        UsageError: it does not.
        MissingFileError: it is no checkpoint folder.
        DataError: the card is damaged.
    """
    fingerprint = read_card(adapter).base.fingerprint
    if fingerprint is None:
        return None
    same = fingerprint == fingerprint_of(base)
    if not same and not any_base:
        raise UsageError(
            f"{adapter.name} was trained on a different base model than {base}: the fingerprints differ.",
            hint="Pass the right one with --base, or use this one anyway with --any-base.",
        )
    return same


def check_fit(folders: Collection[Path], base: BaseFile) -> list[str]:
    """The gate for adapters: they are sound, go together, and belong to a base, as far as that is imported by now.

    Their numbers are read; of the base its config, and to tell it from another one its bytes.

    Returns:
        The modules that the adapters change.

    Raises:
        UsageError: an adapter was made for another base, or its layers are not the base's.
        MissingFileError, DataError, ModelFileError: an adapter is damaged, is more than a low-rank matrix per module,
            or holds numbers that no training makes.
    """
    from agentlab.lora.reading import Adapter, union
    from agentlab.lora.stacked import layer_of
    from agentlab.train.base import outline

    with ExitStack() as stack:
        adapters = {folder: stack.enter_context(Adapter(folder)) for folder in folders}
        if not adapters:
            return []
        modules = list(union(list(adapters.values()), any_base=True))
        for adapter in adapters.values():
            for name in adapter.modules:
                adapter.delta(name)  # refuses what is infinite, none or absurd
        for folder in folders:
            _check_base(folder, base)
        if base.source is not None:
            return modules
        model = outline(base.path)
        for folder, adapter in adapters.items():
            for name, module in adapter.modules.items():
                if sorted(layer_of(model, name).weight.shape) != sorted(module.shape):
                    raise UsageError(
                        f"{folder.name} does not fit {base.path.name}: {name} has a different shape.",
                        hint="Use the base that the adapter was trained on.",
                    )
        return modules


def _check_base(folder: Path, base: BaseFile) -> None:
    """The fingerprint of the card decides; without one, what the adapter calls its base has to be the base's name."""
    is_same = None if base.source else same_base(folder, base.path, any_base=True)
    if is_same is False:
        raise UsageError(
            f"{folder.name} was trained on a different base model than {base.path}: the fingerprints differ.",
            hint="Set base to the right one; `agentlab adapters show` names it.",
        )
    base_name = read_settings(folder).base[0]
    if is_same or not base_name or Path(base_name).is_absolute():  # a folder moves; its shapes are seen
        return
    theirs = stem_of(base_name).lower()
    ours = {stem_of(name).lower() for name in (base.name, base.path.name, base.file.name if base.file else base.name)}
    if not any(theirs.startswith(name) or name.startswith(theirs) for name in ours):
        raise UsageError(
            f"{folder.name} names {base_name} as its base model, but agentlab cannot verify that "
            f"{base.path.name} is that model.",
            hint=f"Set base to the right model. If it is right already, set base_model_name_or_path in {CONFIG_FILE}.",
        )
