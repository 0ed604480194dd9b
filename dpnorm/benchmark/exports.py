"""A benchmark's numbers for machines: results.csv, timings.csv and results.json.

Floats are written so that reading them gives the same float back. results.csv holds no timing, so
that the same seed writes the same bytes.
"""

import csv
import dataclasses
import enum
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.benchmark.tables import attacks
from dpnorm.leakage.estimate import Estimate

FORMAT = "dpnorm-benchmark/1"


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _estimate(name: str, estimate: Estimate | None) -> dict[str, str]:
    values = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    names = (name, f"{name}_low", f"{name}_high")
    return dict(zip(names, map(_number, values), strict=True))


def _flat(row: Row, attack_names: Sequence[str]) -> dict[str, str]:
    cells = {
        "dataset": row.dataset,
        "model": row.model,
        "variant": row.variant,
        "target_epsilon": _number(row.target_epsilon),
        "verdict": str(row.verdict),
        "status": row.status,
        "reason": row.reason,
        "witness": _number(row.witness),
        "members": str(int(row.members)),
        **_estimate("accuracy", row.accuracy),
        "epsilon": _number(row.epsilon),
        "delta": _number(row.delta),
        "noise_multiplier": _number(row.noise_multiplier),
    }
    for attack in attack_names:
        cells |= _estimate(f"{attack}_auc", row.auc.get(attack))
        cells |= _estimate(f"{attack}_tpr_at_1pct_fpr", row.tpr.get(attack))
    return cells | _estimate("memorized", row.memorized)


def _csv(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()


def to_csv(result: BenchmarkResult) -> str:
    """Writes results.csv: one line a row in the run's order, full precision, no timings.

    A value that does not exist is empty; an infinite one is `inf`. The columns of the loss attack
    and of LiRA are always there; further attacks add theirs.
    """
    names = ("loss", "lira", *(a for a in attacks(result.rows) if a not in ("loss", "lira")))
    empty = Row("", "", "", math.inf, "", "trained")
    return _csv(_flat(empty, names), (_flat(row, names).values() for row in result.rows))


def timings_csv(result: BenchmarkResult) -> str:
    """Writes timings.csv: seconds of one core for the parts of each row."""
    header = ("dataset", "model", "variant", "target_epsilon", "training_s", "attacks_s")
    return _csv(
        header,
        (
            (
                t.dataset,
                t.model,
                t.variant,
                *map(_number, (t.target_epsilon, t.training, t.attacks)),
            )
            for t in result.timings
        ),
    )


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold; a number that is not finite becomes a string.

    >>> plain({"epsilon": [float("inf"), 8.0]})
    {'epsilon': ['inf', 8.0]}
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)


def json_text(value: Any) -> str:
    """Writes indented JSON with each list of plain values on one line."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # A JSON string holds no raw line break, so this only meets the layout of lists.
    return re.sub(
        r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text
    )


def to_json(result: BenchmarkResult) -> str:
    """Writes results.json: the whole result, curves and timings included, as valid JSON.

    Infinite numbers stand as the strings "inf" and "-inf", undefined ones as "nan".
    """
    return json_text({"format": FORMAT, **plain(result)}) + "\n"
