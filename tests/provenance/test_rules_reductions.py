import pytest
import torch

from dpnorm.provenance import registry
from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

SHAPES = [(4,), (3, 4), (2, 3, 4), (4, 1, 3)]

FULL = {
    "sum": torch.sum,
    "mean": torch.mean,
    "nansum": torch.nansum,
    "nanmean": torch.nanmean,
    "prod": torch.prod,
    "max": torch.max,
    "min": torch.min,
    "argmax": torch.argmax,
    "argmin": torch.argmin,
    "all": lambda x: torch.all(x > 0),
    "any": lambda x: torch.any(x > 1),
    "count_nonzero": lambda x: torch.count_nonzero(x > 0),
    "std": torch.std,
    "var_mean": torch.var_mean,
    "norm": torch.norm,
    "vector_norm": torch.linalg.vector_norm,
    "aminmax": torch.aminmax,
}
ALONG = {
    "sum": torch.sum,
    "mean": torch.mean,
    "nansum": torch.nansum,
    "nanmean": torch.nanmean,
    "prod": torch.prod,
    "max": torch.max,
    "min": torch.min,
    "amax": torch.amax,
    "amin": torch.amin,
    "aminmax": lambda x, dim, keepdim: torch.aminmax(x, dim=dim, keepdim=keepdim),
    "argmax": torch.argmax,
    "argmin": torch.argmin,
    "all": lambda x, dim, keepdim: torch.all(x > 0, dim, keepdim),
    "any": lambda x, dim, keepdim: torch.any(x > 1, dim, keepdim),
    "count_nonzero": lambda x, dim, keepdim: torch.count_nonzero(x > 0, dim),
    "var": lambda x, dim, keepdim: torch.var(x, dim, keepdim=keepdim),
    "std_mean": lambda x, dim, keepdim: torch.std_mean(x, dim, keepdim=keepdim),
    "norm": lambda x, dim, keepdim: torch.norm(x, 2, dim, keepdim),
    "norm_3": lambda x, dim, keepdim: torch.norm(x, 3, dim, keepdim, dtype=torch.float64),
    "vector_norm": lambda x, dim, keepdim: torch.linalg.vector_norm(x, 1, dim, keepdim=keepdim),
    "logsumexp": torch.logsumexp,
}
SMOOTH = {"sum", "mean", "logsumexp", "norm_3", "prod"}


def masks_of(x, seed=0):
    return [scattered(x, seed), *(by_row(x, dim) for dim in range(x.dim()))]


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*")
def test_a_full_reduction_meets_every_element(name, shape):
    x = torch.randn(shape, dtype=torch.float64)
    for mask in masks_of(x):
        assert_sound(FULL[name], [x], [mask], exact=name in SMOOTH)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*")
def test_a_reduction_meets_its_line_only(name, shape, keepdim):
    x = torch.randn(shape, dtype=torch.float64)
    for dim in (*range(x.dim()), -1):
        if x.shape[dim] == 1 and name in ("var", "std_mean"):
            continue  # no deviation of one number
        for mask in masks_of(x, dim % 7):
            assert_sound(
                lambda x, dim=dim: ALONG[name](x, dim, keepdim),
                [x],
                [mask],
                exact=name in SMOOTH,
                trials=3,
            )


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "var", "logsumexp", "vector_norm"])
def test_several_dims_and_none_at_all(name):
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    for dim in ((0, 2), (-1, 1), [0, 1, 2, 3]):
        assert_sound(lambda x, dim=dim: ALONG[name](x, dim, False), [x], [scattered(x)])
    assert_sound(lambda x: getattr(torch, name)(x, []) if name == "sum" else x, [x], [scattered(x)])


def test_integers_and_booleans():
    x = torch.randint(0, 2, (3, 4))
    for f in (torch.sum, torch.argmax, torch.max, torch.prod, torch.all, torch.any):
        assert_sound(lambda x, f=f: f(x, 1), [x], [scattered(x)])
        assert_sound(lambda x, f=f: f(x.bool().int()), [x], [scattered(x)])


def test_out_arguments():
    x = torch.randn(3, 4, dtype=torch.float64)

    def function(x):
        total, top, places = x.new_empty(3), x.new_empty(3), torch.empty(3, dtype=torch.long)
        return torch.sum(x, 1, out=total), torch.max(x, 1, out=(top, places))

    assert_sound(function, [x], [scattered(x)])


@pytest.mark.parametrize("scan", [torch.cumsum, torch.cumprod, torch.logcumsumexp])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_scan_meets_what_came_before(scan, shape):
    x = torch.randn(shape, dtype=torch.float64)
    for dim in range(-1, max(x.dim(), 1)):
        for mask in masks_of(x):
            assert_sound(lambda x, dim=dim: scan(x, dim), [x], [mask], exact=True)
    assert_sound(lambda x: x.clone().cumsum_(-1), [x], [scattered(x)], exact=True)


