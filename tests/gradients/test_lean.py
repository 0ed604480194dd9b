"""Lean layers against one backward pass for each record alone, in double precision."""

import copy
import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.gradients.factors import Outer, row_norms, weighted_sum
from dpnorm.gradients.lean import LEAN_LAYERS, convolution, lean_call, lean_layer
from dpnorm.gradients.lean.convolution import LeanConvolution
from tests.gradients.exact import Gathered, assert_exact

rows_of_records = st.sampled_from([1, 2, 3])
orders = st.sampled_from(["record-major", "record-minor"])
scales = st.sampled_from([1.0, 7.0])


@st.composite
def convolutions(draw):
    dimensions = draw(st.sampled_from([1, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(dimensions))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(dimensions))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(dimensions))
    padding = draw(st.one_of(st.integers(0, 3), st.sampled_from(["same", "valid"])))
    if padding == "same":
        stride = (1,) * dimensions
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](
        groups * draw(st.integers(1, 5)),
        groups * draw(st.integers(1, 4)),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "circular", "replicate"])),
    )
    most = {1: 130, 2: 12, 3: 6}[dimensions]
    size = tuple(draw(st.integers(4, most)) for _ in range(dimensions))
    return module.double(), size


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@settings(max_examples=150)
@given(convolutions(), st.integers(1, 9), rows_of_records, orders, scales)
def test_convolutions_are_those_of_each_record_alone(drawn, records, rows, order, scale):
    module, size = drawn
    x = torch.randn(records * rows, module.in_channels, *size, dtype=torch.float64)
    try:
        module(x)
    except RuntimeError:
        assume(False)  # the kernel is larger than what it meets
    assert_exact(module, x, rows=rows, order=order, scale=scale)


