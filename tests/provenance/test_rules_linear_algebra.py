import pytest
import torch
from torch import linalg as L

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced


def _spd(a):
    return a @ a.mT + torch.eye(a.shape[-1], dtype=a.dtype)


def _low(a):
    return a.tril() + 3 * torch.eye(a.shape[-1], dtype=a.dtype)


ONE = {
    "inv": L.inv,
    "cholesky": lambda a: L.cholesky(_spd(a)),
    "cholesky_inverse": lambda a: torch.cholesky_inverse(L.cholesky(_spd(a))),
    "qr": lambda a: [x.abs() for x in L.qr(a)],
    "qr_r": lambda a: L.qr(a, mode="r")[1].abs(),
    "svdvals": L.svdvals,
    "eigvalsh": lambda a: L.eigvalsh(_spd(a)),
    "eigh": lambda a: [x.square() for x in L.eigh(_spd(a))],
    "eigvals": lambda a: L.eigvals(a).abs(),
    "det": L.det,
    "slogdet": lambda a: L.slogdet(a)[1],
    "lu": lambda a: L.lu(a)[1:],
    "lu_factor": lambda a: L.lu_factor(a)[0],
    "matrix_exp": L.matrix_exp,
    "pinv": L.pinv,
    "matrix_power": lambda a: L.matrix_power(a, 3),
    "nuclear": lambda a: L.svdvals(a).sum(-1),
}
NO_GRADIENT = {
    "ldl": lambda a: L.ldl_factor(_spd(a))[0],
    "ldl_solve": lambda a: L.ldl_solve(*L.ldl_factor(_spd(a)), a),
    "geqrf": lambda a: torch.geqrf(a),
}
TWO = {
    "solve": L.solve,
    "solve_right": lambda a, b: L.solve(a, b.mT, left=False),
    "solve_vector": lambda a, b: L.solve(a, b[..., 0]),
    "triangular": lambda a, b: L.solve_triangular(_low(a), b, upper=False),
    "triangular_right": lambda a, b: L.solve_triangular(_low(a), b.mT, upper=False, left=False),
    "triangular_old": lambda a, b: torch.triangular_solve(b, _low(a), upper=False)[0],
    "lu_solve": lambda a, b: L.lu_solve(*L.lu_factor(a), b),
    "cholesky_solve": lambda a, b: torch.cholesky_solve(b, _low(a)),
    "lstsq": lambda a, b: L.lstsq(a, b)[0],
    "cross": lambda a, b: L.cross(a, a + b[..., :1], dim=-2),
}


def _backward(function):
    def run(g, *xs):
        xs = [x.requires_grad_() for x in xs]
        out = function(*xs)
        out = out if isinstance(out, torch.Tensor) else out[-1]
        return torch.autograd.grad(out, xs, g)

    return run


def _shape(function, *xs):
    out = function(*xs)
    return (out if isinstance(out, torch.Tensor) else out[-1]).detach()


@pytest.mark.parametrize("name", [*ONE, *NO_GRADIENT])
@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 2, 3, 3)])
def test_matrices_of_a_batch_stay_apart(name, shape):
    function = {**ONE, **NO_GRADIENT}[name]
    a = torch.randn(shape, dtype=torch.float64)
    masks = [by_row(a, d) for d in range(len(shape) - 2)]
    for mask in (*masks, scattered(a)):
        assert_sound(function, [a], [mask], trials=3)
    found, tracer = traced(function, [a], [masks[0]])
    assert not tracer.trace.of("mixed")
    assert not tracer.trace.of("escape")
    for mask in found:
        owner = masks[0][..., 0, 0]
        assert (mask == owner.reshape(*owner.shape, *[1] * (mask.ndim - owner.ndim))).all()


@pytest.mark.filterwarnings("ignore:.*triangular_solve is deprecated:UserWarning")
@pytest.mark.parametrize("name", TWO)
def test_solves(name):
    a, b = torch.randn(3, 3, 3).double(), torch.randn(3, 3, 2).double()
    masks = [[scattered(a), scattered(b, 1)], [by_row(a), by_row(b)]]
    masks.append([by_row(a) & 0, by_row(b, -1)])
    for pair in masks:
        assert_sound(TWO[name], [a, b], pair, trials=3)


@pytest.mark.parametrize("name", [n for n in TWO if n not in ("lstsq", "cross", "solve_vector")])
@pytest.mark.filterwarnings("ignore:.*triangular_solve is deprecated:UserWarning")
def test_right_hand_sides_of_one_matrix_stay_apart(name):
    a, b = torch.randn(3, 3).double(), torch.randn(3, 4).double()
    (out,), _ = traced(TWO[name], [a, b], [by_row(a) & 0, by_row(b, -1)])
    rows = by_row(b, -1)
    assert (out == (rows.T if "right" in name else rows)).all()


@pytest.mark.filterwarnings("ignore:.*triangular_solve is deprecated:UserWarning")
@pytest.mark.parametrize("name", [n for n in [*ONE, *TWO] if n != "qr_r"])
def test_gradients(name):
    function = {**ONE, **TWO}[name]
    inputs = [torch.randn(3, 3, 3).double(), torch.randn(3, 3, 2).double()]
    inputs = inputs[: 1 if name in ONE else 2]
    g = torch.randn_like(_shape(function, *inputs))
    run = _backward(function)
    for masks in (
        [scattered(x, i) for i, x in enumerate((g, *inputs))],
        [*map(by_row, (g, *inputs))],
    ):
        assert_sound(run, [g, *inputs], masks, trials=2)


def test_householder_products_and_unpacking():
    a, tau = torch.randn(3, 3, 3).double(), torch.randn(3, 3).double()
    masks = [by_row(a), by_row(tau)]
    assert_sound(L.householder_product, [a, tau], masks)
    assert_sound(lambda a, t: torch.ormqr(a, t, a), [a, tau], masks)
    assert_sound(lambda a: torch.lu_unpack(*L.lu_factor(a), unpack_data=False)[0], [a], [by_row(a)])


def test_one_matrix_and_no_matrix():
    for shape in ((3, 3), (0, 3, 3)):
        a = torch.randn(shape).double()
        (inverse, det), tracer = traced(lambda a: (L.inv(a), L.det(a)), [a], [by_row(a)])
        assert not tracer.trace.of("unknown")
        assert inverse.shape == shape
        assert det.shape == shape[:-2]
        assert (inverse == 7).all()


def test_a_check_that_only_raises_is_no_control_flow():
    a = torch.randn(3, 3, 3)
    _, tracer = traced(L.inv, [a], [by_row(a)])
    assert not tracer.trace.of("escape")
