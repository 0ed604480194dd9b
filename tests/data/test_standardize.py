import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from dpnorm.data import Dataset, Records, add_outliers, exact_moments, load, standardized
from dpnorm.errors import InputError

EXACT = (
    "the mean and standard deviation of the inputs, computed from the private records without noise"
)


def data_of(*shape: int, bounds=(-3.0, 5.0), uncovered=()) -> Dataset:
    generator = torch.Generator().manual_seed(3)
    whole = Records(
        torch.rand(30, *shape, generator=generator) * 8 - 3,
        torch.arange(30) % 3,
        torch.rand(30) < 0.2,
    )
    parts = [whole.select(slice(0, 18)), whole.select(slice(18, 25)), whole.select(slice(25, 30))]
    return Dataset("toy", *parts, 3, shape, "as it was", bounds, uncovered)


@pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 3, 3), (1, 2, 2, 2)])
def test_every_channel_of_every_part_loses_its_mean_and_is_divided_by_its_std(shape):
    data = data_of(*shape)
    mean, std = np.arange(shape[0]) - 0.3, np.arange(shape[0]) / 2 + 0.1
    found = standardized(data, torch.tensor(mean), torch.tensor(std), scaling="by hand")
    for name, part in found.parts().items():
        before = data.parts()[name]
        for channel in range(shape[0]):
            by_hand = (before.x[:, channel].double().numpy() - mean[channel]) / std[channel]
            np.testing.assert_array_equal(part.x[:, channel].numpy(), by_hand.astype(np.float32))
        assert torch.equal(part.y, before.y)
        assert torch.equal(part.outlier, before.outlier)
    assert (found.name, found.shape, found.num_classes) == (data.name, shape, 3)
    assert found.scaling == "as it was; then by hand"


def test_the_numbers_are_rounded_once_only():
    """In single precision, 1e7 + 1 less a mean of 1e7 + 0.3 would be 1 instead of 0.7."""
    one = Records(torch.full((1, 1), 1e7 + 1), torch.zeros(1).long())
    data = Dataset("far", one, one, one, 1, (1,), "none")
    found = standardized(data, [1e7 + 0.3], [1.0], scaling="")
    assert found.train.x.item() == pytest.approx(0.7, abs=1e-7)


def test_large_data_sets_are_standardized_as_small_ones_are(monkeypatch):
    data = data_of(2, 3)
    whole = standardized(data, [1.0, 2.0], [3.0, 4.0], scaling="")
    monkeypatch.setattr("dpnorm.data.standardize.CHUNK", 7)
    assert (
        standardized(data, [1.0, 2.0], [3.0, 4.0], scaling="").fingerprint() == whole.fingerprint()
    )


def test_the_data_set_that_was_given_stays_as_it_was():
    data = data_of(2, 3)
    before = data.fingerprint()
    standardized(data, [1.0, 2.0], [3.0, 4.0], scaling="")
    exact_moments(data)
    assert data.fingerprint() == before
    assert (data.scaling, data.bounds, data.uncovered) == ("as it was", (-3.0, 5.0), ())


def test_bounds_follow_where_they_are_known():
    data = data_of(2, 3)
    assert standardized(data, [1.0, 1.0], [2.0, 2.0], scaling="").bounds == (-2, 2)
    assert standardized(data, [1.0, -3.0], [2.0, 1.0], scaling="").bounds == (-2, 8)
    unknown = dataclasses.replace(data, bounds=None)
    assert standardized(unknown, [1.0, 1.0], [2.0, 2.0], scaling="").bounds is None


@pytest.mark.parametrize("seed", range(20))
def test_no_input_between_the_bounds_leaves_them_by_rounding(seed):
    generator = torch.Generator().manual_seed(seed)
    low, high = sorted(torch.randn(2, generator=generator).tolist())
    x = torch.tensor([low, high]).repeat(8, 1)
    low, high = x.min().item(), x.max().item()
    records = Records(x, torch.zeros(8).long())
    data = Dataset("ends", records, records, records, 1, (2,), "", (low, high))
    mean, std = torch.randn(2, generator=generator), torch.rand(2, generator=generator) + 1e-3
    found = standardized(data, mean, std, scaling="")
    assert found.bounds[0] <= found.train.x.min().item()
    assert found.train.x.max().item() <= found.bounds[1]