def test_others():
    x, y = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    masks = [scattered(x), scattered(y, 1)]
    assert_sound(torch.trace, [x], masks[:1], exact=True)
    assert_sound(torch.dist, [x, y], masks, exact=True)
    assert_sound(lambda x: torch.renorm(x, 2, -1, 0.5), [x], [by_row(x, 1)], exact=True)
    assert_sound(lambda x: torch.renorm(x, 2, 0, 0.5), [x], [scattered(x)])
    assert_sound(lambda x: x.sum_to_size(1, 4), [x], masks[:1], exact=True)
    assert_sound(torch.diff, [x], masks[:1], exact=True)
    assert_sound(torch.cosine_similarity, [x, y], masks)
    assert_sound(lambda x: torch.max(x, x.flip(0)), [x], masks[:1])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_distances(p, mode):
    x, y = (torch.randn(2, n, 5, dtype=torch.float64) for n in (3, 4))
    g = torch.randn(2, 3, 4, dtype=torch.float64)

    def forward(x, y):
        return torch.cdist(x, y, p, mode)

    def backward(x, y, g):
        return torch.autograd.grad(forward(x.requires_grad_(), y.requires_grad_()), (x, y), g)

    for draw in (scattered, lambda t: by_row(t, 0), lambda t: by_row(t, 1)):
        assert_sound(forward, [x, y], [draw(x), draw(y)])
        assert_sound(backward, [x, y, g], [draw(x), draw(y), draw(g)], trials=3)
    pairs = x[0]
    assert_sound(lambda x: torch.pdist(x, p), [pairs], [by_row(pairs)], exact=True)
    assert_sound(
        lambda x, g: torch.autograd.grad(torch.pdist(x.requires_grad_(), p), x, g),
        [pairs, g[0, 0, :3]],
        [by_row(pairs), scattered(g[0, 0, :3])],
    )


@pytest.mark.parametrize(
    "name", ["sum", "mean", "prod", "amax", "max", "var", "std_mean", "norm", "logsumexp"]
)
def test_gradients_of_reductions(name):
    x = torch.randn(3, 4, dtype=torch.float64)

    def backward(x, g):
        out = ALONG[name](x.requires_grad_(), 1, False)
        return torch.autograd.grad(out if isinstance(out, torch.Tensor) else out[0], x, g)

    g = torch.randn(3, dtype=torch.float64)
    _, tracer = traced(backward, [x, g], [by_row(x), by_row(g)])
    assert not tracer.trace.of("unknown")
    for mask in (by_row(x), by_row(x, 1), scattered(x)):
        assert_sound(backward, [x, g], [mask, by_row(g)])


def test_a_single_number():
    x = torch.randn(1, dtype=torch.float64)
    for name in FULL:
        if name not in ("std", "var_mean"):
            assert_sound(lambda x, name=name: FULL[name](x.reshape(())), [x], [by_row(x)])
    for name in set(ALONG) - {"var", "std_mean"}:
        assert_sound(lambda x, name=name: ALONG[name](x.reshape(()), -1, True), [x], [by_row(x)])
    for scan in (torch.cumsum, torch.cumprod, torch.logcumsumexp):
        assert_sound(lambda x, scan=scan: scan(x.reshape(()), -1), [x], [by_row(x)], exact=True)


@pytest.mark.parametrize("scan", [torch.cumsum, torch.logcumsumexp])
def test_gradients_of_scans(scan):
    x, g = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def backward(x, g):
        return torch.autograd.grad(scan(x.requires_grad_(), 1), x, g)

    _, tracer = traced(backward, [x, g], [by_row(x), by_row(g)])
    assert not tracer.trace.of("unknown")
    assert_sound(backward, [x, g], [scattered(x), scattered(g, 1)])


def test_empty_batches():
    x = torch.randn(0, 3)
    for f in (lambda x: x.sum(0), lambda x: x.sum(1), torch.sum, lambda x: x.cumsum(0), torch.mean):
        found, _ = traced(f, [x], [by_row(x)])
        assert not any(mask.any() for mask in found)


def test_a_comparison_of_tensors_escapes():
    x = torch.ones(4, 2)

    def function(x):
        return x if torch.equal(x, x + 1) else x * 2

    _, tracer = traced(function, [x], [by_row(x)])
    assert tracer.trace.of("escape")


def test_a_lost_bit_is_caught(monkeypatch):
    monkeypatch.setitem(registry._RULES, "aten::amax", lambda call: call.mask("self")[0, 0])
    x = torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="not marked"):
        assert_sound(lambda x: x.amax((0, 1)), [x], [by_row(x)])
