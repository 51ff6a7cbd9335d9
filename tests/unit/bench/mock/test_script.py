"""A model's name says what happens."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.mock.script import FAULTS, MockScene, parse, scene_of


def test_a_plain_name_is_an_answer() -> None:
    assert parse("ok") == (MockScene(),)


def test_times_are_given_in_milliseconds() -> None:
    (scene,) = parse("ok-ttft200-itl7.5-n100")
    assert (scene.ttft, scene.itl, scene.tokens) == (0.2, 0.0075, 100)


@pytest.mark.parametrize(
    ("name", "scene"),
    [
        ("500", MockScene("status", status=500)),
        ("400-context", MockScene("status", status=400, reason="context")),
        ("429-ra2", MockScene("status", status=429, wait=("ra", 2.0))),
        ("429-rams1500", MockScene("status", status=429, wait=("rams", 1500.0))),
        ("429-radate3", MockScene("status", status=429, wait=("radate", 3.0))),
        ("429-raneg", MockScene("status", status=429, wait=("-5", 0.0))),
        ("429-quota-ragarbage", MockScene("status", status=429, reason="quota", wait=("soon", 0.0))),
        ("refuse", MockScene("refuse")),
        ("reset-before", MockScene("refuse")),
        ("reset-40-of-60", MockScene("reset", at=40, tokens=60)),
        ("close-40-of-60-itl10", MockScene("close", at=40, tokens=60, itl=0.01)),
        ("stall-after-10", MockScene("stall", at=10, tokens=11)),
        ("badjson-5", MockScene("badjson", at=5)),
        ("drip-itl20", MockScene("drip", itl=0.02)),
        ("error-event-code429", MockScene("error-event", status=429)),
        ("ok-cost0.002", MockScene(cost=0.002)),
        ("tool-calls2", MockScene("tool", calls=2)),
        ("faults20-n3", MockScene("faults", share=0.2, tokens=3)),
    ],
)
def test_every_act_has_a_name(name: str, scene: MockScene) -> None:
    assert parse(name) == (scene,)


def test_scenes_follow_each_other_and_the_last_one_stays() -> None:
    acts = [scene_of("429-ra1-then-500-then-ok", ordinal, seed=0) for ordinal in range(5)]
    assert [scene.status for scene in acts] == [429, 500, 200, 200, 200]


def test_a_label_tells_two_models_of_the_same_script_apart() -> None:
    assert parse("primary/500") == parse("500")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-4o",
        "okay",
        "ok-",
        "ok-fast",
        "ok-n5000",
        "reset-9-of-5",
        "ok-then-",
        "faults200",
        "200",
        "ok-n",
        "ok" * 101,
        "tool-calls9",
        "ok-ttft999999999",
    ],
)
def test_other_names_are_no_script(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"does not begin with an action|is not an option|out of range|at most 200 characters"
    ):
        parse(name)


@given(st.text(max_size=60))
def test_no_name_breaks_the_parser(name: str) -> None:
    try:
        scenes = parse(name)
    except ValueError:
        return
    assert all(scene.tokens <= 4096 for scene in scenes)


def test_faults_come_in_their_share_and_in_all_kinds() -> None:
    acts = Counter(scene_of("faults20", ordinal, seed=3).act for ordinal in range(5000))
    assert 0.78 < acts["ok"] / 5000 < 0.82
    assert set(acts) - {"ok"} == {parse(fault)[0].act for fault in FAULTS}


def test_faults_depend_on_the_seed_and_the_request_alone() -> None:
    def drawn(seed: int) -> list[MockScene]:
        return [scene_of("faults50", ordinal, seed) for ordinal in range(50)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
