"""Places of views in their bases, against what torch itself reads there."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.detection.layout import Layout


@st.composite
def views(draw):
    """A tensor in any order of memory, and a view of it by a chain of operators."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    order = draw(st.permutations(range(len(sizes))))
    base = torch.arange(np.prod(sizes), dtype=torch.float64).view([sizes[i] for i in order])
    base = base.permute([order.index(i) for i in range(len(sizes))])
    view = base
    for _ in range(draw(st.integers(0, 4))):
        dimension = draw(st.integers(0, view.dim() - 1))
        step = draw(st.sampled_from(["transpose", "slice", "narrow", "unsqueeze", "diagonal"]))
        if step == "transpose":
            view = view.transpose(0, dimension)
        elif step == "slice":
            view = view[(slice(None),) * dimension + (slice(None, None, 2),)]
        elif step == "narrow":
            start = draw(st.integers(0, view.shape[dimension] - 1))
            view = view.narrow(dimension, start, 1)
        elif step == "unsqueeze":
            view = view.unsqueeze(dimension)
        elif view.dim() > 1 and dimension:
            view = view.diagonal(0, 0, dimension)
    return base, view


@settings(max_examples=200)
@given(views())
def test_places_are_those_of_the_numbers_that_the_view_shows(drawn):
    base, view = drawn
    places = Layout.of(view).places_in(Layout.of(base))
    assert places.shape == view.shape
    numbers = base.contiguous().flatten().numpy()
    np.testing.assert_array_equal(numbers[places], view.numpy())


def test_what_the_base_has_not_has_no_place():
    base = torch.arange(12.0)
    assert Layout.of(base).places_in(Layout.of(base[1:])) is None
    assert Layout.of(base.view(torch.float64)).places_in(Layout.of(base)) is None
    assert Layout.of(base[:0]).places_in(Layout.of(base[:0])) is None
