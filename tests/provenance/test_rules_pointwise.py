"""Every operator that torch tags pointwise and that plain arguments can call, by brute force."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

SHAPES = [(4, 3), (1, 3), (4, 1)]  # of the first, second and third tensor: they broadcast
VALUES = {"Scalar": 0.7, "int": 1, "SymInt": 1, "bool": False, "float": 0.5, "number": 0.7}


def overloads():
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        if not full.startswith("aten::"):
            continue
        name, _, overload = full.removeprefix("aten::").partition(".")
        try:
            found = getattr(getattr(torch.ops.aten, name), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        if torch.Tag.pointwise in found.tags:
            yield found


POINTWISE = list(overloads())


def call_of(func, tensor_type=torch.float64, shapes=SHAPES):
    """A function of tensors only, and these tensors; None if the schema wants more than numbers."""
    tensors: list[Tensor] = []
    places: list[tuple[str, object]] = []
    names: list[str] = []
    for argument in func._schema.arguments:
        kind = str(argument.type)
        written = argument.alias_info is not None and argument.alias_info.is_write
        if kind == "Tensor" and written and argument.kwarg_only:
            places.append((argument.name, "out"))
        elif kind == "Tensor":
            if len(tensors) == 3:
                return None
            drawn = torch.rand(shapes[len(tensors)]) * 0.8 + 0.1
            drawn = drawn if tensor_type.is_floating_point else drawn * 10
            places.append((argument.name, len(tensors)))
            tensors.append(drawn.to(tensor_type))
        elif argument.has_default_value():
            continue
        elif kind in VALUES:
            whole = kind == "Scalar" and not tensor_type.is_floating_point
            places.append((argument.name, [1 if whole else VALUES[kind]]))
        else:
            return None
        names.append(argument.name)
    if not tensors:
        return None

    def function(*given):
        keywords = {}
        for name, place in places:
            if place == "out":
                keywords[name] = torch.empty(4, 3, dtype=tensor_type)
            else:
                keywords[name] = given[place] if isinstance(place, int) else place[0]
        return told_apart(func(**keywords))

    return function, tensors


def told_apart(out):
    """NaN and infinity as numbers, which the harness can compare."""
    if isinstance(out, Tensor) and out.is_floating_point():
        return torch.nan_to_num(out, nan=123.0, posinf=456.0, neginf=-456.0)
    return out


def runnable(func):
    """The first kind of numbers on which an operator runs and gives tensors."""
    for tensor_type in (torch.float64, torch.int64, torch.bool):
        for shapes in (SHAPES, [(4, 3)] * 3):
            drawn = call_of(func, tensor_type, shapes)
            if drawn is None:
                return None
            function, tensors = drawn
            try:
                out = function(*[tensor.clone() for tensor in tensors])
            except (RuntimeError, TypeError, NotImplementedError, ValueError):
                continue
            if isinstance(out, Tensor):
                return function, tensors
    return None


@pytest.mark.parametrize("part", range(8))
def test_nothing_moves_outside_its_place(part):
    for func in POINTWISE[part::8]:
        drawn = runnable(func)
        if drawn is None:
            continue
        function, tensors = drawn
        try:
            assert_sound(
                function, tensors, [scattered(t, i) for i, t in enumerate(tensors)], trials=2
            )
            rows = [np.broadcast_to(by_row(t), t.shape) for t in tensors]
            assert_sound(function, tensors, rows, trials=2)
        except Exception as error:
            raise AssertionError(f"{func}: {error}") from error


def test_at_least_150_overloads_were_called():
    assert sum(runnable(func) is not None for func in POINTWISE) >= 150


def test_in_place_and_out_write_the_place_they_name():
    x, y = torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)

    def function(x, y):
        out = torch.empty(4, 3, dtype=torch.float64)
        torch.mul(x, y, out=out)
        x[1:3].add_(y[1:3])
        return out, x

    assert_sound(function, [x, y], [scattered(x), scattered(y, 1)])


def test_what_an_out_argument_held_is_gone():
    x = torch.rand(4, 3, dtype=torch.float64)

    def function(x):
        held = x.flip(0)
        return torch.exp(x, out=held), torch.exp(x, out=torch.empty(0, dtype=torch.float64))

    found, _ = traced(function, [x], [by_row(x)])
    assert all((mask == by_row(x)).all() for mask in found)
