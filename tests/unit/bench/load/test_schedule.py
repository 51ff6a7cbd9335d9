"""When requests are sent and what they ask follows from the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.load.config import LoadConfig
from agentlab.bench.load.schedule import Arrivals, LoadStage, Prompts, offsets, stage_of


def stage(arrivals: Arrivals, rate: float = 5.0, requests: int = 2000, seed: int = 3) -> LoadStage:
    return LoadStage("s", "model", arrivals, rate, requests, seed)


def test_poisson_arrivals_have_exponential_gaps_of_the_right_mean() -> None:
    gaps = np.diff(list(offsets(stage("poisson"))))
    assert gaps.mean() == pytest.approx(0.2, rel=0.08)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # of an exponential the two are equal
    assert (gaps > 0.2).mean() == pytest.approx(np.exp(-1), abs=0.04)


def test_constant_arrivals_do_not_drift() -> None:
    assert list(offsets(stage("constant", rate=3, requests=4))) == [0, 1 / 3, 2 / 3, 1]


@given(st.integers(0, 2**32 - 1))
def test_a_seed_repeats_the_schedule(seed: int) -> None:
    assert list(offsets(stage("poisson", 1, 20, seed))) == list(offsets(stage("poisson", 1, 20, seed)))


def test_each_prompt_begins_differently_unless_the_cache_may_help() -> None:
    load = LoadConfig(prompt_tokens=100)
    prompts = Prompts(stage("closed"), load)
    texts = [prompts.of(index)[0].content for index in range(50)]
    assert len({text[:20] for text in texts}) == 50
    cached = Prompts(stage("closed"), LoadConfig(prompt_tokens=100, prefix_cache=True))
    alike = [cached.of(index)[0].content for index in range(50)]
    assert len({text[:200] for text in alike}) == 1
    assert len(set(alike)) == 50


@given(st.integers(30, 5000))
def test_a_prompt_is_about_as_long_as_asked(tokens: int) -> None:
    text = Prompts(stage("closed"), LoadConfig(prompt_tokens=tokens)).of(0)[0].content
    assert 0.9 * tokens - 20 <= len(text.split()) <= tokens  # words: a little less than tokens


@given(st.text(min_size=1, max_size=300), st.integers(0, 99), st.integers(0, 99))
def test_whatever_a_target_is_called_its_stage_can_name_a_file(target: str, index: int, turn: int) -> None:
    name = stage_of(target, index, turn, "closed", 4, LoadConfig(), 0).id
    assert name.isascii()
    assert not set(name) & set("/\\. \n\0")
    assert len(name) < 80
