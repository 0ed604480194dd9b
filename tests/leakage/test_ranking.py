"""Many weighted curves judged at once, against each curve held and judged alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.leakage import draw_membership
from dpnorm.leakage.operating_points import advantage
from dpnorm.leakage.ranking import Ranking

FPRS = (0.1, 0.01, 0.001)


def judged_alone(ranking: Ranking, models: np.ndarray, records: np.ndarray) -> list[float]:
    curve = ranking.curve(models, records)
    if curve is None:
        return [np.nan] * (2 + len(FPRS))
    return [curve.area, advantage(curve), *(curve.tpr_at(fpr) for fpr in FPRS)]


def compare(models: int, records: int, levels: int, seed: int) -> np.ndarray:
    """The results of 7 weightings, once seen to be those of each curve alone."""
    generator = np.random.default_rng([63, seed])
    keep = draw_membership(records, models, seed)
    scores = (levels * (generator.normal(size=keep.shape) + keep)).round()
    ranking = Ranking.of(scores, keep)
    of_models = generator.poisson(1.0, size=(7, models)).astype(float)
    of_records = generator.poisson(1.0, size=(7, records)).astype(float)
    found = ranking.judge(of_models, of_records, FPRS)
    expected = [judged_alone(ranking, *w) for w in zip(of_models, of_records, strict=True)]
    np.testing.assert_array_equal(found, expected)  # to the last digit
    return found


@settings(max_examples=60, deadline=None)
@given(
    models=st.integers(2, 4),
    records=st.integers(2, 600),
    levels=st.sampled_from([0, 1, 10, 10**9]),
    seed=st.integers(0, 1000),
)
def test_many_curves_at_once_equal_each_alone_with_ties_and_without(models, records, levels, seed):
    compare(models, records, levels, seed)


@pytest.mark.parametrize("levels", [0, 3, 10**9])
def test_blocks_of_targets_that_end_where_the_targets_do_are_no_exception(levels):
    assert np.isfinite(compare(8, 512, levels, 1)).all()


def test_weights_that_leave_no_member_are_marked():
    keep = np.array([[True, False], [True, False]])
    ranking = Ranking.of(np.arange(4.0).reshape(2, 2), keep)
    found = ranking.judge(np.ones((2, 2)), np.array([[1.0, 1.0], [0.0, 1.0]]), FPRS)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
