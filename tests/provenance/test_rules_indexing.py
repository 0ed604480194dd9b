import pytest
import torch
import torch.nn.functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

I0 = torch.tensor([3, 0, 0, -1])
I1 = torch.tensor([[1, 2], [0, 2]])
ROWS = torch.arange(4)
KEEP = torch.tensor([True, False, True, True])
GRID = torch.tensor([[[0, 2, 1]], [[3, 3, 0]]]).expand(2, 4, 3) % 4

CONSTANT = {
    "rows": lambda x: x[I0],
    "columns": lambda x: x[:, I1],
    "pairs": lambda x: x[ROWS, I0.flip(0)],
    "apart": lambda x: x[I0, :, I0 % 3],
    "broadcast": lambda x: x[I0[:, None], I1.flatten()],
    "boolean": lambda x: (x[KEEP], x[:, KEEP], x[KEEP, 1], x[:, :, 0][torch.eye(4).bool()]),
    "mixed": lambda x: x[KEEP, I0[:3]],
    "none": lambda x: x[I0[:0]],
    "index_select": lambda x: x.index_select(1, I0 % 4),
    "gather": lambda x: (x.gather(0, GRID), x.gather(1, GRID[:, :2]), x.gather(-1, GRID % 3)),
    "along": lambda x: torch.take_along_dim(x, I0.view(4, 1, 1) % 4, 0),
    "take": lambda x: x.take(torch.tensor([[5, -1], [0, 0]])),
    "masked_select": lambda x: (x.masked_select(KEEP[:, None, None]), x[x.shape[0] :]),
    "unsafe": lambda x: torch.ops.aten._unsafe_index(x, [None, I0 % 4]),
}


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_a_known_index_selects_exactly(name, dim):
    x = torch.randn(4, 4, 3)
    mask = scattered(x) if dim is None else by_row(x, dim)
    assert_sound(CONSTANT[name], [x], [mask], exact=True, trials=3)


@pytest.mark.parametrize("name", [n for n in CONSTANT if n != "unsafe"])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_gradients_of_known_indices(name, dim):
    x = torch.randn(4, 4, 3)
    flat = lambda out: list(out) if isinstance(out, tuple) else [out]  # noqa: E731
    grads = [torch.randn(o.shape) for o in flat(CONSTANT[name](x))]
    masks = [scattered(g) if dim is None or g.dim() <= dim else by_row(g, dim) for g in grads]

    def backward(x, *grads):
        x.requires_grad_()
        return torch.autograd.grad(flat(CONSTANT[name](x)), x, grads)

    assert_sound(backward, [x, *grads], [scattered(x) * 0, *masks], trials=3)


def _put(x, where, value, accumulate=False):
    return torch.ops.aten.index_put(x, where, value, accumulate)


WRITES = {
    "put": lambda x, y: _put(x, (I0[:2],), y[:2]),
    "put twice": lambda x, y: _put(x, (torch.tensor([1, 1]),), y[:2]),
    "put more": lambda x, y: _put(x, (I0,), y, True),
    "pairs": lambda x, y: _put(x, (ROWS, I0), y[:, 0]),
    "apart": lambda x, y: x.index_put((I0, torch.arange(4), I0 % 3), y[:, 0, 0]),
    "columns": lambda x, y: _put(x, (None, I1[0]), y[:, :2]),
    "boolean": lambda x, y: _put(x, (KEEP,), y[:3]),
    "in place": lambda x, y: _set(x, y),
    "index_add": lambda x, y: x.index_add(1, I0 % 4, y),
    "index_copy": lambda x, y: x.index_copy(0, torch.tensor([2, 0, 3, 1]), y),
    "index_fill": lambda x, y: (x.index_fill(0, I0[:2], 2.0), x.index_fill(1, I0[:1], y[0, 0, 0])),
    "scatter": lambda x, y: (x.scatter(1, GRID, y), x.scatter(0, GRID, 3.0)),
    "scatter_add": lambda x, y: (x.scatter_add(1, GRID, y), x.scatter_add(0, GRID[:1], y[:1])),
    "scatter_reduce": lambda x, y: x.scatter_reduce(1, GRID, y[:2], "sum"),
    "reduce": lambda x, y: (
        x.scatter(1, GRID, y, reduce="add"),
        x.scatter_reduce(0, GRID, y, "amax", include_self=False),
    ),
    "put_": lambda x, y: x.put(torch.tensor([3, 5, -1]), y[0, 0]),
    "masked": lambda x, y: (
        x.masked_fill(KEEP[:, None, None], 1.0),
        x.masked_fill(KEEP[:, None, None], y[0, 0, 0]),
        x.masked_scatter(KEEP[:, None, None], y),
    ),
}


