import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

SHAPES = {
    "mm": (torch.mm, (3, 4), (4, 2)),
    "bmm": (torch.bmm, (4, 2, 3), (4, 3, 2)),
    "mv": (torch.mv, (3, 4), (4,)),
    "dot": (torch.dot, (4,), (4,)),
    "vdot": (torch.vdot, (4,), (4,)),
    "outer": (torch.outer, (3,), (4,)),
    "matmul_broadcast": (torch.matmul, (2, 1, 3, 4), (3, 4, 2)),
    "matmul_vector": (torch.matmul, (4,), (2, 4, 3)),
    "linear": (F.linear, (2, 3, 4), (5, 4)),
    "addmm": (torch.addmm, (4,), (3, 2), (2, 4)),
    "addmv": (torch.addmv, (3,), (3, 2), (2,)),
    "addr": (torch.addr, (3, 4), (3,), (4,)),
    "baddbmm": (torch.baddbmm, (2, 1, 4), (2, 3, 2), (2, 2, 4)),
    "addbmm": (torch.addbmm, (3, 4), (2, 3, 2), (2, 2, 4)),
    "bilinear": (F.bilinear, (3, 2), (3, 4), (2, 2, 4), (2,)),
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), (3, 2, 4), (3, 2, 4)),
    "kron": (torch.kron, (2, 2), (2, 3)),
    "chain": (lambda *xs: torch.linalg.multi_dot(xs), (2, 3), (3, 4), (4, 2)),
}
CASES = list(SHAPES)


def _drawn(name):
    return [torch.randn(shape, dtype=torch.float64) for shape in SHAPES[name][1:]]


def _masks(inputs, kind):
    if kind == "scattered":
        return [scattered(x, seed) for seed, x in enumerate(inputs)]
    dim = {"first": 0, "last": -1}[kind]
    return [by_row(x, dim) if i == 0 else scattered(x) & 0 for i, x in enumerate(inputs)]


@pytest.mark.parametrize("kind", ["scattered", "first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_products_mark_what_moves_and_nothing_else(name, kind):
    inputs = _drawn(name)
    assert_sound(SHAPES[name][0], inputs, _masks(inputs, kind), exact=True)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_products(name):
    inputs = _drawn(name)

    def function(*xs):
        return SHAPES[name][0](*xs).reshape(-1)

    grad = torch.randn_like(function(*inputs))

    def backward(g, *xs):
        xs = [x.requires_grad_() for x in xs]
        return torch.autograd.grad(function(*xs), xs, g)

    every = [grad, *inputs]
    assert_sound(backward, every, [scattered(x, i) for i, x in enumerate(every)])


@pytest.mark.parametrize("name", ["linear", "matmul_broadcast", "matmul_vector", "outer", "dot"])
def test_undecomposed_products_in_inference_mode(name):
    @torch.inference_mode()
    def function(*xs):
        return SHAPES[name][0](*xs)

    inputs = _drawn(name)
    assert_sound(function, inputs, _masks(inputs, "scattered"), exact=True)


def test_undecomposed_linear_with_bias_or_a_vector_of_weights():
    x, w, b = torch.randn(3, 4), torch.randn(2, 4), torch.randn(2)
    run = torch.inference_mode()(F.linear)
    assert_sound(run, [x, w, b], [scattered(x), scattered(w, 1), scattered(b, 2)], exact=True)
    assert_sound(run, [x, w[0]], [scattered(x), scattered(w[0], 1)], exact=True)


def test_in_place_and_out_variants():
    c, a, b = torch.randn(3, 4), torch.randn(3, 2), torch.randn(2, 4)
    masks = [scattered(x, i) for i, x in enumerate((c, a, b))]
    assert_sound(lambda c, a, b: c.clone().addmm_(a, b), [c, a, b], masks, exact=True)
    assert_sound(lambda c, a, b: torch.mm(a, b, out=c.clone()), [c, a, b], masks, exact=True)


def test_beta_zero_leaves_the_summand_out():
    c, a, b = torch.randn(3, 4), torch.randn(3, 2), torch.randn(2, 4)
    masks = [by_row(c), by_row(a), by_row(b) & 0]
    assert_sound(lambda c, a, b: torch.addmm(c, a, b, beta=0), [c, a, b], masks, exact=True)


def test_empty_batches_and_empty_sums():
    for a, b in (((0, 3), (3, 2)), ((2, 0), (0, 3))):
        x, y = torch.randn(a), torch.randn(b)
        (mask,), _ = traced(torch.mm, [x, y], [by_row(x), by_row(y)])
        assert mask.shape == (a[0], b[1])
        assert not mask.any()


def test_integer_products():
    a, b = torch.randint(-9, 9, (2, 17, 8), dtype=torch.int8).unbind(0)
    b = b[:8].contiguous()
    assert_sound(torch._int_mm, [a, b], [by_row(a), scattered(b)])


def test_linear_backward_by_schema():
    x, w, g = torch.randn(3, 4), torch.randn(2, 4), torch.randn(3, 2)

    def by_hand(x, w, g):
        return g @ w, g.t() @ x, g.sum(0)

    from dpnorm.provenance.rules.matmul import flattened, product

    masks = [scattered(v, i) for i, v in enumerate((x, w, g))]
    found, _ = traced(by_hand, [x, w, g], masks)
    assert (product(masks[2], masks[1]) == found[0]).all()
    assert (flattened(masks[2])[:, None] | flattened(masks[0])[None] == found[1]).all()


def test_products_of_pairs():
    a, b, c, d = (torch.randn(2, 2).double() for _ in range(4))

    def function(a, b, c, d):
        return torch.ops.aten._foreach_mm([a, b], [c, d])

    given = [a, b, c, d]
    assert_sound(function, given, [scattered(x, i) for i, x in enumerate(given)], exact=True)
