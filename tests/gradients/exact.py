"""A lean layer against one backward pass for each record alone."""

import torch

from dpnorm.gradients import Rows
from dpnorm.gradients.factors import dense, row_norms, weighted_sum
from dpnorm.gradients.lean import lean_call, lean_layer

EXACT = {"rtol": 1e-10, "atol": 1e-12}


class Gathered:
    """A sink that keeps what it is given."""

    def __init__(self, records, order="record-major", scale=1.0):
        self.records, self.scale = records, scale
        self.rows = Rows(order, folded=True)
        self.samples = None

    def begin(self, slope):
        return self.scale

    def group(self, rows):
        return self.rows.grouped(rows, self.records)

    def take(self, samples):
        self.samples = samples


def alone(module, parameters, x, weight, members):
    """Each record's gradients of the parameters, from a backward pass with its rows only."""
    each = []
    for rows in members:
        module.zero_grad()
        (module(x[rows]) * weight[rows]).sum().backward()
        each.append([p.grad.clone() for p in parameters])
    module.zero_grad()
    return [torch.stack(parts) for parts in zip(*each, strict=True)]


def assert_exact(module, x, *, rows=1, order="record-major", scale=1.0, constants=()):
    """The records' gradients, their norms and weighted sums, and the gradient of the input."""
    torch.manual_seed(1)
    records = len(x) // rows
    layer = lean_layer(module)
    assert layer is not None
    assert layer.serves(x, *constants)
    mine, plain = (x.clone().requires_grad_(x.is_floating_point()) for _ in range(2))
    gathered = Gathered(records, order, scale)
    output, expected = lean_call(layer, (mine, *constants), gathered), module(plain)
    torch.testing.assert_close(output, expected, **EXACT)
    weight = torch.randn_like(output)
    (output * weight).sum().backward()
    assert all(p.grad is None for p in module.parameters())
    (expected * weight).sum().backward()
    if mine.requires_grad:
        torch.testing.assert_close(mine.grad, plain.grad, **EXACT)
    each = torch.arange(len(x)).view(records, rows)
    if order == "record-minor":
        each = torch.arange(len(x)).view(rows, records).T
    factors = torch.rand(records, dtype=output.dtype)
    own = [g for g in gathered.samples if g is not None]
    parameters = [p for p in layer.parameters if p is not None]
    for found, wanted in zip(own, alone(module, parameters, x, weight, each), strict=True):
        torch.testing.assert_close(dense(found), wanted * scale, **EXACT)
        flat = (wanted * scale).reshape(records, -1)
        torch.testing.assert_close(row_norms(found), flat.norm(dim=1), **EXACT)
        total = weighted_sum(found, factors, output.dtype)
        torch.testing.assert_close(total.flatten(), factors @ flat, **EXACT)
