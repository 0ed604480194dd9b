"""Attacks as a family: names, the loss threshold, pools that cannot be attacked."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, attack, attacks, draw_membership
from dpnorm.leakage.signals import log_odds
from tests.leakage.attack_pools import MODES, gaussian_pool


@pytest.mark.parametrize(("name", "options"), MODES)
def test_a_planted_memorized_pool_is_told_apart(name, options):
    # Log-odds far below 0, where loss and probability do not saturate for members. RMIA ranks the
    # records within each model, and a model with more members has the lower best ranks: with
    # 200 records that alone keeps the pooled AUC at about 0.996
    pool = gaussian_pool(models=24, records=200, shift=40.0, level=-60.0)
    scores = attack(pool, name, **options)
    assert scores.scores.shape == (24, 200)
    assert scores.roc().area > (0.99 if name == "rmia" else 0.999)


def test_loss_attack_has_the_closed_form_auc_of_a_gaussian_loss_shift():
    # Losses l = log(1 + exp(-odds)) are a monotone function of odds ~ N(shift * member, 1 + 2^2),
    # so the AUC is Phi(shift / sqrt(2 * 5)), within 4 standard errors of 3,000 records' means.
    pool = gaussian_pool(models=8, records=3000, shift=2.0)
    expected = norm.cdf(2 / np.sqrt(2 * 5))
    assert attack(pool, "loss").auc.value == pytest.approx(expected, abs=4 * np.sqrt(1 / 9000))


def test_loss_attack_scores_are_minus_the_cross_entropy():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(2, 9, 3, 4)).astype(np.float32) * 5
    labels = generator.integers(4, size=9)
    pool = Pool(draw_membership(9, 2, 0), logits, labels, np.zeros(9, dtype=bool), np.zeros(2))
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    expected = np.stack([log_p[:, n, :, labels[n]] for n in range(9)], axis=1).mean(axis=-1)
    np.testing.assert_allclose(attack(pool, "loss").scores, expected, rtol=1e-12)


def test_scores_stay_apart_where_a_softmax_saturates():
    keep = np.array([[True, False], [False, True], [True, True]])
    logits = np.zeros((3, 2, 1, 2), dtype=np.float32)
    logits[..., 1] = [[[60], [50]], [[-300], [80]], [[70], [500]]]
    pool = Pool(keep, logits, np.ones(2, dtype=int), np.zeros(2, dtype=bool), np.zeros(3))
    scores = attack(pool, "loss").scores
    np.testing.assert_allclose(log_odds(pool)[..., 0], logits[:, :, 0, 1])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 6


@pytest.mark.parametrize("name", ["lira", "bavaria"])
def test_models_that_agree_to_the_last_digit_do_not_divide_by_zero(name):
    pool = gaussian_pool(models=8, records=50, noise=0.0, shift=3.0)
    scores = attack(pool, name)
    assert np.isfinite(scores.scores).all()
    assert scores.roc().area == pytest.approx(1.0, abs=1e-12)


def test_labels_without_any_probability_leave_finite_ratios():
    pool = gaussian_pool(models=12, records=30, level=-2000.0, noise=100.0)
    for mode in ("online", "offline"):
        assert np.isfinite(attack(pool, "rmia", mode=mode, gamma=2.0).scores).all()


def test_pools_of_too_few_models_are_refused():
    one = gaussian_pool(keep=np.array([[True, False, True]]), models=1, records=3)
    assert attack(one, "loss").scores.shape == (1, 3)
    for name in ("lira", "bavaria"):
        with pytest.raises(InputError, match=r"pool of 1 model.*at least 3"):
            attack(one, name)
        with pytest.raises(InputError, match=r"pool of 2 model.*at least 3"):
            attack(gaussian_pool(models=2, records=3), name)
    for name in ("calibrated", "rmia"):
        with pytest.raises(InputError, match=r"pool of 1 model.*at least 2"):
            attack(one, name)
    assert attack(gaussian_pool(models=2, records=3), "calibrated").scores.shape == (2, 3)
    with pytest.raises(InputError, match=r"offline RMIA.*pool of 2 model.*at least 3"):
        attack(gaussian_pool(models=2, records=3), "rmia", mode="offline")


NEED_OUT = [
    ("calibrated", {"shadows": "out"}, 1),
    ("lira", {"mode": "offline"}, 1),
    ("lira", {"mode": "offline", "variance": "per-example"}, 2),
    ("lira", {"variance": "per-example"}, 2),
    ("rmia", {"mode": "online"}, 1),
    ("rmia", {"mode": "offline"}, 1),
]


@pytest.mark.parametrize(("name", "options", "least"), NEED_OUT)
def test_records_without_out_shadows_are_counted_and_the_remedy_is_named(name, options, least):
    keep = np.arange(8)[:, None] % 2 == np.arange(5) % 2
    keep[:, :2] = np.arange(8)[:, None] >= least  # two records out of `least` models only
    pool = gaussian_pool(models=8, records=5, keep=keep)
    message = (
        rf"at least {least} shadow\(s\) that are out of.*; 2 of the 5 records of this pool of 8 "
        r"models.*train more models.*'bavaria'"
    )
    with pytest.raises(InputError, match=message):
        attack(pool, name, **options)
    keep[0, 0] = keep[1, 1] = keep[2, :2] = False  # a model more, though another one
    keep[0, :2] = False
    assert attack(gaussian_pool(models=8, records=5, keep=keep), name, **options)


def test_records_without_in_shadows_are_refused_online_only():
    keep = np.arange(8)[:, None] % 2 == np.arange(5) % 2
    keep[:, 0] = np.arange(8) == 3
    pool = gaussian_pool(models=8, records=5, keep=keep)
    with pytest.raises(InputError, match=r"that are in for each target.*1 of the 5 records"):
        attack(pool, "rmia")
    with pytest.raises(InputError, match=r"that are in for each target.*1 of the 5 records"):
        attack(pool, "lira", variance="per-example")
    attack(pool, "rmia", mode="offline")
    attack(pool, "lira", mode="offline", variance="per-example")
    attack(pool, "bavaria")


def test_pools_of_which_no_record_serves_are_refused():
    one_side = gaussian_pool(models=4, records=3, keep=np.tile([[True, True, False]], (4, 1)))
    with pytest.raises(InputError, match="no record has both"):
        attack(one_side, "lira")
    everywhere = gaussian_pool(models=4, records=3, keep=np.ones((4, 3), dtype=bool))
    with pytest.raises(InputError, match="none of the other models is out for any of the 3"):
        attack(everywhere, "bavaria")
    single = gaussian_pool(models=3, records=1, keep=np.array([[True], [False], [False]]))
    with pytest.raises(InputError, match="1 record, 2 are needed"):
        attack(single, "rmia", mode="offline", a=0.5)


def test_unknown_names_are_answered_with_the_nearest():
    pool = gaussian_pool(models=4, records=5)
    assert attacks() == ["bavaria", "calibrated", "lira", "loss", "rmia"]
    with pytest.raises(InputError, match=r"unknown attack 'lyra'.*did you mean 'lira'"):
        attack(pool, "lyra")
    with pytest.raises(InputError, match=r"unknown option of the attack 'lira' 'varianc'"):
        attack(pool, "lira", varianc="fixed")
    with pytest.raises(InputError, match="unknown option of the attack 'loss' 'variance'"):
        attack(pool, "loss", variance="fixed")
    with pytest.raises(InputError, match="unknown variance 'fix'"):
        attack(pool, "lira", variance="fix")
    with pytest.raises(InputError, match=r"unknown mode 'ofline'.*did you mean 'offline'"):
        attack(pool, "lira", mode="ofline")
    with pytest.raises(InputError, match="unknown mode 'both'"):
        attack(pool, "rmia", mode="both")
    with pytest.raises(InputError, match="unknown shadows 'in'"):
        attack(pool, "calibrated", shadows="in")
