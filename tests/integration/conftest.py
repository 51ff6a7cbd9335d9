"""What several modules of real runs share."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.models.importer import import_gguf
from agentlab.models.store import find

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST = (
    "test_compress",
    "test_debate_speakers",
    "test_pipeline",
    "test_resume_after_kill",
    "test_persona_talk",
    "test_launched",
    "test_gguf_worker",
    "test_router_soak",
    "test_train_adapter",
    "test_workers",
    "test_serve_personas",
    "test_gguf_prefix",
    "test_hf_provider",
    "test_router_faults",
    "test_llm_bench",
    "test_gguf_grammar",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, but behind those that are not here: so two workers end at about the same moment."""
    local_items = [item for item in items if Path(__file__).parent in item.path.parents]
    rank = {name: index for index, name in enumerate(LONGEST)}
    ordered = iter(sorted(local_items, key=lambda item: rank.get(item.path.stem, len(rank))))
    local_ids = {id(item) for item in local_items}
    items[:] = [next(ordered) if id(item) in local_ids else item for item in items]


@pytest.fixture(scope="session")
def float32_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a checkpoint in float32, imported once for all workers. Only to be read."""
    shared_folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared_folder = shared_folder.parent
    folder = shared_folder / "models" / "smollm2"
    with FileLock(shared_folder / "importing.lock"):
        if not folder.exists():
            try:
                import_gguf(find("smollm2-135m", Workspace.locate(os.environ, REPOSITORY)), folder, "float32")
            except AgentlabError as error:
                pytest.fail(f"{error.message} Run `make setup`.")
    return folder
