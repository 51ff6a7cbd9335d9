"""A text's likelihood is normalised in one of three ways, and each may choose another."""

import math

import pytest

from agentlab.answers.choices import DECIDES, NORMALISATIONS, Scored

THREE = Scored((-6.0, -2.0, -3.5), (6, 1, 2), (30, 2, 2))  # long and likely word by word, short, neither


def test_each_normalisation_is_what_it_says() -> None:
    assert THREE.scores("mean") == [-1.0, -2.0, -1.75]
    assert THREE.scores("sum") == [-6.0, -2.0, -3.5]
    assert THREE.scores("byte") == [-0.2, -1.0, -1.75]


def test_the_mean_decides_and_the_sum_may_say_otherwise() -> None:
    assert DECIDES == "mean"
    assert {by: THREE.likeliest_index(by) for by in NORMALISATIONS} == {"mean": 0, "sum": 1, "byte": 0}
    assert THREE.likeliest_index() == THREE.likeliest_index("mean")
    assert Scored((-1.0, -1.0), (1, 1), (1, 1)).likeliest_index() == 0  # the first of equals


@pytest.mark.parametrize("by", NORMALISATIONS)
def test_shares_are_probabilities_however_unlikely_all_are(by) -> None:
    shares = THREE.shares(by)
    assert sum(shares) == pytest.approx(1)
    far = THREE._replace(
        totals=tuple(total - 5000 * size for total, size in zip(THREE.totals, THREE.tokens, strict=True))
    )
    assert sum(far.shares(by)) == pytest.approx(1)
    assert math.log(shares[0] / shares[1]) == pytest.approx(THREE.scores(by)[0] - THREE.scores(by)[1])


def test_what_cannot_be_is_a_number_that_json_holds_and_is_not_chosen() -> None:
    never = Scored((-math.inf, -9.0), (1, 1), (1, 1)).finite
    assert all(map(math.isfinite, never.totals))
    assert (never.likeliest_index(), THREE.finite) == (1, THREE)