WINDOWS = {"FEW_CHANNELS": 100}  # whatever the shape
WAYS = {
    "groups": ("_by_groups", {"FEW_CHANNELS": 0, "FEW_POSITIONS": 0}),
    "groups, a record at once": (
        "_by_groups",
        {"FEW_CHANNELS": 0, "FEW_POSITIONS": 0, "GROUPS": 1},
    ),
    "windows": ("_by_windows", {**WINDOWS, "FEW_COLUMNS": 0}),
    "windows, a record at once": ("_by_windows", {**WINDOWS, "FEW_COLUMNS": 0, "WINDOWS": 1}),
    "windows, turned": (
        "_by_windows",
        {**WINDOWS, "FEW_COLUMNS": 1000, "ENOUGH_ROWS": 0, "ENOUGH_POSITIONS": 0},
    ),
    "windows, turned, a record at once": (
        "_by_windows",
        {**WINDOWS, "FEW_COLUMNS": 1000, "ENOUGH_ROWS": 0, "ENOUGH_POSITIONS": 0, "WINDOWS": 1},
    ),
    "one by one": ("_one_by_one", {**WINDOWS, "MUCH_WORK": 0}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@settings(max_examples=25)
@given(drawn=convolutions(), records=st.integers(1, 6), scale=scales)
def test_every_way_through_a_convolution_is_exact(way, drawn, records, scale):
    module, size = drawn
    taken, constants = WAYS[way]
    pointwise = math.prod(module.kernel_size) == 1  # which is always done by windows
    assume(module.groups == 1 and (taken == "_by_windows" or not pointwise))
    x = torch.randn(records, module.in_channels, *size, dtype=torch.float64)
    try:
        module(x)
    except RuntimeError:
        assume(False)  # the kernel is larger than what it meets
    taken, constants = WAYS[way]
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.object(
            LeanConvolution, taken, autospec=True, side_effect=getattr(LeanConvolution, taken)
        ) as way_taken,
    ):
        for name, value in {**constants, "SLOWNESS": math.inf}.items():  # no factors
            patch.setattr(convolution, name, value)
        assert_exact(module, x, scale=scale)
    assert way_taken.called


@pytest.mark.parametrize(
    ("channels", "out", "size", "kernel", "taken"),
    [
        (1, 16, 28, 5, "_by_windows"),  # turned
        (5, 6, 12, 3, "_by_groups"),
        (5, 6, 7, 3, "_by_windows"),
        (5, 6, 12, 1, "_by_windows"),
        (3, 64, 64, 7, "_one_by_one"),
    ],
    ids=["few channels", "many positions", "few positions", "pointwise", "much work"],
)
def test_which_way_is_taken(channels, out, size, kernel, taken):
    module = nn.Conv2d(channels, out, kernel, padding=kernel // 2).double()
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    with mock.patch.object(
        LeanConvolution, taken, autospec=True, side_effect=getattr(LeanConvolution, taken)
    ) as way:
        assert_exact(module, x, scale=11.0)
    assert way.called


def test_a_convolution_takes_what_lies_with_channels_last():
    module = nn.Conv2d(4, 6, 3, padding=1).double()
    x = torch.randn(5, 4, 11, 11, dtype=torch.float64)
    assert_exact(module, x.to(memory_format=torch.channels_last))


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    rows_of_records,
    st.lists(st.integers(1, 4), max_size=2),
    st.booleans(),
    orders,
    scales,
)
def test_linear_layers_are_those_of_each_record_alone(records, rows, between, bias, order, scale):
    x = torch.randn(records * rows, *between, 5, dtype=torch.float64)
    module = nn.Linear(5, 3, bias=bias).double()
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@settings(max_examples=60)
@given(
    st.integers(2, 6),
    rows_of_records,
    st.sampled_from([(2, 6), (3, 6), (1, 4), (6, 6)]),
    st.lists(st.integers(1, 5), max_size=3),
    orders,
    scales,
)
def test_group_norms_are_those_of_each_record_alone(records, rows, groups, space, order, scale):
    number, channels = groups
    assume(channels // number * torch.Size(space).numel() > 1)  # of one number there is no norm
    x = torch.randn(records * rows, channels, *space, dtype=torch.float64) * 3 + 1
    module = nn.GroupNorm(number, channels).double()
    nn.init.normal_(module.weight)
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2])
def test_instance_norms_are_those_of_each_record_alone(dimensions, rows):
    kind = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dimensions - 1]
    x = torch.randn(6, 4, *[5] * dimensions, dtype=torch.float64)
    assert_exact(kind(4, affine=True).double(), x, rows=rows)
    assert lean_layer(kind(4, affine=True, track_running_stats=True)) is None


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    rows_of_records,
    st.lists(st.integers(1, 4), max_size=2),
    st.lists(st.integers(2, 5), min_size=1, max_size=2),
    st.booleans(),
    orders,
    scales,
)
def test_layer_norms_are_those_of_each_record_alone(
    records, rows, between, shape, bias, order, scale
):
    x = torch.randn(records * rows, *between, *shape, dtype=torch.float64) * 2 - 1
    module = nn.LayerNorm(shape, bias=bias).double()
    nn.init.normal_(module.weight)
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    rows_of_records,
    st.lists(st.integers(1, 4), max_size=2),
    st.lists(st.integers(2, 5), min_size=1, max_size=2),
    st.sampled_from([None, 1e-3]),
    orders,
    scales,
)
def test_rms_norms_are_those_of_each_record_alone(records, rows, between, shape, eps, order, scale):
    x = torch.randn(records * rows, *between, *shape, dtype=torch.float64) * 2 - 1
    module = nn.RMSNorm(shape, eps=eps).double()
    nn.init.normal_(module.weight)
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@settings(max_examples=80)
@given(
    st.integers(1, 6),
    rows_of_records,
    st.lists(st.integers(1, 4), max_size=2),
    st.sampled_from([3, 50]),
    st.sampled_from([None, 0, 2]),
    orders,
    scales,
)
def test_embeddings_are_those_of_each_record_alone(
    records, rows, between, size, padding, order, scale
):
    """Of a table of 3 rows the gradients are made, of one of 50 they are kept as factors."""
    x = torch.randint(0, 3, (records * rows, *between))
    module = nn.Embedding(size, 4, padding_idx=padding).double()
    assert_exact(module, x, rows=rows, order=order, scale=scale)


