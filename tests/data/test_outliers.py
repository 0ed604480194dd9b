import numpy as np
import pytest
import torch

from dpnorm.data import OUTLIERS, Dataset, Records, add_outliers, load
from dpnorm.errors import InputError

KINDS = ["foreign", "inverted", "mislabelled", "noise"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def flat_data() -> Dataset:
    x = torch.linspace(-1, 1, 60 * 5).reshape(60, 5)
    whole = Records(x, torch.arange(60) % 3)
    parts = [whole.select(slice(0, 40)), whole.select(slice(40, 50)), whole.select(slice(50, 60))]
    return Dataset("flat", *parts, num_classes=3, shape=(5,), scaling="none")


def test_the_four_kinds_are_registered():
    assert sorted(OUTLIERS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_count_records_are_flagged_and_all_others_stay_as_they_were(digits, kind):
    before = digits.fingerprint()
    data = add_outliers(digits, kind, 30)
    flags = data.train.outlier
    assert flags.sum() == 30
    ordinary = torch.ones(len(digits.train), dtype=torch.bool)
    if len(data.train) == len(digits.train):
        ordinary = ~flags
    else:
        assert flags.tolist() == [False] * len(digits.train) + [True] * 30
    assert torch.equal(data.train.x[~flags], digits.train.x[ordinary])
    assert torch.equal(data.train.y[~flags], digits.train.y[ordinary])
    assert data.test is digits.test
    assert data.public is digits.public
    assert digits.fingerprint() == before
    assert data.name == f"digits+{kind}:30"


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_outliers_and_global_random_state_is_left_alone(digits, kind):
    state = torch.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    first = add_outliers(digits, kind, 10, seed=3).fingerprint()
    torch.rand(3)
    assert add_outliers(digits, kind, 10, seed=3).fingerprint() == first
    assert add_outliers(digits, kind, 10, seed=4).fingerprint() != first
    torch.set_rng_state(state)
    add_outliers(digits, kind, 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], np_state)


def test_noise_is_uniform_with_labels_that_say_nothing(digits):
    planted = add_outliers(digits, "noise", 1000).train
    planted = planted.select(planted.outlier)
    # 64,000 uniform numbers in [-1, 1]: the mean has sd 0.0023, the variance 1/3 has sd 0.0012
    assert planted.x.mean().item() == pytest.approx(0, abs=0.012)
    assert planted.x.var().item() == pytest.approx(1 / 3, abs=0.006)
    assert planted.x.min() >= -1
    assert planted.x.max() <= 1
    # counts of 100 with sd 9.5; five sd
    assert (torch.bincount(planted.y, minlength=10) - 100).abs().max() <= 48


def test_mislabelled_records_keep_their_image_and_have_another_valid_label(digits):
    planted = add_outliers(digits, "mislabelled", 500).train
    assert torch.equal(planted.x, digits.train.x)
    assert torch.equal(planted.y != digits.train.y, planted.outlier)
    assert 0 <= planted.y.min() <= planted.y.max() <= 9
    shift = (planted.y - digits.train.y)[planted.outlier] % 10
    counts = torch.bincount(shift, minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 500 / 9).abs().max() <= 36  # sd 7; five sd


def test_inverted_records_are_negatives_with_their_right_label(digits):
    planted = add_outliers(digits, "inverted", 100).train
    flags = planted.outlier
    assert torch.equal(planted.x[flags], -digits.train.x[flags])
    assert torch.equal(planted.y, digits.train.y)


def test_every_train_record_can_be_replaced_but_not_twice(digits):
    everything = add_outliers(digits, "inverted", len(digits.train))
    assert torch.equal(everything.train.x, -digits.train.x)
    with pytest.raises(InputError, match="only 0 train records that are none yet"):
        add_outliers(everything, "mislabelled", 1)


def test_kinds_can_be_planted_one_after_another(digits):
    data = digits
    for kind in KINDS:
        data = add_outliers(data, kind, 20)
    assert data.train.outlier.sum() == 80
    assert len(data.train) == len(digits.train) + 40
    changed_image = (data.train.x[: len(digits.train)] != digits.train.x).flatten(1).any(1)
    changed_label = data.train.y[: len(digits.train)] != digits.train.y
    assert changed_image.sum() == changed_label.sum() == 20
    assert not (changed_image & changed_label).any()


def test_photograph_patches_are_all_different_and_have_contrast(digits):
    planted = add_outliers(digits, "foreign", 60).train
    planted = planted.select(planted.outlier)
    assert len(torch.unique(planted.x, dim=0)) == 60
    assert -1 <= planted.x.min() <= planted.x.max() <= 1
    assert planted.x.std(dim=(1, 2, 3)).mean() > 0.16
    # no digit looks like them: even the nearest is farther than digits are from one another
    nearest = torch.cdist(planted.x.flatten(1), digits.train.x.flatten(1)).min(1).values
    among = torch.cdist(digits.test.x.flatten(1), digits.train.x.flatten(1)).min(1).values
    assert nearest.median() > 1.5 * among.median()


def images(channels: int, size: int, value: float = 0.25) -> Records:
    return Records(torch.full((20, channels, size, size), value), torch.zeros(20).long())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 8, 32])
