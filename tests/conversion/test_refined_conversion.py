"""convert with records: public ones, or synthesized from the statistics alone."""

import pytest
import torch
from torch import nn

from dpnorm.conversion import convert
from dpnorm.data import load
from dpnorm.errors import InputError
from dpnorm.models import build
from dpnorm.training import TrainConfig, accuracy, train


@pytest.fixture(scope="module")
def data():
    return load("digits")


@pytest.fixture(scope="module")
def source(data):
    """A small classifier with BatchNorm1d, trained in seconds."""
    torch.manual_seed(0)
    model = build("mlp", in_channels=1, image_size=(8, 8))
    return train(model, data, TrainConfig(epochs=15, lr=0.05)).model


def test_synthesized_records_need_no_data_and_their_stages_are_told(source, data):
    seen = []
    conversion = convert(
        source,
        to="layer",
        public_inputs="synthesize",
        record_shape=(1, 8, 8),
        distill_steps=20,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == [
        "synthesis",
        "matching",
        "distillation",
    ]
    assert seen[-1][1] == seen[-1][2] == 20
    assert accuracy(conversion.model, data.test) >= 0.97 * accuracy(source, data.test)


def test_an_exact_variant_needs_no_records(source, data):
    frozen = convert(source, to="frozen", public_inputs="synthesize").model
    torch.testing.assert_close(frozen(data.test.x), source(data.test.x), rtol=1e-4, atol=1e-4)


def test_a_larger_eps_keeps_more_of_the_function(source, data):
    kept = {
        eps: accuracy(convert(source, to="group", eps=eps).model, data.test) for eps in (1e-5, None)
    }
    assert kept[None] >= kept[1e-5]
    assert kept[None] >= 0.97 * accuracy(source, data.test)


def test_wrong_refinement_is_one_clear_error():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(InputError, match="distill_steps needs records"):
        convert(model, distill_steps=5)
    with pytest.raises(InputError, match="synthesise"):
        convert(model, public_inputs="synthesise")
    with pytest.raises(InputError, match="eps is -1"):
        convert(model, eps=-1)