def _set(x, y):
    x[:, 1:][I0[:2]] = y[:2, 1:]
    x[KEEP] = 0
    x[0, KEEP] += y[0, KEEP]
    return x


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_known_places_are_written(name, dim):
    x, y = torch.randn(4, 4, 3), torch.randn(4, 4, 3)
    masks = [scattered(t, i) if dim is None else by_row(t, dim) for i, t in enumerate((x, y))]
    assert_sound(WRITES[name], [x, y], masks, trials=3)

    def backward(x, y, g):
        x.requires_grad_(), y.requires_grad_()
        out = WRITES[name](x * 1, y * 1)
        out = out[-1] if isinstance(out, tuple) else out
        return torch.autograd.grad(out, (x, y), g, allow_unused=True)

    g = torch.randn(4, 4, 3)
    if name != "reduce":
        assert_sound(backward, [x, y, g], [*masks, by_row(g, dim or 0)], trials=2)


SELECTED = {
    "rows": lambda x, i: x[i[:, 0]],
    "own column": lambda x, i: x[ROWS, i[:, 0]],
    "column pairs": lambda x, i: x[:, i],
    "both": lambda x, i: x[i[:, 0], i[:, 1]],
    "apart": lambda x, i: x[i[:, 0], :, i[:, 1] % 3],
    "index_select": lambda x, i: (x.index_select(0, i[:, 0]), x.index_select(1, i[:, 1])),
    "gather": lambda x, i: (x[:, :, 0].gather(0, i), x[:, :, 0].gather(1, i)),
    "gather less": lambda x, i: x[:, :, 0].gather(1, i[:3, :2]),
    "take": lambda x, i: x.take(i),
    "embedding": lambda x, i: F.embedding(i, x[:, 0]),
    "put": lambda x, i: x.index_put((i[:, 0],), x[:, :1]),
    "put own": lambda x, i: x.index_put((ROWS, i[:, 0]), x[:, 0]),
    "put add": lambda x, i: _put(x, (None, i[:, 0]), x[:, :1], True),
    "put constant": lambda x, i: x.index_put((i[:, 0], i[:, 1]), torch.tensor(1.0)),
    "condition": lambda x, i: x.index_put((i > 1,), torch.tensor(7.0)),
    "index_add": lambda x, i: (x.index_add(0, i[:, 0], x), x.index_add(1, i[:, 1], x)),
    "index_copy": lambda x, i: x.index_fill(0, i[:, 0], 1.0),
    "scatter": lambda x, i: (
        x[:, :, 0].scatter(1, i, x[:, :, 1]),
        x[:, :, 0].scatter(0, i[:2, :1], 2.0),
        x[:, :, 0].scatter_add(0, i, x[:, :, 1]),
        x[:, :, 0].scatter_reduce(1, i, x[:, :, 1], "prod"),
    ),
    "put_": lambda x, i: x.put(i, x[:, :, 0]),
    "masked": lambda x, i: (
        x[:, :, 0].masked_fill(i > 1, 1.0),
        x[:, :, 0].masked_scatter(i > 1, x[:, :, 1]),
        torch.where(i > 1, x[:, :, 0], x[:, :, 1]),
    ),
    "renorm": lambda x, i: F.embedding(i, x[:, 0].clone(), max_norm=0.5),
}


@pytest.mark.parametrize("name", SELECTED)
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("seed", range(2))
def test_an_index_with_bits_may_select_anything(name, dim, seed):
    x, i = torch.randn(4, 4, 3), torch.randint(0, 4, (4, 4))
    masks = [scattered(t, seed) if dim is None else by_row(t, dim) for t in (x, i)]
    assert_sound(SELECTED[name], [x, i], masks, trials=4, seed=seed)

    def backward(x, i, g):
        out = SELECTED[name](x.requires_grad_() * 1, i)
        out = out[0] if isinstance(out, tuple) else out
        return torch.autograd.grad(out, x, g)

    if name != "renorm":
        out = SELECTED[name](x, i)
        g = torch.randn((out[0] if isinstance(out, tuple) else out).shape)
        assert_sound(backward, [x, i, g], [*masks, by_row(g)], trials=3, seed=seed)


def test_each_row_may_look_up_its_own_column():
    x, y = torch.randn(4, 5), torch.randint(0, 5, (4,))
    for function in (
        lambda x, y: x[torch.arange(4), y],
        lambda x, y: x.gather(1, y[:, None]),
        lambda x, y: torch.zeros(4, 5).scatter_(1, y[:, None], 1.0),
        lambda x, y: x.index_put((torch.arange(4), y), torch.tensor(0.0)),
        lambda x, y: F.embedding(y, torch.ones(5, 3)),
        lambda x, y: x.masked_fill(y[:, None] > 2, 0.0),
    ):
        _, tracer = traced(function, [x, y], [by_row(x), by_row(y)])
        assert not tracer.trace.events


