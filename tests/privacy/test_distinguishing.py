"""Do single steps release what is claimed? An attacker who knows everything else tries to tell.

Each audit errs with probability `audit.ERROR` (0.1%) where the implementation is right: all its
events are fixed in advance, and its intervals hold together. Seeds are fixed. What is claimed is
the engine's account by privacy loss distributions, of gradients and statistics together.
"""

from dataclasses import replace

import numpy as np
import pytest

from dpnorm.detection import check
from dpnorm.privacy.joint import split_noise
from tests.privacy import faults
from tests.privacy.audit import ERROR, audit, claimed, noise_ratio, ratios
from tests.privacy.observed import (
    CANARY,
    CLIP,
    GRADIENT,
    PARTS,
    RATE,
    STATISTICS_CLIP,
    Observer,
    Setting,
    clipped_by_hand,
    net,
    records,
    stated_noise,
)

pytestmark = pytest.mark.slow
MANY, FEW = 30_000, 4_000
RIGHT = Setting()


def both(setting, count, *, seed=100):
    """Trials without and with the canary, with random numbers of their own."""
    observer = Observer(setting)
    return tuple(
        observer.trials(count, canary=canary, seed=seed + 50 * canary) for canary in (False, True)
    )


def plant(monkeypatch, fault):
    """Puts a fault in the place of the piece that it is a subclass of."""
    piece = fault.__bases__[0].__name__
    monkeypatch.setattr(f"dpnorm.privacy.engine.{piece}", fault)


@pytest.fixture(scope="module")
def right():
    return both(RIGHT, MANY)


def test_the_canary_is_at_full_norm_and_the_noise_free_release_is_that_by_hand():
    canary, quiet = clipped_by_hand(CANARY), Observer(RIGHT).quiet
    norms = np.linalg.norm(canary[:GRADIENT]), np.linalg.norm(canary[GRADIENT:])
    assert norms == pytest.approx((CLIP, STATISTICS_CLIP), rel=1e-5)
    whitened = canary / stated_noise(RIGHT.noise, RIGHT.ratio)
    assert np.linalg.norm(whitened) == pytest.approx(1 / RIGHT.noise, rel=1e-5)
    for batch in ((), (CANARY,), (0, 3), (0, 1, 2, 3, CANARY)):
        expected = sum((clipped_by_hand(i) for i in batch), np.zeros(len(canary)))
        np.testing.assert_allclose(quiet([batch])[0], expected, atol=5e-6)


def test_the_claim_holds_and_the_audit_sees_most_of_it(right):
    of_code, of_claim = (ratios(right[1], RIGHT)[name] for name in ("the code", "both"))
    np.testing.assert_allclose(of_code, of_claim, atol=1e-3)
    found = audit(*right, RIGHT)
    assert found.violations == ()
    for epsilon, delta in claimed(((RIGHT.noise, RATE, 1),)):
        assert found.epsilon[delta] <= epsilon
        if delta in (0.1, 0.06):
            assert found.epsilon[delta] > 0.6 * epsilon


@pytest.mark.parametrize(
    "setting",
    [
        replace(RIGHT, live=True),
        replace(RIGHT, live=True, mode="lean"),
        replace(RIGHT, steps=2),
        replace(RIGHT, processes=2),
    ],
    ids=["the model runs in each trial", "and lean", "two steps", "two processes"],
)
def test_the_claim_holds(setting):
    trials = both(setting, FEW)
    assert audit(*trials, setting).violations == ()
    for part in PARTS:
        assert noise_ratio(trials[0], part)[1] > ERROR / 3


def test_the_noise_is_the_stated_one(right):
    for part in PARTS:  # three chi-square tests, ERROR together
        ratio, chance = noise_ratio(right[0], part)
        assert chance > ERROR / 3
        assert ratio == pytest.approx(1, abs=0.01)


def test_fault_1_noise_of_the_statistics_that_is_sampled_and_never_used(monkeypatch):
    plant(monkeypatch, faults.NoiseIsNotUsed)
    trials = both(RIGHT, FEW)
    found = audit(*trials, RIGHT).violations
    assert any("of the statistics" in v.event for v in found)
    assert noise_ratio(trials[0], "the statistics")[0] < 1e-6
    assert not any("of the gradient" in v.event for v in found)


def test_fault_2_noise_that_every_process_adds(monkeypatch):
    """It costs utility and no privacy: the release is noisier than the statement says."""
    plant(monkeypatch, faults.NoiseOnEveryRank)
    setting = replace(RIGHT, processes=2)
    trials = both(setting, FEW)
    for part in PARTS:
        ratio, chance = noise_ratio(trials[0], part)
        assert chance < ERROR / 3
        assert ratio == pytest.approx(2, rel=0.02)
    assert audit(*trials, setting).violations == ()


def test_fault_3_statistics_that_are_accounted_as_steps_of_their_own(right):
    """The release is right and the claim is not."""
    apart = tuple((sigma, RATE, 1) for sigma in split_noise(RIGHT.noise, RIGHT.ratio))
    found = audit(*right, RIGHT, apart).violations
    assert any("likelihood ratio of both" in v.event for v in found)


def test_fault_4_division_by_the_number_that_was_drawn(monkeypatch):
    plant(monkeypatch, faults.DividesByTheDrawn)
    found = audit(*both(RIGHT, FEW), RIGHT).violations
    assert any("one more was averaged" in v.event for v in found)


@pytest.mark.parametrize(
    "statistics",
    [faults.CurrentStatistics, faults.UnionStatistics],
    ids=["fault 5, of the current batch", "fault 6, of private and public rows together"],
)
def test_faults_5_and_6_statistics_that_couple_records(statistics):
    """The engine would refuse the model; here they are put in place after it was judged."""
    x, y = records()
    assert check(net(statistics), x[:4], targets=y[:4]).verdict == "refuted"
    setting = replace(RIGHT, statistics=statistics)
    quiet = Observer(setting).quiet
    others = tuple(range(CANARY))
    moved = quiet([(*others, CANARY)])[0] - quiet([others])[0]
    moved = np.linalg.norm(moved / stated_noise(RIGHT.noise, RIGHT.ratio))
    assert moved * RIGHT.noise > 1.5
    assert audit(*both(setting, FEW), setting).violations


def test_fault_7_statistics_that_are_clipped_layer_by_layer(monkeypatch):
    """With L layers one record then moves them by sqrt(L) times what is accounted."""
    plant(monkeypatch, faults.ClipsLayerByLayer)
    setting = replace(RIGHT, ratio=0.25)
    assert audit(*both(setting, FEW), setting).violations


def test_fault_8_statistics_of_the_last_batch_that_are_added_again(monkeypatch):
    plant(monkeypatch, faults.AddsTheLastBatchAgain)
    setting = replace(RIGHT, steps=2, noise=0.6, ratio=0.25)
    assert audit(*both(setting, FEW), setting).violations


def test_fault_9_buffers_that_are_moved_before_the_noise_has_arrived(monkeypatch):
    """The process that adds no noise moves its buffers by the exact sum of its records."""
    plant(monkeypatch, faults.PublishesBeforeTheSum)
    setting = replace(RIGHT, processes=2)
    trials = both(setting, FEW)
    assert noise_ratio(trials[0], "the statistics")[0] < 1e-6
    found = audit(*trials, setting).violations
    assert any("of the statistics" in v.event for v in found)
