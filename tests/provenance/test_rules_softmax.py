import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered

LINES = {
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "safe_softmax": torch.ops.aten._safe_softmax,
    "glu": F.glu,
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("shape", [(4,), (4, 2), (2, 4, 6)])
def test_a_line_meets_itself_forward_and_backward(name, shape):
    x = torch.randn(shape, dtype=torch.float64)
    for dim in (*range(x.dim()), -1):
        if name == "glu" and shape[dim] % 2:
            continue
        g = torch.randn_like(LINES[name](x, dim))

        def backward(x, g, dim=dim):
            return torch.autograd.grad(LINES[name](x.requires_grad_(), dim), x, g)

        for mask in (scattered(x), *(by_row(x, d) for d in range(x.dim()))):
            assert_sound(lambda x, dim=dim: LINES[name](x, dim), [x], [mask], exact=name != "safe")
            assert_sound(backward, [x, g], [mask, scattered(g, 1)], trials=3)


def test_a_number_and_an_empty_batch():
    one, none = torch.randn(1, dtype=torch.float64), torch.randn(0, 3, dtype=torch.float64)
    assert_sound(lambda x: torch.softmax(x.reshape(()), -1), [one], [scattered(one)])
    assert_sound(lambda x: torch.softmax(x, -1), [none], [scattered(none)])


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_masked_softmax(kind):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    mask = torch.rand({0: (4, 4), 1: (2, 4), 2: (2, 3, 4, 4)}[kind]) > 0.5

    def forward(x, mask):
        return torch._masked_softmax(x, mask, 3, kind)

    for draw in (scattered, by_row):
        assert_sound(forward, [x, mask], [draw(x), draw(mask)])
    whole = torch.rand(2, 3, 4, 4) > 0.5
    assert_sound(
        lambda g, x, m: torch.ops.aten._masked_softmax_backward(g, torch.softmax(x, -1), m, 3),
        [x, x, whole],
        [by_row(x), scattered(x), scattered(whole)],
    )


def test_log_sigmoid():
    x, g = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    assert_sound(F.logsigmoid, [x], [scattered(x)], exact=True)
    assert_sound(
        lambda x, g: torch.autograd.grad(F.logsigmoid(x.requires_grad_()), x, g),
        [x, g],
        [scattered(x), scattered(g, 1)],
        exact=True,
    )


def test_the_tangent_of_glu():
    x, t = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    assert_sound(
        lambda x, t: torch.ops.aten.glu_jvp(F.glu(x), x, t, -1), [x, t], [scattered(x), by_row(t)]
    )
