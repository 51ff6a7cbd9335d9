"""The forest of runs: who came from whom, and what each changed."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.pipeline.branches.digest import Digest, StageShare, TreeView, tree
from agentlab.runs.document import Code


def _run(name: str, parent: str | None = None, shares: tuple[StageShare, ...] = (), **config: object) -> Digest:
    return Digest(name, parent, "completed", "2026-01-01T00:00:00Z", 1.0, config, shares)


def _printed(view: TreeView) -> list[str]:
    (block,) = view.blocks()
    assert isinstance(block, Code)
    return block.text.split("\n")


def test_children_stand_below_their_parents() -> None:
    runs = [_run("a"), _run("b", "a"), _run("c", "b"), _run("d", "a"), _run("e"), _run("f", "e")]
    assert _printed(tree(runs)) == [
        "a  completed",
        "├─ b  completed",
        "│  └─ c  completed",
        "└─ d  completed",
        "e  completed",
        "└─ f  completed",
    ]


def test_a_line_says_what_differs_from_the_parent_and_what_was_executed() -> None:
    runs = [
        _run("a", seed=1, base_pipeline={"stages": {"draft": {"temperature": 0.7}}}),
        _run(
            "b",
            "a",
            (StageShare("draft", 1, 0), StageShare("final", 2, 1), StageShare("skipped", 0, 0)),
            seed=1,
            base_pipeline={"stages": {"draft": {"temperature": 0.2}}},
            branch={"run": "a", "stage": "final"},
        ),
    ]
    view = tree(runs)
    assert [change.key for change in view.nodes[1].changed] == ["base_pipeline.stages.draft.temperature"]
    expected = "base_pipeline.stages.draft.temperature: 0.7 → 0.2  executed final  reused draft"
    assert _printed(view)[1] == f"└─ b  completed  {expected}"


def test_many_changes_are_counted() -> None:
    keys = ("k", "l", "m", "n", "o")
    runs = [_run("a", **dict.fromkeys(keys, 1)), _run("b", "a", **dict.fromkeys(keys, 2))]
    assert _printed(tree(runs))[1] == "└─ b  completed  k: 1 → 2  l: 1 → 2  m: 1 → 2  and 2 more"


def test_a_parent_that_was_removed_is_shown() -> None:
    assert _printed(tree([_run("b", "gone"), _run("c"), _run("d", "gone")])) == [
        "gone  removed",
        "├─ b  completed",
        "└─ d  completed",
        "c  completed",
    ]


def test_no_runs_are_a_sentence() -> None:
    assert "No pipeline runs" in str(tree([]).blocks()[0])


NAMES = [f"r{number}" for number in range(8)]


@given(st.lists(st.sampled_from([None, *NAMES, "gone"]), max_size=8))
def test_every_run_stands_in_the_tree_once_whoever_its_parent_is(parents: list[str | None]) -> None:
    runs = [_run(name, parent) for name, parent in zip(NAMES, parents, strict=False)]
    nodes = tree(runs).nodes
    run_ids = [node.id for node in nodes if node.status != "removed"]
    assert sorted(run_ids) == sorted(run.id for run in runs)
    above: list[str] = []
    for node in nodes:
        above[node.depth :] = [node.id]
        assert len(above) == node.depth + 1
        assert node.parent == (above[node.depth - 1] if node.depth else None)


def test_a_long_line_of_descent_stays_narrow() -> None:
    runs = [_run("r0"), *(_run(f"r{n}", f"r{n - 1}") for n in range(1, 2000))]
    assert max(map(len, _printed(tree(runs)))) < 100
