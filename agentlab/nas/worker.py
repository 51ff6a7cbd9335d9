"""What a worker process of a parallel study is set up with: the series again, and the folder of the trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import TrialConfig
from agentlab.nas.data import load_series
from agentlab.nas.objective import InformerObjective, Report
from agentlab.nas.series import Series
from agentlab.runs.folder import Folder

FACTORY = "agentlab.nas.worker:objective"


def setup(base: TrialConfig, series: Series, trials: Folder, workspace: Workspace, device: str) -> dict[str, Any]:
    """Plain data from which `objective` makes in another process what this one has."""
    return {
        "trial": base.model_dump(mode="json"),
        "fingerprint": series.fingerprint,
        "trials": str(trials.path),
        "workspace": str(workspace.root),
        "device": device,
    }


def objective(given: Mapping[str, Any], report: Report) -> InformerObjective:
    """The objective of a study, in a worker process.

    Raises:
        DataError: the series is not the one that the study has read.
    """
    import torch

    # The first optimiser imports some 70 MB, which would count against the memory of the first training.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    base = TrialConfig.model_validate(given["trial"])
    series = load_series(base.data, Workspace.locate({"AGENTLAB_HOME": given["workspace"]}, Path.cwd()))
    if series.fingerprint != given["fingerprint"]:
        raise DataError(f"{series.source} has changed since the study began.", hint="Put the old file back.")
    return InformerObjective(base, series, Folder(Path(given["trials"])), given["device"], report)
