"""Audits of real private trainings: canaries arrive, the claim holds, planted faults are found.

A bound of a right training exceeds its claim with probability 5% at most, each; seeds are fixed.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from dpnorm import data as datasets
from dpnorm.errors import InputError
from dpnorm.leakage import audit_training
from dpnorm.leakage.audits.canaries import GradientCanaries
from dpnorm.privacy import PrivacyConfig
from dpnorm.privacy.optimizer import PrivateOptimizer
from dpnorm.training import TrainConfig, train

CLIP = 0.5
FULL = TrainConfig(batch_size=200, epochs=1, lr=0.1, grad_sample_mode="hooks")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    digits = datasets.load("digits")
    return dataclasses.replace(digits, train=digits.train.select(torch.arange(400)))


def privacy(noise, *, rate=1.0, steps=1, delta=1e-5) -> PrivacyConfig:
    return PrivacyConfig(
        noise_multiplier=noise, clip=CLIP, delta=delta, sampling_rate=rate, steps=steps, seed=3
    )


def audited(data, noise, *, steps=1, rate=1.0, canaries=1200, **options):
    return audit_training(
        model(), data, FULL, privacy(noise, rate=rate, steps=steps), canaries=canaries, **options
    )


def weights(trained) -> torch.Tensor:
    return torch.cat([p.flatten() for p in trained.model.parameters()])


def moved_by_canaries(data, config):
    """What canaries that are in, and that are out, add to the sums of a step."""
    without = GradientCanaries(300, 1.0, seed=5)
    without._inside[:] = False
    canaries = GradientCanaries(300, 1.0, seed=5)
    for observer in (without, canaries):
        train(model(), data, config, privacy(1e-6), observer=observer)
    moved, inside = canaries.scores() - without.scores(), canaries.members()
    assert 100 < inside.sum() < 200
    return moved[inside], moved[~inside]


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch"])
@pytest.mark.parametrize("physical", [None, 37])
def test_what_is_injected_is_released_and_nothing_else_changes(data, mode, physical):
    update = {"grad_sample_mode": mode, "physical_batch_size": physical}
    inside, outside = moved_by_canaries(data, FULL.model_copy(update=update))
    np.testing.assert_allclose(inside, CLIP, atol=1e-4)
    np.testing.assert_allclose(outside, 0, atol=1e-4)


@pytest.mark.parametrize("physical", [None, 37])
@pytest.mark.parametrize("spread", [1, 3])
def test_scores_hold_nothing_of_the_records(data, physical, spread):
    """Without noise a score is what the canary added, though records' gradients are in the sums."""
    canaries = GradientCanaries(24, 0.5, seed=5, spread=spread)
    config = FULL.model_copy(update={"physical_batch_size": physical})
    train(model(), data, config, privacy(1e-6, rate=0.5, steps=6), observer=canaries)
    times = canaries.scores() / CLIP
    np.testing.assert_allclose(times, times.round(), atol=1e-3)
    assert (times[~canaries.members()].round() == 0).all()
    assert set(times[canaries.members()].round()) <= set(range(7))
    assert times.max() > 1.5


def test_no_step_is_lost_where_batches_are_empty(data):
    canaries = GradientCanaries(200, 0.002, seed=5)
    train(model(), data, FULL, privacy(1e-6, rate=0.002, steps=100), observer=canaries)
    times = canaries.scores() / CLIP
    np.testing.assert_allclose(times, times.round(), atol=1e-3)
    # about 100 members, 100 steps: Poisson(20), outside of this with probability 1e-5
    assert 5 < times.sum() < 45


def test_an_observer_that_adds_nothing_changes_nothing(data):
    idle = GradientCanaries(50, 1.0, seed=5)
    idle._inside[:] = False
    plain = train(model(), data, FULL, privacy(1.0, steps=3))
    seen = train(model(), data, FULL, privacy(1.0, steps=3), observer=idle)
    assert torch.equal(weights(plain), weights(seen))


def test_canaries_of_a_model_with_private_statistics(data):
    import dpnorm

    network = dpnorm.models.build("lenet", in_channels=1, num_classes=10, image_size=(8, 8))
    network = dpnorm.convert(network, to="private-batch").model
    found = audit_training(network, data, FULL, privacy(1.0, rate=0.5, steps=4), canaries=500)
    assert found.white_box.value <= found.claimed


def test_scores_are_apart_as_the_gaussian_mechanism_says(data):
    """At rate 1: their means are sqrt(T) / sigma deviations apart, and their deviation is 1.

    Each within 4 standard errors (6e-5); that of a variance of n normal scores is sqrt(2 / n).
    """
    steps, noise = 4, 2.0
    canaries = GradientCanaries(1500, 1.0, seed=2)
    train(model(), data, FULL, privacy(noise, steps=steps), observer=canaries)
    unit = noise * CLIP * math.sqrt(steps)
    scores, inside = canaries.scores() / unit, canaries.members()
    apart = scores[inside].mean() - scores[~inside].mean()
    error = math.sqrt(scores[inside].var() / inside.sum() + scores[~inside].var() / (~inside).sum())
    assert apart == pytest.approx(math.sqrt(steps) / noise, abs=4 * error)
    assert error < 0.055
    assert scores[~inside].mean() == pytest.approx(0, abs=4 / math.sqrt((~inside).sum()))
    for part in (scores[inside], scores[~inside]):
        assert part.var() == pytest.approx(1, abs=4 * math.sqrt(2 / len(part)))


