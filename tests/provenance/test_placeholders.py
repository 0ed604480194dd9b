"""What stands in for a result of the backward pass has its shape and type."""

import pytest
import torch
import torch.nn.functional as F

from dpnorm.provenance import RecordTracer, placeholders, tracer
from dpnorm.provenance.call import tensors_of

MAPS = (2, 4, 6, 6)
FUNCTIONS = {
    "convolution": lambda x, w: F.conv2d(x, w.expand(8, 4, 3, 3), stride=2, padding=1),
    "transposed convolution": lambda x, w: F.conv_transpose2d(x, w.expand(4, 3, 3, 3)),
    "relu": lambda x, w: F.threshold(x, 0.1, 0.0),
    "silu": lambda x, w: F.silu(x * w),
    "gelu": lambda x, w: F.gelu(x * w),
    "hardswish": lambda x, w: F.hardswish(x * w),
    "relu6": lambda x, w: F.hardtanh(x * w, 0, 6),
    "max pool": lambda x, w: F.max_pool2d(x * w, 3, 2),
    "max pool 3d": lambda x, w: F.max_pool3d(x * w, 2),
    "average pool": lambda x, w: F.avg_pool2d(x * w, 3, 2),
    "average pool 3d": lambda x, w: F.avg_pool3d((x * w)[None], 2),
    "adaptive pool": lambda x, w: F.adaptive_avg_pool2d(x * w, 3),
    "adaptive pool 3d": lambda x, w: F.adaptive_avg_pool3d((x * w)[None], 3),
    "batch norm": lambda x, w: F.batch_norm(x * w, x.new_zeros(4), x.new_ones(4)),
    "layer norm": lambda x, w: F.layer_norm(x * w, (6, 6)),
    "attention": lambda x, w: F.scaled_dot_product_attention(x * w, x, x),
    "matmul": lambda x, w: (x * w).reshape(48, 6) @ x.reshape(6, 48),
    "batched matmul": lambda x, w: torch.bmm((x * w).reshape(8, 6, 6), x.reshape(8, 6, 6)),
    "sum of gradients": lambda x, w: (x * w).sin() + (x * w).cos() + (x * w).transpose(2, 3).tanh(),
    "select": lambda x, w: (x * w)[:, 1],
    "slice": lambda x, w: (x * w)[:, 1:3],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_placeholder_has_the_shape_and_type_of_the_result(monkeypatch, dtype):
    seen = set()

    def compared(call):
        stand_in = placeholders.placeholder(call)
        if stand_in is None:
            return None
        with torch.no_grad():
            real = call.func(**call.arguments)
        pairs = list(zip(tensors_of(stand_in), tensors_of(real), strict=True))
        assert pairs
        for ours, theirs in pairs:
            assert (ours.shape, ours.dtype, ours.device) == (
                theirs.shape,
                theirs.dtype,
                theirs.device,
            ), call.name
        seen.add(call.name)
        return stand_in

    monkeypatch.setattr(tracer, "placeholder", compared)
    for function in FUNCTIONS.values():
        x = torch.randn(MAPS, dtype=dtype, requires_grad=True)
        w = torch.ones((), dtype=dtype, requires_grad=True)
        records = RecordTracer()
        with records:
            out = function(x, w)
            with records.without_numbers():
                torch.autograd.grad(out, x, torch.ones_like(out))
    expected = {*placeholders._LIKE, *placeholders._OF_INPUT, *placeholders._OF_ATTENTION}
    expected |= {"aten::mm", "aten::bmm", "aten::add", "aten::select_backward"}
    assert {
        name for name in expected - seen if "for_cpu" in name or "attention" not in name
    } == set()


def test_numbers_are_computed_where_gradients_are_recorded():
    x = torch.randn(3, 4, requires_grad=True)
    records = RecordTracer()
    with records:
        out = F.silu(x * 2).sum()
        with records.without_numbers():
            (found,) = torch.autograd.grad(out, x, create_graph=True)
    expected = torch.autograd.functional.jacobian(lambda x: F.silu(x * 2).sum(), x)
    torch.testing.assert_close(found, expected)
