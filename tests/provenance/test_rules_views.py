import pytest
import torch

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

VIEWS = {
    "view": lambda x: x.view(-1, 2),
    "view flat": lambda x: x.view(-1),
    "unsafe view": lambda x: torch.ops.aten._unsafe_view(x, [4, 12]),
    "reshape": lambda x: x.transpose(0, 2).reshape(6, 8),
    "permute": lambda x: x.permute(2, -3, 1),
    "transpose": lambda x: x.transpose(-1, 0),
    "t": lambda x: x[0].t(),
    "expand": lambda x: x[:, None].expand(-1, 3, -1, -1),
    "squeeze": lambda x: x[:1, :, :1].squeeze(),
    "squeeze dim": lambda x: x[:, :1].squeeze(1),
    "squeeze dims": lambda x: x[:1, :, :1].squeeze((0, -1)),
    "unsqueeze": lambda x: x.unsqueeze(-2),
    "select": lambda x: x.select(-1, -2),
    "slice": lambda x: x[1:-1, ::2],
    "empty slice": lambda x: x[3:1],
    "split": lambda x: x.split(3, 1),
    "sizes": lambda x: x.split([1, 2, 1], 0),
    "unsafe": lambda x: (x.unsafe_split(2, 2), x.unsafe_chunk(3, 1)),
    "unbind": lambda x: x.unbind(1),
    "chunk": lambda x: x.chunk(3, -1),
    "diagonal": lambda x: x.diagonal(1, 0, 2),
    "diagonal below": lambda x: x.diagonal(-1, 2, 1),
    "unfold": lambda x: x.unfold(1, 2, 2),
    "alias": lambda x: torch.ops.aten.alias(x),
    "detach": lambda x: x.detach(),
    "as_strided": lambda x: x.as_strided((3, 2), (5, 7), 4),
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.view(4, 6, 2))),
    "conj": lambda x: torch.view_as_complex(x.view(4, 6, 2)).conj().resolve_conj().imag,
    "copies": lambda x: (
        torch.permute_copy(x, (1, 0, 2)),
        torch.unbind_copy(x, 0),
        torch.select_copy(x, 1, 2),
        torch.slice_copy(x, 1, 0, 3, 2),
        torch.narrow_copy(x, 1, -2, 2),
        torch.expand_copy(x[:, None], (4, 2, 4, 3 * 1)),
        torch.unfold_copy(x, 0, 2, 1),
        torch.as_strided_copy(x, (2, 3), (6, 2), 5),
        torch.split_with_sizes_copy(x, [1, 3], 0),
        torch.diagonal_copy(x, 0, 1, 2),
        torch.squeeze_copy(x[:, :1]),
    ),
    "movedim": lambda x: (x.movedim(0, -1), x.swapaxes(0, 1), x.narrow(1, 1, 2), x.mT),
    "flatten": lambda x: (x.flatten(1), x.unflatten(0, (2, 2)), x.ravel()),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_a_view_of_the_mask_is_the_mask_of_the_view(name, dim):
    x = torch.randn(4, 4, 3)
    mask = scattered(x) if dim is None else by_row(x, dim)
    exact = name not in ("complex", "conj")  # a complex element is one element
    assert_sound(VIEWS[name], [x], [mask], exact=exact, trials=3)


@pytest.mark.parametrize("name", [n for n in VIEWS if n not in ("detach", "copies")])
@pytest.mark.parametrize("dim", [0, 2, None])
def test_the_gradient_of_a_view_goes_back_to_its_own_places(name, dim):
    x = torch.randn(4, 4, 3)
    outputs = _flat(VIEWS[name](x.clone()))
    grads = [torch.randn(o.shape) for o in outputs]
    masks = [scattered(g) if dim is None or g.dim() <= dim else by_row(g, dim) for g in grads]

    def backward(x, *grads):
        x.requires_grad_()
        return torch.autograd.grad(_flat(VIEWS[name](x)), x, grads)

    assert_sound(backward, [x, *grads], [scattered(x) * 0, *masks], trials=3)


def _flat(out):
    return [o for item in out for o in _flat(item)] if isinstance(out, (tuple, list)) else [out]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.float64])
def test_another_type_shares_bytes_with_neighbours_only(dtype):
    x = torch.randn(4, 6)
    for mask in (by_row(x), by_row(x, 1), scattered(x)):
        assert_sound(lambda x: x.view(dtype) + 0, [x], [mask], trials=3)


def test_a_write_through_a_view_reaches_the_base():
    def write(x, y):
        base = torch.zeros(4, 6)
        base.view(2, 2, 6).transpose(0, 1)[1].copy_(x)
        base.t()[0].add_(y)
        base.unsqueeze_(0).squeeze_(0).t_().transpose_(0, 1)
        return base

    x, y = torch.randn(2, 6), torch.randn(4)
    assert_sound(write, [x, y], [by_row(x), by_row(y)], exact=True)


def test_constant_dimensions_stay_constant():
    x = torch.randn(4, 8, 6, 6)
    for function in (
        lambda x: x.permute(0, 2, 3, 1).reshape(4 * 36, 8),
        lambda x: x.unfold(2, 3, 1)[:, 1:3],
        lambda x: x.flatten(1).view(2, 2, 8, 36),
    ):
        (mask,), _ = traced(function, [x], [by_row(x)])
        assert sum(stride != 0 for stride in mask.strides) <= 2


def test_empty_and_scalar_tensors():
    empty, one = torch.randn(0, 3), torch.randn(1)

    def views(e, one):
        s = one[0]
        return (
            e.t(),
            e[:, 1:],
            e.view(3, 0),
            s.expand(2),
            s.unfold(0, 1, 1),
            s.detach(),
            s.view(1),
        )

    assert_sound(views, [empty, one], [by_row(empty), by_row(one)])


def test_scatters_of_views():
    x, y = torch.randn(4, 5), torch.randn(4, 2)
    for mask in (by_row(x), by_row(x, 1), scattered(x)):
        assert_sound(
            lambda x, y: (
                x.slice_scatter(y, 1, 1, 5, 2),
                x.select_scatter(y[:, 0], 1, -1),
                x.diagonal_scatter(y[:, 1]),
                torch.as_strided_scatter(x, y, (4, 2), (5, 1), 1),
            ),
            [x, y],
            [mask, by_row(y)],
        )


def test_a_lost_bit_is_caught(monkeypatch):
    from dpnorm.provenance import registry

    assert registry.find_rule("aten::flip")
    monkeypatch.setitem(registry._RULES, "aten::flip", lambda call: call.mask("self"))
    x = torch.randn(4, 3)
    with pytest.raises(AssertionError, match="not marked"):
        assert_sound(lambda x: x.flip(0), [x], [by_row(x)])
