"""Compact paths against an independent brace expansion."""

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from dpnorm.detection.rendering.compact import compact


def expand(text: str) -> list[str]:
    """What a shell would make of the braces."""
    parts = []
    for part in re.split(r"(\{[^}]*\})", text):
        if bounds := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part):
            parts.append([str(n) for n in range(int(bounds[1]), int(bounds[2]) + 1)])
        else:
            parts.append(part[1:-1].split(",") if part.startswith("{") else [part])
    return ["".join(choice) for choice in itertools.product(*parts)]


names = st.sampled_from(["bn", "bn1", "bn2", "0", "1", "2", "01", "conv3x3", "norm"])
paths = st.lists(names, min_size=1, max_size=4).map(".".join)


@given(st.lists(paths, unique=True))
@example(["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1"])
@example([f"blocks.{i}.bn{j}" for i in range(3) for j in range(2)])
def test_expanding_gives_exactly_the_paths_each_once(given_paths):
    expanded = [path for text in compact(given_paths) for path in expand(text)]
    assert sorted(expanded) == sorted(given_paths)


def test_a_grid_of_paths_is_one_word():
    grid = [f"blocks.{i}.{j}.bn{k}" for i in range(9) for j in range(3) for k in (1, 2)]
    assert compact(grid) == ["blocks.{0..8}.{0..2}.bn{1,2}"]
