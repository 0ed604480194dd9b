import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.conversion import convert
from dpnorm.data import load
from dpnorm.errors import InputError, RefusedError
from dpnorm.models import build
from dpnorm.privacy import PrivacyConfig, epsilon_spent, poisson_batches, seeded_generator
from dpnorm.training import TrainConfig, accuracy, train

FAST = TrainConfig(epochs=3, batch_size=128, lr=0.1, momentum=0.9, ema=0.0)
PRIVATE = PrivacyConfig(epsilon=8.0, delta=1e-4, seed=0)


@pytest.fixture(scope="module")
def data():
    return load("digits")


def network(variant: str = "group") -> nn.Module:
    torch.manual_seed(0)
    return convert(build("lenet"), to=variant).model


def test_the_plain_loop_equals_a_loop_written_by_hand(data):
    model = network("batch")
    trained = train(model, data, FAST)
    by_hand = copy.deepcopy(model)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for index in torch.randperm(len(data.train), generator=generator).split(128):
            optimizer.zero_grad()
            F.cross_entropy(by_hand(data.train.x[index]), data.train.y[index]).backward()
            optimizer.step()
    for ours, theirs in zip(trained.model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert trained.accuracy == accuracy(by_hand, data.test)
    assert trained.accuracy > 0.9
    assert trained.statement is None


def test_one_private_step_is_the_clipped_sum_plus_the_noise_that_is_accounted(data):
    """Against one record at a time: the update is -lr (sum of clipped + noise) / batch size."""
    records = data.train.select(slice(0, 40))
    config = TrainConfig(epochs=1, batch_size=20, lr=1.0, momentum=0.0, ema=0.0)
    model = network()
    updates = {}
    for sigma in (1e-9, 2.0):
        privacy = PrivacyConfig(noise_multiplier=sigma, clip=0.3, steps=1, seed=5)
        updates[sigma] = _one_step(model, records, config, privacy)
    generator = seeded_generator(5, "sampling")
    total = torch.zeros_like(updates[2.0])
    for i in next(poisson_batches(40, 0.5, 1, generator)).tolist():
        model.zero_grad()
        x, y = records[i]
        F.cross_entropy(model.train()(x[None]), y[None]).backward()
        flat = torch.cat([p.grad.flatten() for p in model.parameters()])
        total += flat * min(1.0, 0.3 / (flat.norm().item() + 1e-6))
    assert torch.allclose(updates[1e-9], -total / 20, atol=1e-6)
    noise = (updates[2.0] - updates[1e-9]) * 20
    # about 57,000 normal numbers of sd 2.0 * 0.3: the sd of their sd is below 0.002
    assert noise.std().item() == pytest.approx(2.0 * 0.3, abs=0.01)


def _one_step(model, records, config, privacy):
    return _difference(train(model, records, config, privacy).model, model)


def _difference(after: nn.Module, before: nn.Module) -> torch.Tensor:
    pairs = zip(after.parameters(), before.parameters(), strict=True)
    return torch.cat([(a - b).detach().flatten() for a, b in pairs])


def test_a_private_training_states_what_it_spent(data):
    model = network()
    weights = copy.deepcopy(model.state_dict())
    trained = train(model, data, FAST, PRIVATE)
    statement = trained.statement
    assert statement.epsilon <= 8.0
    assert statement.epsilon == epsilon_spent(
        noise_multiplier=statement.noise_multiplier,
        sampling_rate=128 / len(data.train),
        steps=statement.steps,
        delta=1e-4,
        accountant="prv",
    )
    assert statement.steps == 3 * 11
    assert "no guarantee once the seed is known" in statement.randomness
    assert statement.isolation.startswith("proven")
    assert statement.is_sound
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert not trained.model.training
    assert not any(hasattr(p, "grad_sample") for p in trained.model.parameters())
    assert not any(m._forward_hooks for m in trained.model.modules())
    assert trained.history[-1]["step"] == 33


def test_noise_and_sampling_repeat_only_when_a_seed_is_asked_for(data):
    def weights(seed):
        privacy = PrivacyConfig(noise_multiplier=1.0, steps=3, seed=seed)
        model = train(network(), data, FAST, privacy).model
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert not torch.equal(weights(None), weights(None))


def test_an_empty_batch_is_a_step_that_releases_noise(data):
    few = dataclasses.replace(data, train=data.train.select(slice(0, 20)))
    privacy = PrivacyConfig(noise_multiplier=1.0, sampling_rate=0.001, steps=5, seed=0)
    trained = train(network(), few, TrainConfig(batch_size=1, epochs=1), privacy)
    assert trained.statement.steps == 5
    assert _difference(trained.model, network()).abs().max() > 0


@pytest.mark.parametrize("variant", ["none", "group", "layer", "instance", "frozen"])
def test_every_safe_variant_trains_privately(data, variant):
    trained = train(network(variant), data, FAST, PRIVATE)
    assert trained.accuracy > 0.15
    assert all(p.isfinite().all() for p in trained.model.parameters())


def test_batch_norm_is_refused_with_its_witness(data):
    with pytest.raises(RefusedError, match=r"refuted.*DPN101.*moves a record's output by"):
        train(network("batch"), data, FAST, PRIVATE)


def test_a_batch_norm_that_stays_in_evaluation_is_trained(data):
    model = network("batch")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model.train = lambda mode=True: model  # stays in evaluation, as a careful user would have it
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = train(model, data, FAST, PRIVATE)
    assert trained.statement.is_sound
    for name, buffer in trained.model.named_buffers():
        torch.testing.assert_close(buffer, before[name])


class FoldedRows(nn.Module):
    """The rows of an image as a batch of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 10)

    def forward(self, x):
        return self.linear(x.flatten(0, 2)).view(len(x), -1, 10).mean(1)


class Undecided(nn.Module):
    """Isolated in truth, but Python looks at the values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        if float(x.detach().max()) > 1e9:
            raise ValueError("out of range")
        return self.linear(x.flatten(1))


def test_folded_rows_are_clipped_by_record(data):
    trained = train(FoldedRows(), data, FAST, PRIVATE)
    assert trained.statement.is_sound
    assert trained.accuracy > 0.15


class TwoFold(nn.Module):
    """A parameter that is used outside of its module, where no hook sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.first(x) + self.second(x) + F.linear(x, self.first.weight)


def test_a_parameter_that_is_used_outside_of_its_module_is_refused(data):
    with pytest.raises(RefusedError, match=r"do not add up.*first.weight"):
        train(TwoFold(), data, FAST, PRIVATE)


def test_what_is_not_proven_is_refused_unless_allowed_and_then_stated(data):
    with pytest.raises(RefusedError, match=r"DPN105.*allow='unproven'"):
        train(Undecided(), data, FAST, PRIVATE)
    allowed = PRIVATE.model_copy(update={"allow": "unproven"})
    statement = train(Undecided(), data, FAST, allowed).statement
    assert not statement.is_sound
    assert "IF its records were isolated" in str(statement)


def test_wrong_settings_are_one_clear_error(data):
    with pytest.raises(InputError, match="batch_size is 5000, but digits has 1297"):
        train(network(), data, TrainConfig(batch_size=5000))
    with pytest.raises(InputError, match="no trainable parameter"):
        train(network().requires_grad_(False), data, FAST)
    with pytest.raises(InputError, match="cannot be reached"):
        train(network(), data, FAST, PrivacyConfig(epsilon=1e-6, delta=1e-5))
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        TrainConfig(epoch=3)
