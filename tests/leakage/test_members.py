"""Training members and pools, on small networks and few records."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import nn

from dpnorm import data as datasets
from dpnorm import models
from dpnorm.errors import InputError
from dpnorm.leakage import attack, draw_membership, memorization, train_member, train_pool
from dpnorm.leakage.members import member_seed, pool_privacy
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.1)
FACTORY = functools.partial(models.build, "mlp", image_size=8)


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    digits = datasets.load("digits")
    small = dataclasses.replace(digits, train=digits.train.select(torch.arange(100)))
    return datasets.add_outliers(small, "noise", 20, seed=1)


def plain_linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_pool_is_the_same_on_one_worker_and_on_two(data):
    views = data.train.x.numpy(), data.train.y.numpy()
    before = [view.copy() for view in views]
    alone = train_pool(FACTORY, data, CONFIG, size=3, seed=5, workers=1)
    together = train_pool(FACTORY, data, CONFIG, size=3, seed=5, workers=2)
    for name in ("keep", "logits", "labels", "outlier", "accuracy"):
        assert np.array_equal(getattr(alone, name), getattr(together, name))
    # sending tensors to processes would have freed the memory behind the caller's numpy views
    assert all(np.array_equal(view, copy) for view, copy in zip(views, before, strict=True))
    assert np.array_equal(alone.keep, draw_membership(len(data.train), 3, 5))
    assert np.array_equal(alone.outlier, data.train.outlier.numpy())
    assert not np.array_equal(alone.logits[0], alone.logits[1])


def test_memorized_outliers_show_in_a_trained_pool(data):
    config = TrainConfig(epochs=40, batch_size=16, lr=0.1)
    pool = train_pool(FACTORY, data, config, size=4, seed=1, workers=1)
    scores = attack(pool, "loss")
    # random labels on noise: nobody can guess them unseen
    assert memorization(pool).outliers.value > 0.6
    assert scores.on(scores.outlier).auc.value > 0.9


def test_a_member_sees_only_the_records_it_keeps(data):
    keep = draw_membership(len(data.train), 2, 0)[0]
    x = data.train.x.clone()
    x[torch.from_numpy(~keep)] = 0.5
    blanked = dataclasses.replace(data, train=dataclasses.replace(data.train, x=x))
    real = train_member(FACTORY, data, CONFIG, None, keep=keep, seed=3)
    blank = train_member(FACTORY, blanked, CONFIG, None, keep=keep, seed=3)
    assert np.array_equal(real.logits[keep], blank.logits[keep])
    assert real.accuracy == blank.accuracy


def test_signals_are_those_of_evaluation_mode(data):
    # In train mode BatchNorm would mix the records of a batch: the logits of record 0 would change
    # with the other records' pixels
    keep = draw_membership(len(data.train), 2, 0)[0]
    keep[:2] = [True, False]
    x = data.train.x.clone()
    x[1] = 1 - x[1]
    changed = dataclasses.replace(data, train=dataclasses.replace(data.train, x=x))
    first = train_member(FACTORY, data, CONFIG, None, keep=keep, seed=3)
    second = train_member(FACTORY, changed, CONFIG, None, keep=keep, seed=3)
    same = np.arange(len(keep)) != 1
    assert np.array_equal(first.logits[same], second.logits[same])
    assert not np.array_equal(first.logits[1], second.logits[1])


def test_the_callers_random_state_and_thread_count_stay_as_they_were(data):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    train_pool(FACTORY, data, CONFIG, size=2, seed=0, workers=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_private_members_share_one_noise_calibration(data):
    privacy = PrivacyConfig(epsilon=8.0, delta=1e-3, seed=4)
    keep = draw_membership(len(data.train), 2, 3)
    sizes = keep.sum(axis=1)
    assert sizes[0] != sizes[1]
    members = [
        train_member(plain_linear, data, CONFIG, privacy, keep=row, seed=seed)
        for seed, row in enumerate(keep)
    ]
    first, second = (member.statement for member in members)
    assert first is not None
    assert second is not None
    for name in ("epsilon", "noise_multiplier", "sampling_rate", "steps"):
        assert first[name] == second[name]
    assert first["sampling_rate"] == pytest.approx(16 / (len(data.train) / 2))
    assert 7.5 < first["epsilon"] <= 8.0
    again = train_member(plain_linear, data, CONFIG, privacy, keep=keep[0], seed=0)
    assert np.array_equal(again.logits, members[0].logits)


def test_pool_constants_come_from_the_expected_half_unless_given():
    open_ = PrivacyConfig(epsilon=3.0)
    filled = pool_privacy(open_, CONFIG, records=101, seed=1)
    assert filled.sampling_rate == pytest.approx(16 / 50.5)
    assert filled.steps == 2 * 4
    assert filled.seed is None
    given = open_.model_copy(update={"sampling_rate": 0.1, "steps": 7, "seed": 2})
    kept = pool_privacy(given, CONFIG, records=101, seed=1)
    assert (kept.sampling_rate, kept.steps) == (0.1, 7)
    seeds = {pool_privacy(given, CONFIG, records=101, seed=s).seed for s in range(20)}
    assert len(seeds) == 20


def test_members_of_a_larger_pool_keep_their_seeds_and_differ():
    seeds = [member_seed(0, m) for m in range(256)]
    assert len(set(seeds)) == 256
    assert seeds[:8] == [member_seed(0, m) for m in range(8)]
    assert not set(seeds) & {member_seed(1, m) for m in range(256)}


def test_members_that_cannot_be_trained_are_refused_before_training(data):
    records = len(data.train)
    none = np.zeros(records, dtype=bool)
    with pytest.raises(InputError, match="selects no record"):
        train_member(FACTORY, data, CONFIG, None, keep=none, seed=0)
    with pytest.raises(InputError, match=r"keep is bool\[3\]; the data need bool\["):
        train_member(FACTORY, data, CONFIG, None, keep=none[:3], seed=0)
    large = CONFIG.model_copy(update={"batch_size": records - 1})
    with pytest.raises(InputError, match="take a smaller batch"):
        train_pool(FACTORY, data, large, size=2)
    with pytest.raises(InputError, match="half of"):
        pool_privacy(PrivacyConfig(epsilon=3.0), large, records, 0)
    with pytest.raises(InputError, match="1 models"):
        train_pool(FACTORY, data, CONFIG, size=1)
