"""The plain loop against loops written by hand, setting by setting."""

import copy
import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.errors import InputError
from dpnorm.norms import refresh_statistics
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import accuracy, train
from dpnorm.training.augment import augmented
from tests.training.small import PLAIN, images, network, with_settings

DATA = images(22)
EPOCHS, BATCH, RATE = 3, 8, 0.2


def by_hand(model, optimizer, rate=lambda step, steps: RATE, *, views=1, kind="none", after=None):
    """Cross entropy over shuffled batches; the seed of order and draws is 3."""
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(3)
    steps, step = EPOCHS * math.ceil(len(DATA) / BATCH), 0
    for _ in range(EPOCHS):
        for index in torch.randperm(len(DATA), generator=generator).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps)
            optimizer.zero_grad()
            x, y = augmented(DATA.x[index], kind, views), DATA.y[index]
            if views == 1:
                loss = F.cross_entropy(model(x), y)
            else:
                losses = [F.cross_entropy(model(x[:, view]), y) for view in range(views)]
                loss = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            step += 1
            if after is not None:
                after(step)
    return model


def compare(model, expected, **settings):
    config = with_settings(PLAIN, epochs=EPOCHS, batch_size=BATCH, seed=3, **settings)
    trained = train(model, DATA, config, test=DATA)
    for ours, theirs in zip(
        trained.model.state_dict().values(), expected.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    moved = (trained.model[0].weight - model[0].weight).abs().max()
    assert moved > 1e-3
    assert trained.accuracy == accuracy(expected, DATA)
    return trained


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=RATE, **options)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd(momentum, decay):
    model = network("batch", dropout=0.3)
    mine = copy.deepcopy(model)
    by_hand(mine, sgd(mine, momentum=momentum, weight_decay=decay))
    compare(model, mine, momentum=momentum, weight_decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw(decay):
    model = network(dropout=0.3)
    mine = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(mine.parameters(), lr=0.01, weight_decay=decay)
    by_hand(mine, optimizer, lambda step, steps: 0.01)
    compare(model, mine, optimizer="adamw", lr=0.01, weight_decay=decay)


SCHEDULES = {  # of nine steps; two of them warm up where a quarter is asked for
    ("constant", 0.0): [1.0] * 9,
    ("linear", 0.0): [1 - step / 9 for step in range(9)],
    ("cosine", 0.0): [(1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)],
    ("constant", 0.25): [1 / 3, 2 / 3, *[1.0] * 7],
    ("linear", 0.25): [1 / 3, 2 / 3, *[1 - step / 7 for step in range(7)]],
    ("cosine", 0.25): [1 / 3, 2 / 3, *[(1 + math.cos(math.pi * s / 7)) / 2 for s in range(7)]],
}


@pytest.mark.parametrize(("schedule", "warmup"), SCHEDULES)
def test_schedules(schedule, warmup):
    model = network()
    mine = copy.deepcopy(model)
    factors = SCHEDULES[schedule, warmup]
    by_hand(mine, sgd(mine), lambda step, steps: RATE * factors[step])
    trained = compare(model, mine, schedule=schedule, warmup=warmup)
    expected = [RATE * factors[step] for step in (2, 5, 8)]
    assert trained.history.column("lr") == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["none", "shift", "shift-flip"])
def test_several_views_train_on_the_mean_of_their_losses(kind):
    model = network()
    mine = copy.deepcopy(model)
    by_hand(mine, sgd(mine), views=3, kind=kind)
    compare(model, mine, views=3, augment=kind)


@pytest.mark.parametrize("ema", [0.5, 0.99])
def test_the_average_is_that_of_the_formula(ema):
    """decay_t = min(ema, (1 + t) / (10 + t)) over parameters and statistics, t = 0, 1, ..."""
    model = network("batch")
    mine = copy.deepcopy(model)
    mean = copy.deepcopy(model)

    def update(step):
        decay = min(ema, step / (9 + step))
        for name, value in mine.state_dict().items():
            if value.is_floating_point():
                averaged = mean.state_dict()[name]
                averaged.copy_(decay * averaged + (1 - decay) * value)
            else:
                mean.state_dict()[name].copy_(value)

    by_hand(mine, sgd(mine), after=update)
    trained = compare(model, mean, ema=ema)
    assert trained.history[-1]["accuracy"] == trained.accuracy
    assert not torch.allclose(mean[0].weight, mine[0].weight, atol=1e-3)


def test_parts_that_run_at_once_add_up_to_the_batch():
    model = network()
    mine = copy.deepcopy(model)
    by_hand(mine, sgd(mine))
    for physical in (1, 3, 7):
        compare(model, mine, physical_batch_size=physical)


def test_the_history_holds_the_mean_loss_of_each_epoch():
    model = network()
    mine, losses = copy.deepcopy(model), []
    optimizer = sgd(mine)
    generator = torch.Generator().manual_seed(3)
    for _ in range(EPOCHS):
        total = 0.0
        for index in torch.randperm(len(DATA), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(mine(DATA.x[index]), DATA.y[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        losses.append(total / len(DATA))
    assert compare(model, mine).history.column("loss") == pytest.approx(losses)


class Watched(nn.Module):
    """Keeps the sizes of its batches, in training."""

    sizes: ClassVar[list[int]] = []

    def forward(self, x):
        if torch.is_grad_enabled():
            self.sizes.append(len(x))
        return x


def test_a_lone_last_record_joins_the_batch_before():
    """A BatchNorm has no statistics of one record: 22 records in batches of 7 are 7, 7 and 8."""
    Watched.sizes.clear()
    model = nn.Sequential(Watched(), network("batch"))
    train(model, DATA, with_settings(PLAIN, epochs=1, batch_size=7, physical_batch_size=99))
    assert Watched.sizes == [7, 7, 8]


def test_a_batch_is_cut_into_parts_of_one_size():
    """Ten records, three at once, are 3, 3, 2 and 2, and no lone one at the end."""
    Watched.sizes.clear()
    model = nn.Sequential(Watched(), network("batch"))
    config = with_settings(PLAIN, epochs=1, batch_size=10, physical_batch_size=3)
    train(model, images(10), config)
    assert Watched.sizes == [3, 3, 2, 2]


@pytest.mark.parametrize("privacy", [None, PrivacyConfig(noise_multiplier=1.0, seed=0)])
def test_averaged_weights_have_the_public_statistics_of_their_own(privacy):
    public = images(10, seed=5).x
    trained = train(network("public"), DATA, with_settings(PLAIN, ema=0.8), privacy, public=public)
    own = copy.deepcopy(trained.model).train()
    refresh_statistics(own, public)
    for (name, buffer), refreshed in zip(trained.model.named_buffers(), own.buffers(), strict=True):
        torch.testing.assert_close(buffer, refreshed, msg=name)


def test_statistics_of_public_records_follow_the_weights():
    model, public = network("public"), images(10, seed=5).x
    mine = copy.deepcopy(model)
    refresh_statistics(mine, public)
    by_hand(mine, sgd(mine), after=lambda step: refresh_statistics(mine, public))
    config = with_settings(PLAIN, epochs=EPOCHS, batch_size=BATCH, seed=3)
    trained = train(model, DATA, config, public=public)
    for ours, theirs in zip(
        trained.model.state_dict().values(), mine.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="the data set has no public part"):
        train(model, DATA, config)
