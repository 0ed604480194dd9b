import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

f64 = torch.float64
REDUCTIONS = ["none", "mean", "sum"]
ELEMENTWISE = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "huber": F.huber_loss,
    "soft_margin": lambda x, y, reduction: F.soft_margin_loss(x, y.sign(), reduction=reduction),
    "bce": lambda x, y, reduction: F.binary_cross_entropy(
        x.sigmoid(), y.sigmoid(), torch.full((4,), 2.0, dtype=f64), reduction=reduction
    ),
    "bce_logits": lambda x, y, reduction: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), reduction=reduction
    ),
    "kl_div": lambda x, y, reduction: F.kl_div(
        x, y.sigmoid(), reduction={"mean": "batchmean"}.get(reduction, reduction)
    ),
}


def check(loss, inputs, wanted, draws):
    """Forward and, with an output gradient that is no record's, backward."""

    def backward(*inputs):
        sources = [inputs[i].requires_grad_() for i in wanted]
        out = loss(*inputs)
        return torch.autograd.grad(out, sources, torch.ones_like(out))

    for draw in draws:
        masks = [draw(t) for t in inputs]
        assert_sound(loss, inputs, masks, trials=3)
        assert_sound(backward, inputs, masks, trials=3)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elementwise_losses(name, reduction):
    x, y = torch.randn(2, 3, 4, dtype=f64)

    def loss(x, y):
        return ELEMENTWISE[name](x, y, reduction=reduction)

    check(loss, [x, y], [0], [scattered, by_row, lambda t: by_row(t, 1)])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_gradient_of_a_mean_is_each_records_own(name):
    x, y = torch.randn(2, 4, 4, dtype=f64)

    def function(x, y):
        return torch.autograd.grad(ELEMENTWISE[name](x.requires_grad_(), y, reduction="mean"), x)

    found, tracer = traced(function, [x, y], [by_row(x), by_row(y)])
    assert (found[0] == by_row(x)).all()
    assert not tracer.trace.of("unknown")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_margin_losses(reduction, weighted):
    x, y = torch.randn(4, 3, dtype=f64), torch.tensor([0, 2, 1, 1])
    weight = torch.rand(3, dtype=f64) if weighted else None

    def loss(x, y):
        return F.multi_margin_loss(x, y, 2, 1.0, weight, reduction=reduction)

    check(loss, [x, y], [0], [scattered, by_row])
    check(loss, [x[0], y[:1].reshape(1)], [0], [scattered])
    several = torch.tensor([[0, 2, -1], [1, -1, 0], [2, 1, 0], [0, -1, 1]])

    def loss_of_several(x, y):
        return F.multilabel_margin_loss(x, y, reduction=reduction)

    check(loss_of_several, [x, several], [0], [scattered, by_row])
    check(loss_of_several, [x[0], several[0]], [0], [scattered])
    flags = torch.rand(4, 3, dtype=f64).round()
    check(
        lambda x, y: F.multilabel_soft_margin_loss(x, y, reduction=reduction),
        [x, flags],
        [0],
        [scattered, by_row],
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [-100, 1])
@pytest.mark.parametrize("spatial", [(), (2,), (2, 2), (2, 1, 2)])
def test_negative_log_likelihood(reduction, weighted, ignored, spatial):
    x = torch.randn(4, 3, *spatial, dtype=f64)
    y = torch.randint(0, 3, (4, *spatial))
    y.view(4, -1)[0, 0] = 1
    weight = torch.rand(3, dtype=f64) if weighted else None

    def loss(x, y):
        return F.nll_loss(x, y, weight, ignore_index=ignored, reduction=reduction)

    check(loss, [x, y], [0], [scattered, by_row, lambda t: by_row(t, -1)])


def test_one_row_of_scores():
    x, y = torch.randn(3, dtype=f64), torch.tensor([1])
    check(lambda x, y: F.nll_loss(x, y.reshape(())), [x, y], [0], [scattered])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_couples_the_gradient_of_cross_entropy(smoothing):
    x, y = torch.randn(4, 3, dtype=f64), torch.tensor([0, 1, 2, 1])

    def grad(x, y, **options):
        loss = F.cross_entropy(x.requires_grad_(), y, label_smoothing=smoothing, **options)
        return torch.autograd.grad(loss, x)

    masks = [by_row(x), by_row(y)]
    for options, coupled in (
        ({}, False),
        ({"ignore_index": 7}, False),
        ({"reduction": "sum", "ignore_index": 1}, False),
        ({"reduction": "sum", "weight": torch.rand(3, dtype=f64)}, False),
        ({"ignore_index": 1}, True),
        ({"weight": torch.ones(3, dtype=f64)}, True),
    ):
        found, _ = traced(lambda x, y, o=options: grad(x, y, **o), [x, y], masks)
        if coupled:
            assert (found[0] == 15).all()
        elif not smoothing:
            assert (found[0] == by_row(x)).all()


def test_weights_of_a_record_reach_the_gradient():
    x, y, weight = (
        torch.randn(4, 3, dtype=f64),
        torch.tensor([0, 1, 2, 1]),
        torch.rand(3, dtype=f64),
    )

    def loss(x, y, weight):
        return F.nll_loss(x, y, weight.abs() + 0.1)

    check(loss, [x, y, weight], [0], [scattered])


@pytest.mark.parametrize("laid_out", ["rows", "one after the other"])
@pytest.mark.parametrize("tensors", [False, True])
def test_ctc(laid_out, tensors):
    x = torch.randn(6, 3, 4, dtype=f64).log_softmax(2)
    y = torch.randint(1, 4, (3, 2) if laid_out == "rows" else (5,))
    lengths = [2, 1, 2]
    steps = [6, 5, 6]
    given = torch.tensor(lengths) if tensors else tuple(lengths)

    def loss(x, y):
        return F.ctc_loss(x, y, torch.tensor(steps) if tensors else tuple(steps), given,
                          reduction="none", zero_infinity=True)  # fmt: skip

    def backward(x, y, g):
        return torch.autograd.grad(loss(x.requires_grad_(), y), x, g)

    g = torch.randn(3, dtype=f64)
    for masks in ([by_row(x, 1), scattered(y), by_row(g)], [scattered(x), scattered(y), by_row(g)]):
        assert_sound(loss, [x, y], masks[:2])
        assert_sound(backward, [x, y, g], masks)
    found, _ = traced(lambda x, y: loss(x, y), [x, y], [by_row(x, 1), np.zeros(y.shape, np.uint8)])
    assert found[0].tolist() == [1, 2, 4]


def test_ctc_lengths_with_bits_set_a_shape():
    x, y = torch.randn(6, 3, 4, dtype=f64).log_softmax(2), torch.randint(1, 4, (3, 2))
    lengths = torch.tensor([2, 1, 2])

    def loss(x, y, lengths):
        return F.ctc_loss(x, y, torch.tensor([6, 6, 6]), lengths, reduction="none")

    _, tracer = traced(loss, [x, y, lengths], [by_row(x, 1), by_row(y), by_row(lengths)])
    assert tracer.trace.of("escape")
