"""Recurrent layers: sequences of a batch stay apart; time and features are ORed.

The workspace that a kernel keeps for its backward pass has a layout of its own and carries all
bits. The backward pass reads it, but it holds nothing that the same call's other arguments (inputs,
states, weights, outputs) did not decide, so their bits are what its results carry.
"""

from typing import Any

import numpy as np

from dpnorm.provenance.call import Call, tensors_of
from dpnorm.provenance.masks import Mask, reduce_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.matmul import known

_ROWS = ("input", "output", "grad_output")
_STATES = ("hx", "cx", "hx_", "cx_", "cx_tmp", "hy_", "cy_", "grad_hy", "grad_cy")
_UNREAD = ("workspace", "reserve", "dropout_state", "weight_buf")


class _Sequences:
    """The bits of each sequence of the batch, and how they lie in inputs and states."""

    def __init__(self, call: Call, batch_first: bool) -> None:
        sizes = call.arguments.get("batch_sizes") or []
        packed = call["input"].dim() == 2 and len(sizes) > 0
        self._index = np.concatenate([np.arange(n) for n in sizes]) if packed else None
        self._dim = 0 if packed or batch_first else 1
        states = [(name, known(call, name)) for name in _STATES if _given(call, name)]
        rows = [(name, known(call, name)) for name in _ROWS if _given(call, name)]
        found = [_line(mask, mask.ndim - 2) for _, mask in states]
        for _, mask in rows:
            found.append(self._gather(_line(mask, self._dim), call))
        names = {name for name, _ in [*states, *rows]}
        rest = [v for k, v in call.arguments.items() if k not in names and k not in _UNREAD]
        self.shared = call.bits(*tensors_of(rest))
        self.each = union(np.broadcast_shapes(*[line.shape for line in found]), found)
        self.each = self.each | np.uint8(self.shared)

    def _gather(self, line: Mask, call: Call) -> Mask:
        if self._index is None:
            return line
        each = np.zeros(int(self._index.max(initial=-1)) + 1, np.uint8)
        np.bitwise_or.at(each, self._index, line)
        return each

    def rows(self) -> Mask:
        """The mask of the input, the output or their gradients."""
        if self._index is not None:
            return np.broadcast_to(self.each, self._index.max(initial=0) + 1)[self._index][:, None]
        return self.each[:, None, None] if self._dim == 0 else self.each[:, None]

    def states(self) -> Mask:
        """The mask of a state (..., batch, features)."""
        return self.each[:, None]


def _given(call: Call, name: str) -> bool:
    value = call.arguments.get(name)
    return value is not None and value.dim() > 1


def _line(mask: Mask, dim: int) -> Mask:
    return reduce_or(mask, [d for d in range(mask.ndim) if d != dim], keepdim=False)


def _present(masks: list[Mask], outputs: Any) -> list[Mask]:
    return [mask for mask, out in zip(masks, outputs, strict=True) if out is not None]


@rule("aten::mkldnn_rnn_layer")
def mkldnn_rnn_layer(call: Call) -> list[Mask]:
    """One layer of an LSTM, in time-first layout whatever `batch_first` says: (T, B, F)."""
    each = _Sequences(call, batch_first=False)
    everything = np.asarray(call.all_bits(), np.uint8)
    return _present([each.rows(), each.states(), each.states(), everything], call.out)


@rule("aten::mkldnn_rnn_layer_backward")
def mkldnn_rnn_layer_backward(call: Call) -> list[Mask]:
    """Gradients of input, four weights, and both states."""
    each = _Sequences(call, batch_first=False)
    everything = np.asarray(call.all_bits(), np.uint8)
    masks = [each.rows(), *[everything] * 4, each.states(), each.states()]
    return _present(masks, call.out)


@rule("aten::_cudnn_rnn", "aten::miopen_rnn")
def fused_rnn(call: Call) -> list[Mask]:
    """All layers at once: output, both states, reserve, and the packed weights."""
    each = _Sequences(call, bool(call["batch_first"]))
    everything = np.asarray(call.all_bits(), np.uint8)
    weights = np.asarray(call.bits(*call["weight"], "weight_buf"), np.uint8)
    if not isinstance(call.arguments.get("weight_buf"), type(call["input"])):
        weights = np.asarray(call.bits(*call["weight"]), np.uint8)
    masks = [each.rows(), each.states(), each.states(), everything, weights]
    return _present(masks, call.out)


@rule("aten::_cudnn_rnn_backward", "aten::miopen_rnn_backward")
def fused_rnn_backward(call: Call) -> list[Mask]:
    """Gradients of input, both states, and a list of weights."""
    each = _Sequences(call, bool(call["batch_first"]))
    everything = np.asarray(call.all_bits(), np.uint8)
    masks = _present([each.rows(), each.states(), each.states()], call.out[:3])
    return [*masks, *[everything] * len(tensors_of(call.out[3]))]


@rule("aten::_cudnn_rnn_flatten_weight")
def flatten_weight(call: Call) -> Mask:
    """All weights in one buffer."""
    return np.asarray(call.all_bits(), np.uint8)


@rule(
    "aten::_thnn_fused_lstm_cell",
    "aten::_thnn_fused_gru_cell",
    "aten::_thnn_fused_lstm_cell_backward_impl",
    "aten::_thnn_fused_gru_cell_backward",
)
def fused_cell(call: Call) -> list[Mask]:
    """One step of a cell: rows of gates and states stay apart; a bias's gradient sums over them."""
    row, shared = np.zeros((1, 1), np.uint8), 0
    for tensor in call.inputs():
        mask = known_of(call, tensor)
        if mask.ndim == 2:
            row = row | reduce_or(mask, 1)
        else:
            shared |= call.bits(tensor)
    row = row | np.uint8(shared)
    everything = np.asarray(call.all_bits(), np.uint8)
    return [row if out.dim() == 2 else everything for out in call.out if out is not None]


def known_of(call: Call, tensor: Any) -> Mask:
    """The mask of an argument given as the tensor."""
    mask = call.mask(tensor)
    assert mask is not None
    return mask


@rule("aten::_pack_padded_sequence")
def pack_padded_sequence(call: Call) -> list[Mask]:
    """Row r of the result is one time step of one sequence, as the lengths say.

    Lengths that carry bits decide the shape: everything sees everything then.
    """
    lengths = call.bits("lengths")
    if lengths:
        call.escape("a data-dependent shape", lengths)
        everything = np.asarray(call.all_bits(), np.uint8)
        return [everything, np.asarray(lengths, np.uint8)]
    data = known(call, "input")
    if call["batch_first"]:
        data = np.swapaxes(data, 0, 1)
    rows = [data[step, :count] for step, count in enumerate(call.out[1].tolist())]
    packed = np.concatenate(rows) if rows else np.zeros(tuple(call.out[0].shape), np.uint8)
    return [packed, np.asarray(0, np.uint8)]