def test_what_is_not_covered_adds_up_and_stays():
    data = data_of(2, 3, uncovered=("the choice of features",))
    found = standardized(data, [0.0, 0.0], [1.0, 1.0], scaling="", uncovered=["the mean"])
    assert found.uncovered == ("the choice of features", "the mean")
    assert standardized(found, [0, 0], [1, 1], scaling="").uncovered == found.uncovered
    assert dataclasses.replace(found, name="other").uncovered == found.uncovered
    assert add_outliers(found, "noise", 3).uncovered == found.uncovered
    assert found.fingerprint() == dataclasses.replace(found, uncovered=()).fingerprint()
    assert load("digits").uncovered == ()


@pytest.mark.parametrize("uncovered", ["the mean", ["the mean"], ("",), (3,), None])
def test_a_data_set_refuses_what_is_no_tuple_of_texts(uncovered):
    with pytest.raises(InputError, match=r"uncovered of 'toy' is .* a tuple of texts"):
        data_of(2, uncovered=uncovered)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0, 1.0], r"mean has the shape \[1\], .* have 2 channels"),
        ([0.0, 0.0], [1.0], r"std has the shape \[1\], .* \[2, 3\] have 2 channels"),
        (torch.zeros(2, 1), [1.0, 1.0], r"mean has the shape \[2, 1\]"),
        (0.0, [1.0, 1.0], r"mean has the shape \[\]"),
        ([0.0, math.nan], [1.0, 1.0], "mean of channel 1 is nan: it is to be finite"),
        ([math.inf, 0.0], [1.0, 1.0], "mean of channel 0 is inf"),
        ([0.0, 0.0], [math.nan, 1.0], "std of channel 0 is nan"),
        ([0.0, 0.0], [1.0, math.inf], "std of channel 1 is inf"),
        ([0.0, 0.0], [1.0, 0.0], "std of channel 1 is 0: it is to be above 0"),
        ([0.0, 0.0], [-1.0, -2.0], "std of channel 0 is -1: it is to be above 0"),
        ("zero", [1.0, 1.0], "mean is no tensor or list of numbers"),
        ([0.0, 0.0], None, "std is no tensor or list of numbers"),
    ],
)
def test_numbers_that_fit_no_channel_are_refused(mean, std, message):
    with pytest.raises(InputError, match=message):
        standardized(data_of(2, 3), mean, std, scaling="")


def test_a_text_that_would_fall_into_letters_is_refused():
    with pytest.raises(InputError, match="uncovered is the text 'the mean': give a tuple"):
        standardized(data_of(2), [0.0, 0.0], [1.0, 1.0], scaling="", uncovered="the mean")


def test_exact_moments_are_those_of_scikit_learn_and_of_the_training_records_alone():
    data = data_of(5)
    x = data.train.x.double().numpy()
    scaler = StandardScaler().fit(x)
    found = exact_moments(data)
    for name, part in found.parts().items():
        by_sklearn = scaler.transform(data.parts()[name].x.double().numpy())
        np.testing.assert_allclose(part.x.numpy(), by_sklearn, rtol=2e-6, atol=2e-7)


def test_exact_moments_of_images_are_over_all_pixels_of_a_channel():
    found = exact_moments(data_of(3, 4, 4)).train.x.double()
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-6, rtol=0
    )


def test_exact_moments_say_that_nothing_covers_them():
    found = exact_moments(data_of(5, uncovered=("the features",)))
    assert found.uncovered == ("the features", EXACT)
    assert found.scaling.endswith(
        "by the exact mean and standard deviation of the training records"
    )
    assert "**not private**" in (exact_moments.__doc__ or "")


@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
def test_a_channel_that_does_not_vary_is_divided_by_one(value):
    data = data_of(3)
    x, other = data.train.x.clone(), data.test.x.clone()
    x[:, 1], other[:, 1] = value, value + 1
    data = dataclasses.replace(
        data,
        train=Records(x, data.train.y),
        test=Records(other, data.test.y),
        bounds=None,
    )
    found = exact_moments(data)
    torch.testing.assert_close(found.train.x[:, 1], torch.zeros(18), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.test.x[:, 1], torch.ones(7), atol=1e-6, rtol=0)


def test_exact_moments_of_nothing_or_of_what_is_not_finite_are_refused():
    data = data_of(3)
    with pytest.raises(InputError, match="'toy' has no training record to take the moments of"):
        exact_moments(dataclasses.replace(data, train=data.train.select([])))
    x = data.train.x.clone()
    x[4, 1], x[7, 0] = math.inf, math.nan
    broken = dataclasses.replace(data, train=Records(x, data.train.y))
    with pytest.raises(InputError, match=r"2 training records .* the first at position 4: repair"):
        exact_moments(broken)
