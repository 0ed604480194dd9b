"""Losses: per element or per row, then reduced; and what their gradients meet.

The value of a mean or sum meets everything. Its gradient does not: an element's gradient is its
own term's derivative times the output gradient, over a constant count. The exception is the
negative log likelihood, whose mean divides by the weights of the targets that count.
"""

import numpy as np

from dpnorm.provenance.axes import present, spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, clean, uniform
from dpnorm.provenance.registry import rule

_NONE, _MEAN = 0, 1  # at::Reduction


@rule(
    "aten::mse_loss",
    "aten::smooth_l1_loss",
    "aten::huber_loss",
    "aten::soft_margin_loss",
    "aten::binary_cross_entropy",
    "aten::binary_cross_entropy_with_logits",
)
def elementwise_loss(call: Call) -> Mask:
    """A term for each element, with the weights broadcast to it."""
    return _reduced(call, _together(call, "self", "target", "weight", "pos_weight"))


@rule(
    "aten::mse_loss_backward",
    "aten::smooth_l1_loss_backward",
    "aten::huber_loss_backward",
    "aten::soft_margin_loss_backward",
    "aten::binary_cross_entropy_backward",
)
def elementwise_loss_backward(call: Call) -> Mask:
    """The same element of everything; a mean's output gradient is one number for all."""
    return _together(call, "grad_output", "self", "target", "weight")


@rule("aten::multi_margin_loss")
def multi_margin_loss(call: Call) -> Mask:
    """A term for each row of scores; the target chooses among scores and weights."""
    return _reduced(call, _rows(call)[..., 0])


@rule("aten::multi_margin_loss_backward", "aten::multilabel_margin_loss_backward")
def margin_loss_backward(call: Call) -> Mask:
    """Each score's gradient meets its row, its targets and its output gradient."""
    rows, grad = _rows(call), call.mask("grad_output")
    assert grad is not None
    if grad.ndim and grad.ndim == rows.ndim - 1:
        grad = grad[..., None]
    return call.union(tuple(call.out.shape), rows, grad)


@rule("aten::multilabel_margin_loss_forward")
def multilabel_margin_loss(call: Call) -> list[Mask]:
    """A term for each row, and which scores are targets."""
    rows = _rows(call)
    return present(call.out, [_reduced(call, rows[..., 0]), _square(call, rows)])


@rule("aten::nll_loss_forward", "aten::nll_loss2d_forward")
def nll_loss(call: Call) -> list[Mask]:
    """The chosen score of each row, weighted, and the sum of the weights that count.

    The sum is a constant as long as there is no class weight and no target is ignored; otherwise
    every target decides on it. Whether one is ignored is a fact of this sample, and read off it.
    """
    scores, target = _scores(call), call.mask("target")
    assert target is not None
    weight = uniform((), call.bits("weight"))
    terms = call.union(target.shape, scores, target, weight)
    if call["reduction"] == _NONE:
        return present(call.out, [terms, clean(())])
    counted = call.bits("target", "weight") if _weights_vary(call) else 0
    return present(call.out, [uniform((), bits(terms)), uniform((), counted)])


@rule("aten::nll_loss_backward", "aten::nll_loss2d_backward")
def nll_loss_backward(call: Call) -> Mask:
    """Output gradient times weight at the target's place, over the total weight for a mean."""
    grad, target = call.mask("grad_output"), call.mask("target")
    assert grad is not None
    assert target is not None
    shape = tuple(call["self"].shape)
    if len(shape) == 1 or grad.ndim not in (0, target.ndim):
        place = uniform((), bits(target) | bits(grad))
    else:
        place = np.expand_dims(call.union(target.shape, target, grad), 1)
    total = call.bits("total_weight") if call["reduction"] == _MEAN else 0
    return call.union(shape, place, uniform((), total | call.bits("weight")))


def _weights_vary(call: Call) -> bool:
    """Whether the sum of weights depends on the targets."""
    if call["weight"] is not None:
        return True
    return bool((call["target"] == call["ignore_index"]).any())


def _scores(call: Call) -> Mask:
    """The scores of each row together, without the class dimension."""
    scores = call.mask("self")
    assert scores is not None
    dim = 1 if scores.ndim > 1 else 0
    return np.squeeze(spread(scores, (dim,)), axis=dim)


def _rows(call: Call) -> Mask:
    """Scores, targets and labels of each row: (N, 1), or (1,) for a single row of scores."""
    scores, target = call.mask("self"), call.mask("target")
    assert scores is not None
    assert target is not None
    scores = np.atleast_1d(scores)
    lines = [spread(scores, (-1,))]
    for mask in (target, call.mask("is_target")):
        if mask is not None:
            whole = scores.ndim == 1 or mask.ndim == scores.ndim
            lines.append(spread(np.atleast_1d(mask), (-1,)) if whole else mask[:, None])
    return call.union(lines[0].shape, *lines, uniform((), call.bits("weight")))


def _square(call: Call, rows: Mask) -> Mask:
    shape = tuple(call["target"].shape)
    return call.union(shape, rows) if shape else uniform((), bits(rows))


def _together(call: Call, *names: str) -> Mask:
    """OR of arguments, broadcast to each other."""
    found = [mask for mask in map(call.mask, names) if mask is not None]
    return call.union(np.broadcast_shapes(*[mask.shape for mask in found]), *found)


def _reduced(call: Call, terms: Mask) -> Mask:
    return terms if call["reduction"] == _NONE else uniform((), bits(terms))
