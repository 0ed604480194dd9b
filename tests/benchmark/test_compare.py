import math

import numpy as np
import pytest

from dpnorm.benchmark.compare import compare
from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.leakage.estimate import Estimate

Z = 1.959963984540054


def result(name, suite=None, **accuracies):
    """A plain arm for each variant, with its accuracy as (value, low, high)."""
    rows = [
        Row("digits", "lenet", variant, math.inf, "proven", "trained", accuracy=Estimate(*each))
        for variant, each in accuracies.items()
    ]
    return BenchmarkResult(name, tuple(rows), (), suite or {}, {}, "")


def test_a_difference_has_the_sides_of_both_and_a_star_where_it_leaves_zero_out():
    a = result("a", batch=(0.90, 0.88, 0.93), group=(0.5, 0.4, 0.6), layer=(0.5, 0.4, 0.6))
    b = result("b", batch=(0.95, 0.94, 0.96), group=(0.55, 0.5, 0.6), rms=(0.5, 0.4, 0.6))
    found = compare(a, b)
    first, second = found.differences
    assert first.change.value == pytest.approx(0.05)
    assert first.change.low == pytest.approx(0.05 - math.hypot(0.01, 0.03))
    assert first.change.high == pytest.approx(0.05 + math.hypot(0.01, 0.02))
    assert (first.beyond_chance, second.beyond_chance) == (True, False)
    assert found.only_first == ("digits lenet layer plain",)
    assert found.only_second == ("digits lenet rms plain",)
    text = str(found)
    assert "* accuracy" in text
    assert "1 of 2; chance alone gives about 0.1" in text
    assert max(map(len, text.splitlines())) <= 80


def test_settings_that_differ_are_named_with_both_values():
    a = result("a", {"name": "a", "pool": {"size": 8}, "training": {"lr": 0.1, "epochs": 2}})
    b = result("b", {"name": "b", "pool": {"size": 8}, "training": {"lr": 0.2, "epochs": 2}})
    assert compare(a, b).settings == (("training.lr", 0.1, 0.2),)
    assert "training.lr: 0.1 in A, 0.2 in B" in str(compare(a, b))


def test_the_interval_of_a_difference_leaves_out_the_truth_as_often_as_it_says():
    # 4,000 pairs of runs with equal truth; a sound interval leaves 0 out in 5% of them, and in more
    # than 5% + 3 standard errors with probability 0.0014
    generator = np.random.default_rng(95)
    starred = 0
    for _ in range(4000):
        x, y = generator.normal(size=2) * (1.0, 2.0)
        a = result("a", group=(x, x - Z, x + Z))
        b = result("b", group=(y, y - 2 * Z, y + 2 * Z))
        (each,) = compare(a, b).differences
        starred += each.beyond_chance
    rate = starred / 4000
    assert abs(rate - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 4000)
