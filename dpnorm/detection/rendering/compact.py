"""Many module paths in few words."""

import re
from collections.abc import Iterable


def compact(paths: Iterable[str]) -> list[str]:
    """Paths that differ in one number become one, in the notation of a shell's brace expansion.

    Expanding the result gives exactly the paths that went in, each once.

    >>> compact(["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2"])
    ['bn1', 'layer{1,2}.0.bn{1,2}']
    >>> compact(["blocks.0.norm", "blocks.1.norm", "blocks.2.norm"])
    ['blocks.{0..2}.norm']
    >>> compact(["1", "5"])
    ['1', '5']
    """
    # Splitting at numbers gives text at even places and numbers at odd ones.
    rows = [tuple(re.split(r"([0-9]+)", path)) for path in dict.fromkeys(paths)]
    for place in range(max(map(len, rows), default=0) - 1, 0, -1):
        if place % 2:
            rows = _merged(rows, place)
    return ["".join(row) for row in rows]


def _merged(rows: list[tuple[str, ...]], place: int) -> list[tuple[str, ...]]:
    """Merges the rows that are the same but for the number at one place."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for index, row in enumerate(rows):
        rest = (*row[:place], "", *row[place + 1 :])
        if place < len(row) and any(rest):
            groups.setdefault(rest, []).append(row[place])
        else:  # without the place, or a bare number, which is best read as it is
            groups[(*row, str(index))] = []
    return [
        (*key[:place], _braces(numbers), *key[place + 1 :]) if numbers else key[:-1]
        for key, numbers in groups.items()
    ]


def _braces(numbers: list[str]) -> str:
    """
    >>> _braces(["1"]), _braces(["0", "1"]), _braces(["2", "3", "4"]), _braces(["1", "3", "4"])
    ('1', '{0,1}', '{2..4}', '{1,3,4}')
    """
    if len(numbers) == 1:
        return numbers[0]
    values = [int(number) for number in numbers]
    plain = all(str(value) == number for value, number in zip(values, numbers, strict=True))
    if plain and len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    return "{" + ",".join(numbers) + "}"
