"""Nothing of a training is left on the model it returns."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.privacy import PrivacyConfig
from dpnorm.training import train
from tests.training.small import PLAIN, images, network, with_settings

DATA = images(12)
PRIVACY = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=0)
TRAININGS = {
    "plain": ("batch", 1, "hooks", None),
    "plain, views": ("batch", 3, "hooks", None),
    **{
        mode: ("group", 1, mode, PRIVACY)
        for mode in ("hooks", "lean", "functorch", "ghost", "ew", "auto")
    },
    **{f"{mode}, views": ("group", 3, mode, PRIVACY) for mode in ("hooks", "lean", "ghost")},
    **{f"{mode}, private batch": ("private", 1, mode, PRIVACY) for mode in ("hooks", "ghost")},
}


def attributes(model):
    """What hangs on modules and parameters, by path."""
    modules = {f"{path}.{key}" for path, m in model.named_modules() for key in vars(m)}
    parameters = {f"{path}.{key}" for path, p in model.named_parameters() for key in vars(p)}
    return modules | parameters


def hooks(model):
    kinds = [key for key in vars(nn.Module()) if "hooks" in key]
    found = {f"{path}.{kind}" for path, m in model.named_modules() for kind in kinds
             if getattr(m, kind)}  # fmt: skip
    tensors = [p._backward_hooks for p in model.parameters()]
    return found, [h for h in tensors if h]


@pytest.mark.parametrize("name", TRAININGS)
def test_the_model_is_an_ordinary_one_again(name):
    norm, views, mode, privacy = TRAININGS[name]
    given = network(norm)
    config = with_settings(PLAIN, batch_size=6, views=views, grad_sample_mode=mode, ema=0.5)
    model = train(given, DATA, config, privacy).model
    assert type(model) is type(given)
    assert [type(m) for m in model.modules()] == [type(m) for m in given.modules()]
    assert attributes(model) == attributes(given)
    assert hooks(model) == hooks(given) == (set(), [])
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())
    assert hooks(given) == (set(), [])
    assert all(p.grad is None for p in given.parameters())

    again = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    again.train()
    expected = network(norm)
    expected.load_state_dict(model.state_dict())
    for net in (again, expected.train()):
        F.cross_entropy(net(DATA.x), DATA.y).backward()
        assert not any(hasattr(p, "grad_sample") for p in net.parameters())
    for ours, theirs in zip(again.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_it_is_trained_once_more_in_every_other_mode():
    model = network()
    for mode in ("hooks", "ew", "functorch", "ghost", "ew", "hooks", "ghost", "functorch", "hooks"):
        config = with_settings(PLAIN, grad_sample_mode=mode, epochs=1)
        trained = train(model, DATA, config, PRIVACY)
        assert trained.statement.is_sound
        model = trained.model