def test_given_foreign_images_are_brought_to_size_and_channels(digits, channels, size):
    planted = add_outliers(digits, "foreign", 15, foreign=images(channels, size)).train
    planted = planted.x[planted.outlier]
    assert planted.shape == (15, 1, 8, 8)
    assert torch.allclose(planted, torch.tensor(0.25))  # a constant image stays that constant


def test_given_foreign_images_are_averaged_when_they_shrink(digits):
    x = torch.zeros(5, 1, 16, 16)
    x[:, :, :, 8:] = 1
    planted = add_outliers(digits, "foreign", 5, foreign=Records(x, torch.zeros(5).long())).train
    planted = planted.x[planted.outlier]
    assert torch.equal(planted[..., :3], torch.zeros(5, 1, 8, 3))
    assert torch.equal(planted[..., 5:], torch.ones(5, 1, 8, 3))


def test_foreign_records_of_the_same_shape_are_taken_as_they_are():
    data = flat_data()
    foreign = Records(torch.randn(4, 5), torch.zeros(4).long())
    planted = add_outliers(data, "foreign", 3, foreign=foreign).train
    assert torch.equal(planted.x[planted.outlier], foreign.x[:3])


@pytest.mark.parametrize("kind", ["noise", "mislabelled"])
def test_flat_records_take_the_kinds_that_need_no_image(kind):
    assert add_outliers(flat_data(), kind, 7).train.outlier.sum() == 7


@pytest.mark.parametrize("kind", ["foreign", "inverted"])
def test_flat_records_refuse_the_kinds_that_need_an_image(kind):
    with pytest.raises(InputError, match=r"need images.*these are \(5,\)"):
        add_outliers(flat_data(), kind, 7)


def test_foreign_images_for_flat_records_are_refused():
    with pytest.raises(InputError, match="need images"):
        add_outliers(flat_data(), "foreign", 2, foreign=images(1, 8))


def test_flat_foreign_records_for_images_are_refused(digits):
    with pytest.raises(InputError, match="need images"):
        add_outliers(digits, "foreign", 2, foreign=flat_data().train)


def test_without_public_bounds_the_extremes_of_the_records_bound_outliers(digits):
    shifted = Records(digits.train.x + 4, digits.train.y)
    data = Dataset("shifted", shifted, digits.test, digits.public, 10, (1, 8, 8), "")
    planted = add_outliers(data, "inverted", 20).train
    assert torch.equal(planted.x[planted.outlier], 8 - shifted.x[planted.outlier])
    noise = add_outliers(data, "noise", 20).train
    assert 3 <= noise.x[noise.outlier].min() <= noise.x[noise.outlier].max() <= 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, -3, 1298, 2.0, "5", True, None])
def test_impossible_counts_are_refused(digits, kind, count):
    with pytest.raises(InputError, match=f"number of outliers must be.* {count!r} was given"):
        add_outliers(digits, kind, count)


def test_other_bad_arguments_are_refused(digits):
    with pytest.raises(InputError, match=r"unknown kind of outlier 'nois': .* 'noise'"):
        add_outliers(digits, "nois", 3)
    with pytest.raises(InputError, match="seed of outliers must be"):
        add_outliers(digits, "noise", 3, seed=-1)
    with pytest.raises(InputError, match="only 20 given"):
        add_outliers(digits, "foreign", 21, foreign=images(1, 8))
    with pytest.raises(InputError, match="serve the kind 'foreign', not 'noise'"):
        add_outliers(digits, "noise", 3, foreign=images(1, 8))
