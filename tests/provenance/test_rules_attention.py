import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

SDPA = F.scaled_dot_product_attention
B, H, L, S, E = 2, 2, 4, 4, 3


def _qkv(heads=H, keys=S, kv_heads=None):
    shapes = [(B, heads, L, E), (B, kv_heads or heads, keys, E), (B, kv_heads or heads, keys, E)]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def _backward(function):
    def run(g, *xs):
        xs = [x.requires_grad_() for x in xs]
        return torch.autograd.grad(function(*xs), xs, g, allow_unused=True)

    return run


def _maskings(inputs):
    yield [scattered(v, i) for i, v in enumerate(inputs)]
    for dim in range(3):
        yield [by_row(v, dim) if v.dim() == 4 else scattered(v) & 0 for v in inputs]


VARIANTS = {
    "plain": (lambda q, k, v: SDPA(q, k, v), {}),
    "causal": (lambda q, k, v: SDPA(q, k, v, is_causal=True), {}),
    "causal_more_keys": (lambda q, k, v: SDPA(q, k, v, is_causal=True), {"keys": 6}),
    "causal_fewer_keys": (lambda q, k, v: SDPA(q, k, v, is_causal=True), {"keys": 3}),
    "gqa": (lambda q, k, v: SDPA(q, k, v, enable_gqa=True), {"heads": 4, "kv_heads": 2}),
    "gqa_causal": (
        lambda q, k, v: SDPA(q, k, v, enable_gqa=True, is_causal=True),
        {"heads": 4, "kv_heads": 2},
    ),
    "dropout": (lambda q, k, v: SDPA(q, k, v, dropout_p=0.3), {}),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("inference", [False, True])
def test_attention(name, inference):
    function, sizes = VARIANTS[name]
    inputs = _qkv(**sizes)
    run = torch.inference_mode()(function) if inference else function
    for masks in _maskings(inputs):
        assert_sound(run, inputs, masks, trials=3)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_of_attention(name):
    function, sizes = VARIANTS[name]
    inputs = _qkv(**sizes)
    g = torch.randn_like(function(*inputs))
    for masks in _maskings([g, *inputs]):
        assert_sound(_backward(function), [g, *inputs], masks, trials=3)


@pytest.mark.parametrize("shape", [(L, S), (B, 1, L, S), (B, H, 1, S), (B, H, L, S)])
def test_bias_and_its_gradient(shape):
    inputs = [*_qkv(), torch.randn(shape, dtype=torch.float64)]

    def function(q, k, v, bias):
        return SDPA(q, k, v, attn_mask=bias)

    g = torch.randn_like(function(*inputs))
    for masks in _maskings(inputs):
        assert_sound(function, inputs, masks, trials=3)
        assert_sound(_backward(function), [g, *inputs], [scattered(g, 7), *masks], trials=2)


def test_masks_made_from_data():
    q, k, v = _qkv()
    keep = torch.rand(B, 1, L, S) > 0.3
    masks = [scattered(x, i) for i, x in enumerate((q, k, v))]
    assert_sound(lambda q, k, v, m: SDPA(q, k, v, m), [q, k, v, keep], [*masks, by_row(keep)])


def test_time_under_a_causal_mask_sees_only_its_past():
    inputs = _qkv()
    (out,), _ = traced(VARIANTS["causal"][0], inputs, [by_row(x, 2) for x in inputs])
    assert (out == np.uint8([1, 3, 7, 15])[None, None, :, None]).all()


def test_records_and_heads_stay_apart_forward_and_backward():
    for dim in (0, 1):
        inputs = [torch.randn_like(VARIANTS["plain"][0](*_qkv())), *_qkv()]
        masks = [by_row(x, dim) for x in inputs]
        found, _ = traced(_backward(VARIANTS["plain"][0]), inputs, masks)
        for mask, wanted in zip(found, masks[1:], strict=True):
            assert (mask == wanted).all()


def test_raw_kernels_that_need_a_gpu_by_their_schema():
    """The rule runs on what the CUDA kernels would return, without running them."""
    from dpnorm.provenance.call import Call
    from dpnorm.provenance.registry import find_rule
    from dpnorm.provenance.tracer import RecordTracer

    q, k, v = (x.float() for x in _qkv())
    bias, lse, none = torch.randn(B, H, L, S), torch.randn(B, H, 32), torch.empty(0)
    seed = torch.zeros((), dtype=torch.int64)
    aten = torch.ops.aten
    forward = [
        (aten._scaled_dot_product_efficient_attention.default, (q, k, v, bias, True), 4),
        (aten._scaled_dot_product_flash_attention.default, (q, k, v), 9),
        (aten._scaled_dot_product_cudnn_attention.default, (q, k, v, None, True), 9),
        (aten._scaled_dot_product_fused_attention_overrideable.default, (q, k, v), 9),
    ]
    for func, args, count in forward:
        tracer = RecordTracer()
        for x in (q, k, v, bias):
            tracer.table.write(x, by_row(x))
        call = Call(tracer, func, args, {})
        middle = {4: [], 9: [None, None, L, S]}[count]
        call.out = (q, lse, *middle, seed, seed, *([none] if count == 9 else []))
        masks = list(find_rule(call.name)(call))
        assert (np.broadcast_to(masks[0], q.shape) == by_row(q)).all()
        assert (np.broadcast_to(masks[1], lse.shape) == by_row(lse)).all()
        assert not any(mask.any() for mask in masks[2:])
    tracer = RecordTracer()
    for x in (q, k, v, bias, lse):
        tracer.table.write(x, by_row(x))
    func = aten._scaled_dot_product_efficient_attention_backward.default
    given = (q, q, k, v, bias, q, lse, seed, seed, 0.0, [True] * 4)
    call = Call(tracer, func, given, {})
    call.out = (q, k, v, bias)
    for mask, x in zip(find_rule(call.name)(call), call.out, strict=True):
        assert (np.broadcast_to(mask, x.shape) == by_row(x)).all()
    raw = aten._efficient_attention_forward.default
    for lengths in (None, torch.tensor([0, 4])):
        call = Call(tracer, raw, (q, k, v, None, lengths, lengths, 4, 4, 0.0, 0), {})
        call.out = (q, lse, seed, seed, L, S)
        masks = find_rule(call.name)(call)
        wanted = by_row(q) if lengths is None else np.uint8(3)
        assert (np.broadcast_to(masks[0], q.shape) == wanted).all()
    back = aten._flash_attention_backward.default
    call = Call(tracer, back, (q, q, k, v, q, lse, None, None, 4, 4, 0.0, False, seed, seed), {})
    call.out = (q, k, v)
    for mask in find_rule(call.name)(call):
        assert (np.broadcast_to(mask, q.shape) == by_row(q)).all()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_encoder_layer_in_evaluation(norm_first, masked):
    layer = torch.nn.TransformerEncoderLayer(
        4, 2, 6, batch_first=True, norm_first=norm_first
    ).eval()

    @torch.no_grad()
    def function(x, padding):
        return layer(x, src_key_padding_mask=padding if masked else None)

    x = torch.randn(3, 4, 4)
    padding = torch.zeros(3, 4, dtype=torch.bool)
    padding[:, 3] = True
    assert_sound(function, [x, padding], [by_row(x), by_row(padding)], trials=3)
    (out,), _ = traced(function, [x, padding], [by_row(x), by_row(padding)])
    assert (out == by_row(x)).all()


def test_fused_self_attention_in_evaluation():
    layer = torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()
    run = torch.no_grad()(lambda x: layer(x, x, x, average_attn_weights=False))
    x = torch.randn(3, 4, 4)
    assert_sound(run, [x], [by_row(x)])
    qkv, bias = torch.randn(2, 3, 12), torch.randn(12)
    assert_sound(
        lambda qkv, b: torch._transform_bias_rescale_qkv(qkv, b, 2),
        [qkv, bias],
        [by_row(qkv, 1), by_row(bias) & 0],
    )
