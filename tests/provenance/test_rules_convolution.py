import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dpnorm.provenance.rules import convolution as rules
from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

KINDS = [
    # input, weight, options
    ((2, 4, 7), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ((2, 4, 5, 4), (4, 1, 3, 3), {"padding": 1, "groups": 4}),
    ((2, 3, 6, 5), (4, 3, 2, 3), {"stride": (2, 1), "dilation": (2, 1), "padding": (0, 2)}),
    ((4, 3, 5, 1), (2, 3, 1, 1), {"stride": (2, 1), "padding": (1, 0)}),
    ((2, 2, 3, 4, 3), (2, 1, 2, 2, 1), {"groups": 2, "padding": (1, 0, 0)}),
    ((1, 8, 4, 4), (8, 2, 3, 3), {"groups": 4}),
    ((2, 3, 6), (2, 3, 4), {"padding": "same"}),
    ((2, 3, 6), (2, 3, 3), {"padding": "valid", "stride": 3}),
]
TURNED = [
    ((2, 4, 5), (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    ((2, 4, 3, 4), (4, 1, 2, 3), {"stride": (1, 2), "dilation": (2, 1), "groups": 4}),
    ((2, 2, 3, 2, 2), (2, 3, 2, 1, 2), {}),
    ((3, 4, 5, 1), (4, 2, 1, 1), {"stride": (3, 1)}),
]
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TURN = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _cases():
    for turned, (data, weight, options) in [(False, k) for k in KINDS] + [
        (True, k) for k in TURNED
    ]:
        yield pytest.param(turned, data, weight, options, id=f"{data}-{weight}-{turned}")


def _setting(turned, data, weight, options):
    x, w = torch.randn(data, dtype=torch.float64), torch.randn(weight, dtype=torch.float64)
    outputs = weight[1] * options.get("groups", 1) if turned else weight[0]
    b = torch.randn(outputs, dtype=torch.float64)
    function = (TURN if turned else CONV)[len(data) - 2]
    return lambda x, w, b: function(x, w, b, **options), [x, w, b]


def _maskings(inputs):
    x, w, b = inputs
    yield [scattered(v, i) for i, v in enumerate(inputs)]
    for dim in range(x.dim()):
        yield [by_row(x, dim), scattered(w) & 0, scattered(b) & 0]
    yield [scattered(x) & 0, by_row(w), by_row(b)]
    yield [by_row(x, 1), by_row(w, 1), scattered(b) & 0]


@pytest.mark.parametrize(("turned", "data", "weight", "options"), [*_cases()])
@pytest.mark.parametrize("undecomposed", [False, True])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_convolutions(turned, data, weight, options, undecomposed):
    function, inputs = _setting(turned, data, weight, options)
    if undecomposed:
        function = torch.inference_mode()(function)
    for masks in _maskings(inputs):
        assert_sound(function, inputs, masks, trials=2)


@pytest.mark.parametrize(("turned", "data", "weight", "options"), [*_cases()])
def test_marks_are_exact_on_scattered_masks(turned, data, weight, options):
    function, inputs = _setting(turned, data, weight, options)
    x, w, b = inputs
    masks = [scattered(x), scattered(w) & 0, scattered(b, 2)]
    assert_sound(function, inputs, masks, trials=3, exact=True)


@pytest.mark.parametrize(("turned", "data", "weight", "options"), [*_cases()])
def test_backward(turned, data, weight, options):
    function, inputs = _setting(turned, data, weight, options)
    g = torch.randn_like(function(*inputs))
    for needed in ((True, True, True), (False, True, False), (True, False, True)):

        def backward(g, *xs, needed=needed):
            wanted = [x.requires_grad_() for x, n in zip(xs, needed, strict=True) if n]
            return torch.autograd.grad(function(*xs), wanted, g)

        for masks in itertools.islice(_maskings(inputs), 3):
            assert_sound(backward, [g, *inputs], [scattered(g, 9), *masks], trials=2)


def test_one_record_a_group_stays_apart():
    x, w = torch.randn(1, 8, 5, 5), torch.randn(8, 2, 3, 3)
    owner = np.repeat(np.uint8([1, 2, 4, 8]), 2)
    mask = np.broadcast_to(owner[None, :, None, None], (1, 8, 5, 5))

    def step(x, w):
        w = w.requires_grad_()
        out = F.conv2d(x, w, groups=4)
        return out, torch.autograd.grad(out.square().sum(), w)

    (out, grad), _ = traced(step, [x, w], [mask, by_row(w) & 0])
    assert (out == owner[None, :, None, None]).all()
    assert (grad == owner[:, None, None, None]).all()


def test_pointwise_convolution_over_a_sequence_of_records_stays_apart():
    x, w = torch.randn(1, 3, 4), torch.randn(5, 3, 1)
    (out,), _ = traced(F.conv1d, [x, w], [by_row(x, 2), by_row(w) & 0])
    assert (out == np.uint8([1, 2, 4, 8])).all()


def test_own_weights_for_each_record_reach_only_their_channels():
    x, w = torch.randn(1, 4, 5), torch.randn(4, 1, 3)
    (out,), _ = traced(lambda x, w: F.conv1d(x, w, groups=4), [x, w], [by_row(x, 1), by_row(w, 0)])
    assert (out == np.uint8([1, 2, 4, 8])[None, :, None]).all()


def test_unbatched_and_empty_inputs():
    x, w, b = torch.randn(3, 6), torch.randn(2, 3, 3), torch.randn(2)
    assert_sound(F.conv1d, [x, w, b], [scattered(x), by_row(w), by_row(b) & 0], trials=2)
    empty = torch.randn(0, 3, 6)
    (out,), _ = traced(F.conv1d, [empty, w, b], [by_row(empty), by_row(w), by_row(b)])
    assert out.shape == (0, 2, 4)


def test_kernels_called_by_name():
    x, w, b = torch.randn(2, 2, 5, 5), torch.randn(3, 2, 3, 3), torch.randn(3)
    t = torch.randn(2, 3, 3, 3)
    masks = [scattered(x), scattered(w, 1), scattered(b, 2)]
    calls = [
        lambda x, w, b: torch.ops.aten._slow_conv2d_forward(x, w, [3, 3], b, [2, 2], [1, 1]),
        lambda x, w, b: torch.ops.aten.thnn_conv2d(x, w, [3, 3], b, [1, 1], [1, 1]),
        lambda x, w, b: torch.ops.aten.slow_conv_dilated2d(x, w, [3, 3], b, [1, 1], [2, 2], [2, 2]),
        lambda x, w, b: torch.ops.aten.mkldnn_convolution(x, w, b, [1, 1], [2, 2], [1, 1], 1),
        lambda x, w, b: torch.ops.aten._convolution(
            x, w, b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, False, False
        ),
    ]
    for call in calls:
        assert_sound(call, [x, w, b], masks, trials=2)
    turned = [scattered(x), scattered(t, 1), scattered(b, 2)]
    for data, mask in ((x, turned[0]), (x[0], turned[0][0])):
        assert_sound(
            lambda x, w, b: torch.ops.aten.slow_conv_transpose2d(x, w, [3, 3], b, [2, 2]),
            [data, t, b],
            [mask, *turned[1:]],
            trials=2,
        )


@pytest.mark.parametrize("pad", [0, 1])
def test_time_first_convolution_and_its_gradient(pad):
    x, w, b = torch.randn(5, 4, 2), torch.randn(3, 2, 3), torch.randn(3)
    masks = [by_row(x, 1), by_row(w) & 0, scattered(b)]
    assert_sound(lambda *v: torch.conv_tbc(*v, pad), [x, w, b], masks)
    x, w, b = x.double(), w.double(), b.double()
    scatter = [scattered(x), scattered(w, 1), scattered(b, 2)]
    assert_sound(
        lambda *v: torch.conv_tbc(*v, pad),
        [x, w, b],
        [scatter[0], scatter[1] & 0, scatter[2]],
        exact=True,
    )
    assert_sound(lambda *v: torch.conv_tbc(*v, pad), [x, w, b], scatter)
    g = torch.randn_like(torch.conv_tbc(x, w, b, pad))

    def backward(g, *xs):
        xs = [x.requires_grad_() for x in xs]
        return torch.autograd.grad(torch.conv_tbc(*xs, pad), xs, g)

    assert_sound(backward, [g, x, w, b], [scattered(g, 5), *scatter], trials=3)


def test_a_lost_window_tap_is_caught(monkeypatch):
    honest = rules._along
    monkeypatch.setattr(
        rules,
        "_along",
        lambda data, dim, size, window: honest(
            data, dim, size, rules.replace(window, kernel=(1,) * len(window.kernel))
        ),
    )
    x, w = torch.randn(1, 2, 6), torch.randn(2, 2, 3)
    with pytest.raises(AssertionError, match="not marked"):
        assert_sound(F.conv1d, [x, w], [by_row(x, 2), by_row(w) & 0])
