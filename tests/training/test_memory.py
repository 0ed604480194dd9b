"""How many records run at once, from what a forward pass keeps."""

import copy

import pytest
import torch
from torch import nn

from dpnorm.training import memory, train
from dpnorm.training.augment import ViewsLoss
from dpnorm.training.memory import bytes_kept, memory_of, records_that_fit
from tests.training.small import PLAIN, images, network

MODES = (None, "hooks", "lean", "functorch", "ghost", "ew")
B, IN, HIDDEN, OUT = 5, 12, 20, 4


def net(hidden=HIDDEN):
    return nn.Sequential(nn.Linear(IN, hidden), nn.ReLU(), nn.Linear(hidden, OUT))


def batch(records=B):
    return torch.rand(records, IN), torch.arange(records) % OUT


def fit(model, mode):
    return records_that_fit(model, ViewsLoss(), *batch(), mode=mode)


def test_bytes_kept_are_those_of_a_count_by_hand():
    """Inputs of the first layer, of the second (the ReLU's output), and the loss's own.

    Cross entropy keeps the logarithms of the softmax, the labels, and the sum of its weights.
    """
    by_hand = 4 * B * IN + 4 * B * HIDDEN + (4 * B * OUT + 8 * B + 4)
    assert bytes_kept(net(), ViewsLoss(), *batch()) == by_hand


def test_bytes_kept_grow_with_the_records():
    few, many = (bytes_kept(net(), ViewsLoss(), *batch(n)) for n in (10, 20))
    assert many - 4 == 2 * (few - 4)  # all but the sum of the weights of the loss


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(IN), nn.Dropout(0.5), net())
    x, y = batch()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    bytes_kept(model, ViewsLoss(), x, y)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_more_records_fit_into_more_memory_and_fewer_of_a_larger_model(mode, monkeypatch):
    found = []
    for size in (2**20, 2**24, 2**28):
        monkeypatch.setattr(memory, "memory_of", lambda device, size=size: size)
        found.append([fit(net(hidden), mode) for hidden in (20, 200, 2000)])
    for rows in (*zip(*found, strict=True), *[row[::-1] for row in found]):
        assert list(rows) == sorted(set(rows))


def test_gradients_of_single_records_take_room(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 2**28)
    sizes = {mode: fit(net(2000), mode) for mode in MODES}
    assert sizes["hooks"] == sizes["functorch"] == sizes["ew"] < sizes["ghost"] < sizes[None]


def test_one_record_runs_where_none_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 1)
    assert fit(net(), "hooks") == 1
    trained = train(network(), images(6), PLAIN.model_copy(update={"batch_size": 4, "epochs": 1}))
    assert trained.history[-1]["step"] == 2


def test_the_memory_is_that_of_the_machine_or_less():
    assert 2**26 < memory_of(torch.device("cpu")) < 2**50
