"""Linear algebra on batches of matrices: matrices of a batch stay apart, a matrix is ORed whole.

In solves with one matrix for all, the right-hand sides stay apart too: column j of A^-1 B sees A
and column j of B. A check that only raises when a matrix is singular (`_linalg_check_errors`, the
`check_errors` of the *_ex operators) is not taken for control flow: either it passes and changes
nothing, or there is no step at all. `info` itself carries its matrix's bits.
"""

from collections.abc import Sequence

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, clean, reduce_or, spread_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.matmul import known


def _batch(mask: Mask, trailing: int) -> Mask:
    """OR over the last dimensions; the batch remains."""
    dims = range(mask.ndim - trailing, mask.ndim)
    return reduce_or(mask, dims, keepdim=False) if trailing else mask


def _joined(masks: Sequence[Mask]) -> Mask:
    return union(np.broadcast_shapes(*[mask.shape for mask in masks]), masks)


def _for_outputs(call: Call, batch: Mask) -> list[Mask]:
    """The batch's mask for each output: scalars, vectors or matrices of the same batch."""
    outputs = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
    return [_shaped(batch, tuple(out.shape)) for out in outputs if out is not None]


def _shaped(batch: Mask, shape: tuple[int, ...]) -> Mask:
    if 0 in shape:
        return clean(shape)
    return batch.reshape((*batch.shape, *[1] * (len(shape) - batch.ndim)))


@rule(
    "aten::linalg_inv_ex",
    "aten::linalg_cholesky_ex",
    "aten::cholesky_inverse",
    "aten::linalg_qr",
    "aten::_linalg_svd",
    "aten::linalg_svd",
    "aten::_linalg_eigh",
    "aten::linalg_eigh",
    "aten::linalg_eig",
    "aten::linalg_eigvals",
    "aten::_linalg_eigvals",
    "aten::linalg_lu",
    "aten::linalg_lu_factor_ex",
    "aten::linalg_ldl_factor_ex",
    "aten::_linalg_det",
    "aten::_linalg_slogdet",
    "aten::linalg_matrix_exp",
    "aten::linalg_matrix_sqrth",
    "aten::linalg_polar",
    "aten::geqrf",
)
def factorization(call: Call) -> list[Mask]:
    """Functions of one matrix: all results of a matrix see all of it."""
    name = "A" if "A" in call.arguments else "self"
    return _for_outputs(call, _batch(known(call, name), 2))


@rule("aten::linalg_pinv")
def pinv(call: Call) -> list[Mask]:
    """The pseudo-inverse with tolerances, which are numbers of the batch."""
    masks = [_batch(known(call, "self"), 2)]
    for name in ("atol", "rtol", "rcond"):
        if hasattr(call.arguments.get(name), "shape"):
            masks.append(known(call, name))
    return _for_outputs(call, _joined(masks))


@rule("aten::linalg_householder_product")
def householder_product(call: Call) -> list[Mask]:
    """Reflectors as a matrix and their scales as a vector."""
    batch = [_batch(known(call, "input"), 2), _batch(known(call, "tau"), 1)]
    return _for_outputs(call, _joined(batch))


@rule("aten::ormqr")
def ormqr(call: Call) -> list[Mask]:
    """Q from reflectors, times another matrix: coarse, by batch."""
    names = (("self", 2), ("input2", 1), ("input3", 2))
    return _for_outputs(call, _joined([_batch(known(call, n), t) for n, t in names]))


@rule("aten::lu_unpack")
def lu_unpack(call: Call) -> list[Mask]:
    """P, L and U; those not asked for are empty."""
    batch = [_batch(known(call, "LU_data"), 2), _batch(known(call, "LU_pivots"), 1)]
    return _for_outputs(call, _joined(batch))


def _solved(factors: Sequence[Mask], right: Mask, left: bool) -> Mask:
    """All of the matrix and the own column (or row, when it stands on the right) of B."""
    batch = _joined(factors)[..., None, None]
    return _joined([batch, reduce_or(right, -2 if left else -1)])


@rule("aten::_linalg_solve_ex", "aten::linalg_solve_ex")
def solve(call: Call) -> list[Mask]:
    """The solution, and LU, pivots and info that see the matrix alone."""
    matrix, right = known(call, "A"), known(call, "B")
    batch = _batch(matrix, 2)
    is_vector = right.ndim == 1 or (
        right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1]
    )
    if is_vector:
        solution = _joined([batch[..., None], reduce_or(right, -1)])
    else:
        solution = _solved([batch], right, call["left"])
    return [solution, *_for_outputs(call, batch)[1:]]


@rule("aten::linalg_solve_triangular")
def solve_triangular(call: Call) -> Mask:
    """The solution of a triangular system."""
    return _solved([_batch(known(call, "self"), 2)], known(call, "B"), call["left"])


@rule("aten::triangular_solve")
def old_triangular_solve(call: Call) -> list[Mask]:
    """The same with the right-hand side first, and a copy of the matrix."""
    matrix = known(call, "A")
    return [_solved([_batch(matrix, 2)], known(call, "self"), True), matrix]


@rule("aten::linalg_lu_solve")
def lu_solve(call: Call) -> Mask:
    """The solution from a factorization with pivots."""
    factors = [_batch(known(call, "LU"), 2), _batch(known(call, "pivots"), 1)]
    return _solved(factors, known(call, "B"), call["left"])


@rule("aten::linalg_ldl_solve")
def ldl_solve(call: Call) -> Mask:
    """The solution from a symmetric factorization with pivots."""
    factors = [_batch(known(call, "LD"), 2), _batch(known(call, "pivots"), 1)]
    return _solved(factors, known(call, "B"), True)


@rule("aten::cholesky_solve", "aten::_cholesky_solve_helper")
def cholesky_solve(call: Call) -> Mask:
    """The solution from a Cholesky factor."""
    name = "A" if "A" in call.arguments else "input2"
    return _solved([_batch(known(call, name), 2)], known(call, "self"), True)


@rule("aten::linalg_lstsq")
def lstsq(call: Call) -> list[Mask]:
    """Least squares: coarse, all results of a matrix see it and all of its right-hand sides."""
    matrix, right = known(call, "self"), known(call, "b")
    is_vector = right.ndim == 1 or (
        right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1]
    )
    batch = [_batch(matrix, 2), _batch(right, 1 if is_vector else 2)]
    return _for_outputs(call, _joined(batch))


@rule("aten::linalg_cross")
def cross(call: Call) -> Mask:
    """The cross product: OR along the dimension of length 3."""
    both = call.union(tuple(call.out.shape), call.mask("self"), call.mask("other"))
    return spread_or(both, call["dim"])


@rule("aten::_linalg_check_errors")
def check_errors(call: Call) -> list[Mask]:
    """Returns nothing; it can only raise."""
    return []