def test_an_embedding_whose_gradient_is_not_of_a_record_alone_runs_as_it_is():
    assert lean_layer(nn.Embedding(5, 2)) is not None
    for options in ({"scale_grad_by_freq": True}, {"max_norm": 1.0}, {"sparse": True}):
        assert lean_layer(nn.Embedding(5, 2, **options)) is None


MODULES = {
    "convolution": lambda: (nn.Conv2d(2, 3, 3), (2, 6, 6)),
    "linear": lambda: (nn.Linear(5, 3), (5,)),
    "group": lambda: (nn.GroupNorm(2, 4), (4, 5)),
    "layer": lambda: (nn.LayerNorm(5), (5,)),
}


@pytest.mark.parametrize("name", MODULES)
def test_whom_nobody_asks_for_records_has_the_gradient_of_the_batch(name):
    module, shape = MODULES[name]()
    x = torch.randn(4, *shape)
    sink = Gathered(4, scale=None)
    lean_call(lean_layer(module), (x,), sink).square().sum().backward()
    mine = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x).square().sum().backward()
    for found, parameter in zip(mine, module.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)
    assert sink.samples is None


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_gets_nothing(name, frozen):
    module, shape = MODULES[name]()
    getattr(module, frozen).requires_grad_(False)
    sink = Gathered(4)
    lean_call(lean_layer(module), (torch.randn(4, *shape),), sink).square().sum().backward()
    assert [found is None for found in sink.samples] == [frozen == "weight", frozen == "bias"]


@pytest.mark.parametrize("name", MODULES)
def test_other_inputs_are_left_to_the_module_itself(name):
    module, shape = MODULES[name]()
    layer, x = lean_layer(module), torch.randn(4, *shape)
    assert layer.serves(x)
    assert not layer.serves(x[:0])  # no record
    assert not layer.serves(x.double())  # another precision than the weights
    assert not layer.serves("x")
    assert not lean_layer(copy.deepcopy(module).bfloat16()).serves(x.bfloat16())
    with torch.autocast("cpu"):
        assert not layer.serves(x)


def test_a_subclass_or_a_module_whose_forward_was_replaced_runs_as_it_is():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert lean_layer(Scaled(2, 2)) is None
    patched = nn.Linear(2, 2)
    patched.forward = lambda x: x
    assert lean_layer(patched) is None
    computed = nn.Linear(2, 2)
    weight = computed.weight
    del computed.weight
    computed.weight = weight * 2
    assert lean_layer(computed) is None
    assert LEAN_LAYERS.keys() >= {
        nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.GroupNorm, nn.LayerNorm,
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.RMSNorm, nn.Embedding,
    }  # fmt: skip


def test_a_product_of_an_infinite_and_a_zero_factor_is_not_usable():
    nothing_times_infinity = Outer(torch.zeros(1, 2), torch.full((1, 3), float("inf")))
    assert not row_norms(nothing_times_infinity).isfinite().any()


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_a_tiny_factor_is_not_lost_beside_a_huge_one(size):
    """Squares of 1e-30 are 0 in single precision: the record would be clipped by a norm of 0."""
    found = row_norms(Outer(torch.full((1, 4), size), torch.full((1, 9), 3 / size)))
    torch.testing.assert_close(found, torch.tensor([18.0]))


def test_sums_are_no_less_precise_than_their_parameter():
    rows = torch.full((3, 2), 0.1, dtype=torch.bfloat16)
    assert weighted_sum(rows, torch.ones(3), torch.bfloat16).dtype == torch.float32
    assert weighted_sum(rows.float(), torch.ones(3), torch.float64).dtype == torch.float64
    assert F.mse_loss(row_norms(rows), rows.float().norm(dim=1)) == 0
