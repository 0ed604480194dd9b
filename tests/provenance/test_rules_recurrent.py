import numpy as np
import pytest
import torch
from torch import nn

from dpnorm.provenance.call import Call
from dpnorm.provenance.registry import find_rule
from dpnorm.provenance.tracer import RecordTracer
from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

BATCH, TIME, FEATURES, HIDDEN = 3, 4, 2, 2


def _layer(kind, **options):
    torch.manual_seed(0)
    return getattr(nn, kind)(FEATURES, HIDDEN, **options)


def _data(batch_first):
    shape = (BATCH, TIME, FEATURES) if batch_first else (TIME, BATCH, FEATURES)
    return torch.randn(shape)


def _flat(out):
    return [out[0], *(out[1] if isinstance(out[1], tuple) else [out[1]])]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("both_ways", [True, False])
def test_sequences_stay_apart(kind, batch_first, both_ways):
    layer = _layer(kind, batch_first=batch_first, bidirectional=both_ways, num_layers=2)
    x = _data(batch_first)
    dim = 0 if batch_first else 1

    def forward(x):
        return _flat(layer(x))

    def backward(x):
        x = x.requires_grad_()
        return torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])

    for masks in ([by_row(x, dim)], [scattered(x)]):
        assert_sound(torch.no_grad()(forward), [x], masks, trials=2)
        assert_sound(forward, [x], masks, trials=2)
        assert_sound(backward, [x], masks, trials=2)
    found, _ = traced(lambda x: [*forward(x), backward(x)[0]], [x], [by_row(x, dim)])
    lines = np.uint8([1, 2, 4])
    assert (found[0] == (lines[:, None, None] if batch_first else lines[:, None])).all()
    assert (found[-1] == by_row(x, dim)).all()
    for state in found[1:-1]:
        assert (state == lines[:, None]).all()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_states_from_outside(kind):
    layer, x = _layer(kind), _data(False)
    h = torch.randn(1, BATCH, HIDDEN)

    def function(x, h):
        return _flat(layer(x, (h, h) if kind == "LSTM" else h))

    assert_sound(function, [x, h], [scattered(x) & 0, by_row(h, 1)], trials=2)
    assert_sound(torch.no_grad()(function), [x, h], [by_row(x, 1), scattered(h)], trials=2)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_sequences(kind, batch_first):
    layer, x = _layer(kind, batch_first=batch_first), _data(batch_first)
    lengths = torch.tensor([2, 4, 1])

    def function(x):
        x = x.requires_grad_()
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=batch_first, enforce_sorted=False
        )
        out, _ = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=batch_first)
        return out, *torch.autograd.grad(out.square().sum(), x)

    dim = 0 if batch_first else 1
    for mask in (by_row(x, dim), scattered(x)):
        assert_sound(function, [x], [mask], trials=2)


def test_packing_by_constant_and_by_private_lengths():
    x, lengths = torch.randn(4, 3, 2), torch.tensor([4, 2, 1])
    masks = [by_row(x, 1), by_row(lengths) & 0]
    pack = torch._pack_padded_sequence
    for first in (False, True):
        data = x.transpose(0, 1).contiguous() if first else x
        given = [by_row(data, 0 if first else 1), masks[1]]
        assert_sound(lambda d, n, f=first: pack(d, n, f), [data, lengths], given, exact=True)
        assert_sound(
            lambda d, n, f=first: pack(d, n, f), [data, lengths], [scattered(data), masks[1]]
        )
    (data, sizes), tracer = traced(
        lambda x, n: pack(x, n, False), [x, lengths], [masks[0], by_row(lengths)]
    )
    assert (data == 7).all()
    assert (sizes == 7).all()
    assert tracer.trace.of("escape")


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind):
    cell, x = _layer(kind), torch.randn(BATCH, FEATURES)
    out = (lambda x: cell(x)) if kind != "LSTMCell" else (lambda x: list(cell(x)))
    assert_sound(out, [x], [by_row(x)])
    found, _ = traced(out, [x], [by_row(x)])
    for mask in found:
        assert (mask == np.uint8([1, 2, 4])[:, None]).all()


def _called(func, args, out, **masks):
    tracer = RecordTracer()
    names = [argument.name for argument in func._schema.arguments]
    for name, mask in masks.items():
        tracer.table.write(args[names.index(name)], mask)
    call = Call(tracer, func, args, {})
    call.out = out
    return find_rule(call.name)(call)


@pytest.mark.parametrize("batch_first", [True, False])
def test_cudnn_by_its_schema(batch_first):
    func = torch.ops.aten._cudnn_rnn.default
    x, h, w = _data(batch_first), torch.randn(1, BATCH, HIDDEN), [torch.randn(8, 2)]
    y, reserve, buffer = torch.randn_like(x), torch.zeros(9), torch.zeros(16)
    args = (x, w, 4, None, h, h, 2, 2, 0, 1, batch_first, 0.0, True, False, [], None)
    dim = 0 if batch_first else 1
    out = (y, h, h, reserve, buffer)
    masks = _called(func, args, out, input=by_row(x, dim))
    assert (np.broadcast_to(masks[0], y.shape) == by_row(y, dim)).all()
    assert (np.broadcast_to(masks[1], h.shape) == by_row(h, 1)).all()
    assert masks[3] == 7
    assert masks[4] == 0
    back = torch.ops.aten._cudnn_rnn_backward.default
    args = (x, w, 4, buffer, h, h, y, y, None, None, 2, 2, 0, 1, batch_first, 0.0, True, False, [])
    args = (*args, None, reserve, [True] * 4)
    masks = _called(back, args, (x, h, None, w), output=by_row(y, dim), reserve=by_row(reserve))
    assert (np.broadcast_to(masks[0], x.shape) == by_row(x, dim)).all()
    assert (np.broadcast_to(masks[1], h.shape) == by_row(h, 1)).all()
    assert masks[2] == 15
    assert len(masks) == 3


def test_cudnn_on_packed_sequences_by_its_schema():
    func, sizes = torch.ops.aten._cudnn_rnn.default, [3, 2, 1]
    x, h, w = torch.randn(6, FEATURES), torch.randn(1, BATCH, HIDDEN), [torch.randn(8, 2)]
    args = (x, w, 4, None, h, None, 3, 2, 0, 1, False, 0.0, True, False, sizes, None)
    owner = np.uint8([1, 2, 4, 1, 2, 1])[:, None]
    y = torch.randn(6, HIDDEN)
    masks = _called(func, args, (y, h, None, y, y), input=np.broadcast_to(owner, (6, FEATURES)))
    assert (np.broadcast_to(masks[0], (6, 2)) == owner).all()
    assert (np.broadcast_to(masks[1], h.shape) == by_row(h, 1)).all()


def test_fused_cells_by_their_schema():
    gates, c, bias = torch.randn(3, 8), torch.randn(3, 2), torch.randn(8)
    func = torch.ops.aten._thnn_fused_lstm_cell.default
    masks = _called(func, (gates, gates, c, bias, bias), (c, c, gates), input_gates=by_row(gates))
    for mask in masks:
        assert (mask == np.uint8([1, 2, 4])[:, None]).all()
    back = torch.ops.aten._thnn_fused_lstm_cell_backward_impl.default
    args = (c, None, c, c, gates, True)
    masks = _called(back, args, (gates, c, bias), grad_hy=by_row(c))
    assert (masks[0] == np.uint8([1, 2, 4])[:, None]).all()
    assert masks[2] == 7
