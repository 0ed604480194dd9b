"""Connectionist temporal classification: a term for each sequence of the batch."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dpnorm.provenance.axes import fitted, spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, uniform
from dpnorm.provenance.registry import rule


@rule("aten::_ctc_loss")
def ctc_loss(call: Call) -> list[Mask]:
    """Loss (N,) and the forward variables (N, T, 2 S + 1), whose size the longest target sets."""
    own, shape = _sequences(call), bits(_bits_of(call, "target_lengths"))
    call.escape("a data-dependent shape", shape)
    loss, alpha = call.out
    return [
        fitted(call.union(own.shape, own), loss),
        call.union(tuple(alpha.shape), own[:, None, None], uniform((), shape)),
    ]


@rule("aten::_cudnn_ctc_loss", "aten::miopen_ctc_loss")
def ctc_loss_with_gradient(call: Call) -> list[Mask]:
    """Loss (N,) and its gradient, (T, N, C) as the log probabilities."""
    own = _sequences(call)
    loss, gradient = call.out
    if gradient.dim() != 3:
        return [fitted(own, loss), uniform(tuple(gradient.shape), bits(own))]
    return [fitted(own, loss), call.union(tuple(gradient.shape), own[None, :, None])]


@rule("aten::_ctc_loss_backward")
def ctc_loss_backward(call: Call) -> Mask:
    """Each sequence's gradient meets its own sequence, loss and forward variables."""
    own = _sequences(call)
    alpha = call.mask("log_alpha")
    assert alpha is not None
    inner = np.squeeze(spread(alpha, (1, 2)), (1, 2))
    grad, loss = call.mask("grad"), call.mask("neg_log_likelihood")
    own = call.union(own.shape, own, inner, grad, loss)
    return call.union(tuple(call.out.shape), own[None, :, None])


@rule("aten::_use_cudnn_ctc_loss", "aten::_use_miopen_ctc_loss")
def ctc_kernel(call: Call) -> None:
    """A Python bool; only on a GPU do the lengths decide on it."""
    if call["log_probs"].device.type != "cpu":
        lengths = [call[name] for name in ("input_lengths", "target_lengths")]
        call.escape(call.name, call.bits(*[t for t in lengths if isinstance(t, Tensor)]))


def _sequences(call: Call) -> Mask:
    """What each sequence of the batch (N,) is made of.

    Targets laid one after the other are told apart where their lengths are known and carry no
    bits; a length with bits decides where all later targets begin, so then all meet.
    """
    scores, target = call.mask("log_probs"), call.mask("targets")
    assert scores is not None
    assert target is not None
    N = scores.shape[1]
    own = np.squeeze(spread(scores, (0, 2)), (0, 2))
    known = [_bits_of(call, name) for name in ("input_lengths", "target_lengths")]
    if target.ndim == 2:
        ours = np.squeeze(spread(target, (1,)), 1)
    elif bits(known[1]):
        ours = uniform((N,), bits(target) | bits(known[1]))
    else:
        ours = _cut(target, call["target_lengths"])
    return call.union((N,), own, ours, *known)


def _bits_of(call: Call, name: str) -> Mask:
    """The bits of lengths given as a tensor; a list of numbers has none."""
    mask = call.mask(call[name]) if isinstance(call[name], Tensor) else None
    return uniform((), 0) if mask is None else mask


def _cut(target: Mask, lengths: Sequence[int] | Tensor) -> Mask:
    sizes = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    ends = np.cumsum(sizes, dtype=int)
    return np.array(
        [bits(target[end - size : end]) for size, end in zip(sizes, ends, strict=True)], np.uint8
    )
