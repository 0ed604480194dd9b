import torch
import torch.nn.functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced


def test_noise_has_no_bits_and_overwrites_them():
    x = torch.rand(4, 3)

    def fresh(x):
        return (
            torch.rand_like(x),
            torch.randn_like(x),
            torch.randint_like(x, 5),
            torch.zeros_like(x),
            torch.ones_like(x),
            torch.full_like(x, 2.0),
            torch.empty_like(x).bernoulli_(0.5),
            torch.bernoulli(x, 0.3),
            x.new_zeros(2),
            x.new_ones(2),
            x.new_full((2,), 1.0),
            x.clone().normal_(),
            x.clone().uniform_(),
            x.clone().exponential_(),
            x.clone().log_normal_(),
            x.clone().cauchy_(),
            x.clone().geometric_(0.5),
            x.clone().random_(),
            x.clone().random_(3),
            x.clone().bernoulli_(0.5),
            x.clone().zero_(),
            x.clone().fill_(3.0),
            torch.randperm(4),
            torch.normal(0.0, 1.0, (3,)),
            torch.zeros(2, out=x.new_empty(2)),
            torch.arange(3.0, out=x.new_empty(3)),
        )

    assert_sound(fresh, [x], [by_row(x)])
    masks, tracer = traced(fresh, [x], [by_row(x)])
    assert not any(mask.any() for mask in masks)
    assert not tracer.trace.events


def test_parameters_of_noise_keep_their_bits():
    x = torch.rand(4, 3)

    def noisy(x):
        p = x.sigmoid()
        return (
            torch.bernoulli(p),
            torch.empty_like(x).bernoulli_(p),
            torch.ops.aten.bernoulli.Tensor(x, p),
            torch.normal(x, 1.0),
            torch.normal(0.0, p),
            torch.normal(x, p),
            F.dropout(x, 0.5, True),
            torch.native_dropout(x, 0.5, True),
            F.alpha_dropout(x, 0.5, True),
            F.feature_dropout(x, 0.5, True) if hasattr(F, "feature_dropout") else x,
            F.gumbel_softmax(x, dim=1),
            x.exp().multinomial(2),
        )

    for mask in (by_row(x), by_row(x, 1), scattered(x)):
        assert_sound(noisy, [x], [mask])


def test_the_coins_of_rrelu_are_independent_however_many_are_drawn():
    x, g = torch.randn(4, 3), torch.randn(4, 3)

    def rrelu(x, g):
        x.requires_grad_()
        out = F.rrelu(x, training=True)
        return out, torch.autograd.grad(out, x, g), torch.rrelu_(x.detach() * 1, training=True)

    masks, tracer = traced(rrelu, [x, g], [by_row(x), by_row(g)])
    assert all((mask == by_row(x)).all() for mask in masks)
    assert not tracer.trace.events


def test_rejection_samplers_keep_to_their_parameters():
    x = torch.rand(4, 3) + 0.5

    def sampled(x):
        n = x.round() + 3
        return torch.poisson(x), torch._standard_gamma(x), torch.binomial(n, x / 2)

    masks, tracer = traced(sampled, [x], [by_row(x)])
    assert all((mask == by_row(x)).all() for mask in masks)
    assert not tracer.trace.events
    (mask,), _ = traced(torch._sample_dirichlet, [x], [by_row(x, 1)])
    assert (mask == 7).all()


def test_gradients_of_noisy_layers():
    x, g = torch.randn(4, 3), torch.randn(4, 3)

    def backward(x, g):
        x.requires_grad_()
        return (
            torch.autograd.grad(F.dropout(x, 0.5), x, g),
            torch.autograd.grad(F.rrelu(x), x, g),
            torch.autograd.grad(torch.native_dropout(x, 0.5, True)[0], x, g),
        )

    assert_sound(backward, [x, g], [by_row(x), by_row(g)])
    assert_sound(backward, [x, g], [scattered(x), scattered(g, 1)])