def test_boolean_indices_with_bits_taint_what_they_size():
    x = torch.randn(4, 3)
    for function in (
        lambda x: x[x[:, 0] > 0],
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.nonzero(x > 0),
        lambda x: torch.unique((x * 2).round(), return_inverse=True, return_counts=True),
        lambda x: torch.unique((x * 2).round(), dim=0),
        lambda x: torch.unique_consecutive((x * 2).round()),
        lambda x: torch.bincount((x[:, 0].abs() * 2).long()),
        lambda x: torch.ones(4).repeat_interleave((x[:, 0] > 0).long()),
    ):
        assert_sound(function, [x], [by_row(x)])
        _, tracer = traced(function, [x], [by_row(x)])
        assert tracer.trace.of("escape")
        with_constants, tracer = traced(function, [x], [by_row(x) * 0])
        assert not tracer.trace.events
        assert not any(mask.any() for mask in with_constants)


def test_values_that_become_python_numbers_are_escapes():
    x = torch.randn(4, 3)
    for function in (
        lambda x: torch.tensor(x[1, 0].item()),
        lambda x: torch.zeros(1) if x.sum() > 0 else torch.ones(1),
        lambda x: torch.zeros(1) if torch.equal(x, x) else torch.ones(1),
        lambda x: torch.ops.aten._assert_async(x.sum() > -1e9),
    ):
        _, tracer = traced(function, [x], [by_row(x)])
        assert tracer.trace.of("escape")
        assert not tracer.trace.of("unknown")


ORDER = {
    "sort": lambda x: (x.sort(1), x.sort(dim=0, stable=True), x.argsort(-1), x[:, 0].sort()),
    "topk": lambda x: (x.topk(2, 0), x.topk(1, -1), x.kthvalue(2, 1), x.kthvalue(1, 0, True)),
    "median": lambda x: (x.median(), x.median(1), x.nanmedian(0, True), x.mode(1), x.nanmedian()),
    "running": lambda x: (x.cummax(1), x.cummin(0), x.cummax(-1)),
    "search": lambda x: (
        torch.searchsorted(x.sort(1).values, x),
        torch.searchsorted(x[0].sort().values, x),
        torch.bucketize(x, x[:, 0].sort().values),
        torch.bucketize(0.1, x[0].sort().values),
    ),
    "isin": lambda x: (torch.isin(x.round(), x[0].round()), torch.isin(x.round(), 1)),
    "hist": lambda x: (x.histc(4), x.histogram(3)),
    "static": lambda x: torch.nonzero_static(x > 0, size=5),
    "multinomial": lambda x: x.exp().multinomial(2),
}


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_ordering(name, dim):
    x = torch.randn(4, 5)
    mask = scattered(x) if dim is None else by_row(x, dim)
    assert_sound(ORDER[name], [x], [mask])


@pytest.mark.parametrize("name", ["sort", "topk", "running"])
def test_gradients_of_ordering(name):
    x, g = torch.randn(4, 5), torch.randn(4, 5)

    def backward(x, g):
        values = ORDER[name](x.requires_grad_())[0][0]
        return torch.autograd.grad(values, x, g[: values.shape[0]])

    for dim in (0, 1):
        assert_sound(backward, [x, g], [by_row(x, dim), by_row(g, dim)])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding_bags(mode, padding_idx):
    table, i, w = torch.randn(5, 3), torch.randint(0, 5, (4, 2)), torch.randn(4, 2)

    def bag(table, i, w, g):
        table.requires_grad_(), w.requires_grad_()
        weights = w if mode == "sum" else None
        out = F.embedding_bag(
            i, table, mode=mode, per_sample_weights=weights, padding_idx=padding_idx
        )
        late = F.embedding_bag(
            i.flatten(), table, torch.tensor([0, 3, 3]), mode=mode, padding_idx=padding_idx
        )
        grads = torch.autograd.grad(out, (table, w) if mode == "sum" else table, g)
        return out, late, grads

    g = torch.randn(4, 3)
    clean = scattered(table) * 0
    assert_sound(bag, [table, i, w, g], [clean, by_row(i), by_row(w), by_row(g)])
    assert_sound(bag, [table, i, w, g], [scattered(table), scattered(i), by_row(w), by_row(g)])
    out, _ = traced(bag, [table, i, w, g], [clean, by_row(i), by_row(w), by_row(g)])
    assert (out[0] == by_row(g)).all()


def test_empty_batches():
    x, i = torch.randn(0, 4), torch.zeros(0, 2, dtype=torch.long)

    def empty(x, i):
        x.requires_grad_()
        out = x.gather(1, i) + F.embedding(i, torch.ones(3, 1))[..., 0] + x[i[:, 0]][:, :2]
        return out, torch.autograd.grad(out, x, torch.ones_like(out)), x.detach().sort(1), x[:, I0]

    assert_sound(empty, [x, i], [by_row(x), by_row(i)], trials=1)