@pytest.mark.parametrize(("noise", "steps", "rate"), [(0.5, 1, 1.0), (1.0, 4, 1.0), (0.6, 6, 0.5)])
def test_the_claim_holds_and_the_canaries_show_part_of_it(data, noise, steps, rate):
    found = audited(data, noise, steps=steps, rate=rate)
    assert not found.exceeded
    assert 0.5 < found.white_box.value <= found.claimed
    assert found.white_box.standing == "rigorous"
    assert found.black_box.value <= found.claimed
    text = str(found)
    assert f"claimed: epsilon {found.claimed:.3f}" in text
    assert "no sign of safety" in text
    assert found.to_dict()["white_box"]["ceiling"] >= found.white_box.value


def less_noise(share):
    def own_std(self, std, *, real=PrivateOptimizer._own_std):
        return real(self, std * share)

    return own_std


def test_noise_that_is_too_small_is_found(data, monkeypatch):
    assert not audited(data, 8.0, steps=4).exceeded
    monkeypatch.setattr(PrivateOptimizer, "_own_std", less_noise(0.1))
    found = audited(data, 8.0, steps=4)
    assert found.exceeded
    assert "A BOUND IS ABOVE THE CLAIM" in str(found)


def test_noise_that_is_not_added_is_found(data, monkeypatch):
    monkeypatch.setattr(PrivateOptimizer, "_own_std", less_noise(0.0))
    assert audited(data, 4.0, steps=2).exceeded


def test_clipping_to_another_norm_than_is_accounted_shows_in_the_scores(data, monkeypatch):
    """A canary's gradient is 100 times the clipping norm."""
    from dpnorm.privacy.clipping import FlatClipping

    real = FlatClipping.factors
    monkeypatch.setattr(
        FlatClipping, "factors", lambda self, norms, clip: real(self, norms, 10 * clip)
    )
    np.testing.assert_allclose(moved_by_canaries(data, FULL)[0], 10 * CLIP, atol=1e-3)
    assert audited(data, 8.0, steps=4).exceeded


def test_noise_of_half_the_scale_is_found_where_the_claim_is_a_gaussian(data, monkeypatch):
    """Right: sigma 2, T 4, mu 1. Half the noise: mu 2."""
    right = audited(data, 2.0, steps=4, method="gaussian")
    assert not right.exceeded
    assert 2 < right.white_box.value < right.claimed
    monkeypatch.setattr(PrivateOptimizer, "_own_std", less_noise(0.5))
    assert audited(data, 2.0, steps=4, method="gaussian").exceeded


def test_below_a_rate_of_1_an_assumed_family_contradicts_no_claim(data, monkeypatch):
    monkeypatch.setattr(PrivateOptimizer, "_own_std", less_noise(0.0))
    found = audited(data, 4.0, steps=2, rate=0.5, method="gaussian")
    assert found.white_box.value > found.claimed
    assert not found.exceeded
    assert not found.to_dict()["gaussian_claim"]


def test_a_canary_that_counts_twice_is_found(data, monkeypatch):
    """Noise 16 and 4 steps: mu 1/8 is claimed, and 8 copies of each canary make it 1."""
    from dpnorm.leakage.audits import canaries as module

    real = module._append

    def eight_times(parameter, rows):
        real(parameter, torch.cat([rows] * 8))

    assert not audited(data, 16.0, steps=4).exceeded
    monkeypatch.setattr(module, "_append", eight_times)
    assert audited(data, 16.0, steps=4).exceeded


def wide() -> nn.Module:
    """Eight parameter tensors, all large enough for 500 canaries."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 24, bias=False), nn.Linear(24, 24, bias=False)]
    layers += [nn.Linear(24, 24, bias=False) for _ in range(6)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(24, 10, bias=False))


def test_clipping_each_tensor_alone_is_seen_by_canaries_that_are_spread(data, monkeypatch):
    """Eight tensors, each clipped to the whole norm: a spread canary counts sqrt(8) times."""
    from dpnorm.privacy.clipping import FlatClipping

    def found(spread):
        claim = privacy(2.0, steps=4)  # mu 1
        how = {"canaries": 500, "method": "gaussian", "share": 0.2, "spread": spread}
        return audit_training(wide(), data, FULL, claim, **how)

    def each_alone(self, norms, clip):
        return [(clip / (norm + 1e-6)).clamp(max=1.0) for norm in norms]

    assert not found(8).exceeded
    monkeypatch.setattr(FlatClipping, "apart", True)
    monkeypatch.setattr(FlatClipping, "factors", each_alone)
    assert not found(1).exceeded  # one coordinate cannot see it
    assert found(8).exceeded


def test_an_audit_is_of_its_seed(data):
    first, again = audited(data, 1.0), audited(data, 1.0)
    assert first == again
    other = audited(data, 1.0, seed=9)
    assert other.white_box.correct != first.white_box.correct or other != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canaries": 5000}, "5000 canaries were asked for, but the model has 1810"),
        ({"canaries": 300, "spread": 2}, "300 canaries were asked for.*take has 240 coordinates"),
        ({"spread": 5}, "spread is 5, but the model has 4"),
        ({"spread": 0}, "spread is 0"),
        ({"canaries": 1}, "fewer than 2|at least 2|canaries"),
        ({"records": 401}, "from 2 to the 400"),
        ({"share": 0}, "share"),
        ({"method": "gausian"}, "gausian"),
        ({"confidence": 1.5}, "confidence"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(data, options, message):
    with pytest.raises(InputError, match=message):
        audited(data, 1.0, **options)


def test_modes_without_gradients_of_single_records_are_refused(data):
    config = FULL.model_copy(update={"grad_sample_mode": "ghost"})
    with pytest.raises(InputError, match="take 'hooks', 'lean' or 'functorch'"):
        audit_training(model(), data, config, privacy(1.0))


def test_there_is_nothing_to_observe_in_a_plain_training(data):
    with pytest.raises(InputError, match="privacy is None"):
        train(model(), data, FULL, observer=GradientCanaries(10, 1.0, seed=0))
