"""A model that is no longer the one that was judged, and one that still is."""

import pytest
import torch
from torch import nn

from dpnorm.errors import RefusedError
from dpnorm.privacy.judged import Judged


def network():
    inner = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.ReLU())
    return nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"block": inner}), nn.Dropout(0.0))


def inner(model):
    return model[1]["block"]


def rename(model):
    inner(model)._modules["last"] = inner(model)._modules.pop("2")


def swap(model):
    inner(model)[0], inner(model)[2] = inner(model)[2], inner(model)[0]


def set_(find, name, value):
    return lambda model: setattr(find(model), name, value(model))


CHANGES = {
    "a module is another": (set_(inner, "2", lambda m: nn.Tanh()), "1.block.2 is not what"),
    "a module is new": (lambda m: inner(m).append(nn.ReLU()), "1.block.3 is not what"),
    "a module is gone": (lambda m: inner(m).pop(1), "1.block.1 is not what"),
    "a module has another name": (rename, "1.block.2 is not what"),
    "two modules are swapped": (swap, "1.block.0 is not what"),
    "a module is used twice": (set_(inner, "2", lambda m: inner(m)[0]), "1.block.2 is not what"),
    "a parameter is another": (
        set_(lambda m: inner(m)[0], "weight", lambda m: nn.Parameter(torch.ones(4, 3))),
        "1.block.0.weight is not what",
    ),
    "a parameter is new": (
        set_(lambda m: inner(m)[1], "bias", lambda m: nn.Parameter(torch.ones(4))),
        "1.block.1.bias is not what",
    ),
    "a parameter is gone": (
        set_(lambda m: m[0], "bias", lambda m: None),
        "0.bias is not what",
    ),
    "a parameter is shared": (
        set_(lambda m: inner(m)[0], "bias", lambda m: m[0].bias),
        "1.block.0.bias is not what",
    ),
    "a module is in another mode": (lambda m: inner(m)[2].eval(), "1.block.2 was in training mode"),
    "the model is in another mode": (lambda m: m.eval(), "the model was in training mode"),
    "a parameter is frozen": (lambda m: m[0].bias.requires_grad_(False), "requires_grad of 0.bias"),
}
SAME = {
    "nothing": lambda m: None,
    "values": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "precision": lambda m: m.double(),
    "a forward pass of its own": set_(
        lambda m: inner(m)[0], "forward", lambda m: inner(m)[0].forward
    ),
    "an order": lambda m: inner(m)._modules.update({"0": inner(m)._modules.pop("0")}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_refused_by_its_name(name):
    model = network()
    judged = Judged(model)
    judged.require_unchanged()
    change, said = CHANGES[name]
    change(model)
    with pytest.raises(RefusedError, match=said):
        judged.require_unchanged()


@pytest.mark.parametrize("name", SAME)
def test_what_is_no_change_is_not(name):
    model = network()
    judged = Judged(model)
    SAME[name](model)
    judged.require_unchanged()
    assert {id(p) for p in judged.trainable} == {id(p) for p in model.parameters()}


def test_what_is_trained_is_as_it_was_judged():
    model = network()
    model[0].weight.requires_grad_(False)
    assert [id(p) for p in Judged(model).trainable] == [
        id(p) for p in model.parameters() if p.requires_grad
    ]
