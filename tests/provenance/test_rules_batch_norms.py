import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

aten = torch.ops.aten
f64 = torch.float64


def vectors(C=3):
    return [torch.randn(C, dtype=f64), torch.randn(C, dtype=f64), torch.randn(C, dtype=f64)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (2, 3, 2, 2)])
def test_output_and_running_statistics(training, shape):
    x, (weight, bias, mean), var = (
        torch.randn(shape, dtype=f64),
        vectors(),
        torch.rand(3, dtype=f64),
    )

    def function(x, weight, bias, mean, var):
        v = 1.0 + var.abs()
        out = F.batch_norm(x, mean, v, weight, bias, training=training)
        return out, mean, v

    inputs = [x, weight, bias, mean, var]
    for mask in (scattered(x), *(by_row(x, d) for d in range(x.dim()))):
        assert_sound(function, inputs, [mask, *(scattered(t, 3) for t in inputs[1:])])
    assert_sound(lambda x: F.batch_norm(x, None, None, training=True), [x], [by_row(x)])


def test_evaluation_does_not_mix_and_training_does():
    x, mean, var = torch.randn(4, 3, dtype=f64), torch.zeros(3, dtype=f64), torch.ones(3, dtype=f64)
    masks = [by_row(x), np.zeros(3, np.uint8), np.zeros(3, np.uint8)]
    found, _ = traced(lambda x, m, v: F.batch_norm(x, m, v), [x, mean, var], masks)
    assert (found[0] == by_row(x)).all()
    found, _ = traced(
        lambda x, m, v: (F.batch_norm(x, m, v, training=True), m, v), [x, mean, var], masks
    )
    assert all((mask == 15).all() for mask in found)


def test_instance_norm_keeps_records_apart():
    x, g = torch.randn(4, 3, 5, dtype=f64), torch.randn(4, 3, 5, dtype=f64)
    found, tracer = traced(F.instance_norm, [x], [by_row(x)])
    assert not tracer.trace.of("unknown")
    assert (found[0] == by_row(x)).all()

    def backward(x, g):
        return torch.autograd.grad(F.instance_norm(x.requires_grad_()), x, g)

    found, tracer = traced(backward, [x, g], [by_row(x), by_row(g)])
    assert not tracer.trace.of("unknown")
    assert (found[0] == by_row(x)).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients(training, affine):
    x, g, (weight, bias, mean) = *torch.randn(2, 4, 3, 2, dtype=f64).unbind(), vectors()
    inputs, var = [x, g, weight, bias], torch.ones(3, dtype=f64)

    def function(x, g, weight, bias):
        wanted = [t.requires_grad_() for t in ((x, weight, bias) if affine else (x,))]
        out = F.batch_norm(
            x, mean.clone(), var.clone(), *([weight, bias] if affine else []), training=training
        )
        return torch.autograd.grad(out, wanted, g)

    for d in range(3):
        masks = [by_row(x, d), scattered(g, d), scattered(weight, 5), scattered(bias)]
        assert_sound(function, inputs, masks, trials=3)
    assert_sound(function, inputs, [scattered(t, 7) for t in inputs], trials=3)


FUNCTIONAL = {
    "legit": lambda x, w, b, m, v: aten._native_batch_norm_legit(x, w, b, m, v, True, 0.1, 1e-5),
    "legit_eval": lambda x, w, b, m, v: aten._native_batch_norm_legit(
        x, w, b, m, v, False, 0.1, 1e-5
    )[0],
    "no_stats": lambda x, w, b, m, v: aten._native_batch_norm_legit.no_stats(
        x, w, b, True, 0.1, 1e-5
    ),
    "functional": lambda x, w, b, m, v: aten._native_batch_norm_legit_functional(
        x, w, b, m, v, True, 0.1, 1e-5
    ),
    "no_training": lambda x, w, b, m, v: aten._native_batch_norm_legit_no_training(
        x, w, b, m, v, 0.1, 1e-5
    )[0],
    "with_update": lambda x, w, b, m, v: (
        aten._batch_norm_with_update(x, w, b, m, v, 0.1, 1e-5)[:3],
        m,
        v,
    ),
    "with_update_functional": lambda x, w, b, m, v: [
        t
        for i, t in enumerate(
            aten._batch_norm_with_update_functional(x, w, b, m, v, 0.1, 1e-5)
        )
        if i != 3
    ],
    "no_update": lambda x, w, b, m, v: aten._batch_norm_no_update(x, w, b, m, v, 0.1, 1e-5)[0],
    "native_out": lambda x, w, b, m, v: aten.native_batch_norm.out(
        x, w, b, m, v, True, 0.1, 1e-5,
        out=torch.empty_like(x), save_mean=torch.empty_like(m), save_invstd=torch.empty_like(m),
    ),
    "update_stats": lambda x, w, b, m, v: (aten.batch_norm_update_stats(x, m, v, 0.1), m, v),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_every_kernel(name):
    x, (weight, bias, mean) = torch.randn(4, 3, 2, dtype=f64), vectors()
    inputs = [x, weight, bias, mean, torch.randn(3, dtype=f64)]

    def function(x, w, b, m, v):
        return FUNCTIONAL[name](x, w, b, m, 1.0 + v.abs())

    for mask in (scattered(x), by_row(x), by_row(x, 1)):
        assert_sound(function, inputs, [mask, *(scattered(t, 2) for t in inputs[1:])])


@pytest.mark.parametrize("update", [True, False])
def test_the_gradient_of_the_new_kernel(update):
    x, g, (weight, mean, save) = *torch.randn(2, 4, 3, 2, dtype=f64).unbind(), vectors()
    ones = torch.ones(3, dtype=f64)
    reserve = torch.empty(0, dtype=torch.uint8)

    def function(x, g, weight, mean, save):
        return aten.batch_norm_backward(
            g, x, weight, mean, ones, save, ones, update, 1e-5, [True] * 3, reserve
        )

    inputs = [x, g, weight, mean, save]
    assert_sound(function, inputs, [scattered(t, i) for i, t in enumerate(inputs)])
