"""The noise of a step: on every number of its own, in parts that fit a cache or not."""

import math

import pytest
import torch
from torch import nn

from dpnorm.privacy import PrivateOptimizer
from dpnorm.privacy.noise import BLOCK, MANY, PIECE

CLIP, MULTIPLIER, RECORDS = 0.5, 2.0, 3
# Five standard deviations: some 80 numbers are tried below, and a right implementation would miss
# one of them with a probability below 80 * 6e-7 on other seeds; this one is fixed.
DEVIATIONS = 5.0


def network(rows=128):
    """Parameters of many sizes; with SEVERAL rows several streams give the noise."""
    torch.manual_seed(0)
    small = [nn.Linear(3, 2) for _ in range(5)]
    images = nn.Conv2d(64, 128, 3).to(memory_format=torch.channels_last)  # more than one piece
    large = nn.Linear(PIECE // 128, rows)
    return nn.Sequential(*small, images, nn.Linear(7, 5), large, small[0])


SEVERAL = 3 * 128 * MANY // PIECE  # rows


def optimizer(model, seed=3, **options):
    return PrivateOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0),
        noise_multiplier=MULTIPLIER,
        max_grad_norm=CLIP,
        expected_batch_size=RECORDS,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def noise_alone(model, **options):
    """The noise on each parameter, over its standard deviation."""
    step = optimizer(model, loss_reduction="sum", **options)
    step.take_empty_batch()
    step.step()
    return [p.grad.double() / (MULTIPLIER * CLIP) for p in model.parameters()]


@pytest.mark.parametrize("rows", [128, SEVERAL])
def test_each_number_gets_noise_of_its_own(rows):
    parts = noise_alone(network(rows))
    for part in parts:
        n = part.numel()
        assert abs(part.mean()) < DEVIATIONS / math.sqrt(n)
        if n > 30:
            assert abs(part.square().mean() - 1) < DEVIATIONS * math.sqrt(2 / n)
    flat = torch.cat([part.flatten() for part in parts])
    lags = [1, 16, *(p.numel() for p in parts), PIECE, PIECE + 1, 2 * PIECE]
    if rows == SEVERAL:
        lags += [BLOCK // 2, BLOCK, BLOCK + 1, MANY, MANY + 1, 2 * MANY]
    assert len(flat) > max(lags)
    for lag in lags:
        together = flat[lag:] * flat[:-lag]
        assert abs(together.mean()) < DEVIATIONS / math.sqrt(len(together)), lag


@pytest.mark.parametrize("rows", [128, SEVERAL])
def test_noise_is_added_to_the_exact_sum(rows):
    model = network(rows)
    noise = noise_alone(model)
    for p in model.parameters():
        p.grad_sample = torch.randn(RECORDS, *p.shape).contiguous()
    step = optimizer(model)  # of the same seed; the mean over the expected number
    step.step()
    for p, drawn in zip(model.parameters(), noise, strict=True):
        sum_ = p.grad_sample.double().sum(0)
        norm = torch.cat([q.grad_sample.flatten(1) for q in model.parameters()], 1).norm(dim=1)
        clipped = (p.grad_sample.double().flatten(1) * (CLIP / norm[:, None])).sum(0).view_as(sum_)
        expected = (clipped + MULTIPLIER * CLIP * drawn) / RECORDS
        torch.testing.assert_close(p.grad.double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(p.summed_grad.double(), clipped, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [128, SEVERAL])
def test_the_release_is_divided_and_not_what_it_is_made_of(rows):
    """To the last bit, so that the division only reads what was released."""
    model, found = network(rows), {}
    samples = [torch.randn(RECORDS, *p.shape) for p in model.parameters()]
    for reduction in ("sum", "mean"):
        for p, own in zip(model.parameters(), samples, strict=True):
            p.grad_sample = own.clone()
        optimizer(model, loss_reduction=reduction).step()
        found[reduction] = [p.grad.clone() for p in model.parameters()]
    for whole, mean in zip(found["sum"], found["mean"], strict=True):
        assert torch.equal(whole / RECORDS, mean)


def test_noise_does_not_follow_from_the_number_of_threads():
    alone = noise_alone(network(SEVERAL))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several = noise_alone(network(SEVERAL))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, several, strict=True))


def test_the_noise_of_two_steps_is_independent():
    model = network(SEVERAL)
    step = optimizer(model, loss_reduction="sum")
    drawn = []
    for _ in range(2):
        step.zero_grad()
        step.take_empty_batch()
        step.step()
        drawn.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    stds = MULTIPLIER * CLIP
    product = (drawn[0].double() / stds) * (drawn[1].double() / stds)
    assert abs(product.mean()) < DEVIATIONS / math.sqrt(len(product))


def test_what_is_raised_in_a_thread_is_raised(monkeypatch):
    def full(*args):
        raise MemoryError("no memory")

    monkeypatch.setattr("dpnorm.privacy.noise.GaussianStream.fill", full)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(MemoryError, match="no memory"):
            noise_alone(network(SEVERAL))
    finally:
        torch.set_num_threads(threads)


def test_other_seeds_draw_other_noise_and_the_same_seed_the_same():
    first, again, other = (noise_alone(network(), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("rows", [30, SEVERAL])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_parameters_of_several_types_are_noised_each_in_its_own(dtype, rows):
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(PIECE // 128, rows).to(dtype))
    parts = noise_alone(model)
    assert [p.grad.dtype for p in model.parameters()] == 2 * [torch.float32] + 2 * [dtype]
    for part in parts:
        n = part.numel()
        assert abs(part.square().mean() - 1) < DEVIATIONS * math.sqrt(2 / n)
