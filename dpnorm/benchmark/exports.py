"""A benchmark's numbers for machines: results.csv and results.parquet, timings.csv, results.json.

Floats are written so that reading them gives the same float back. Results hold no timing, so that
the same seed writes the same bytes.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from dpnorm.benchmark.report_json import FORMAT, from_json, json_text, plain, to_json
from dpnorm.benchmark.report_words import bound_number
from dpnorm.benchmark.results import Audited, BenchmarkResult, Row
from dpnorm.benchmark.tables import VOID, attacks, is_trained
from dpnorm.leakage.estimate import Estimate

__all__ = [
    "FORMAT",
    "from_json",
    "json_text",
    "plain",
    "timings_csv",
    "to_csv",
    "to_json",
    "to_parquet",
    "csv_text",
]

Scalar = str | float | int | bool | None
_WORDS = ("dataset", "model", "variant", "verdict", "status", "reason", "epsilon_status")
_INTEGERS = ("seed", "members")


def _estimate(name: str, estimate: Estimate | None) -> dict[str, Scalar]:
    values = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def epsilon_status(row: Row) -> str:
    """What a row's epsilon is worth.

    >>> epsilon_status(Row("d", "m", "group", 8.0, "proven", "trained", epsilon=7.98))
    'claimed'
    """
    if row.void:
        return VOID
    private = is_trained(row) and math.isfinite(row.target_epsilon) and row.epsilon is not None
    return "claimed" if private else "none"


def _named_audits(row: Row) -> Iterator[tuple[str, Audited]]:
    """The audits of a row under the names of their columns."""
    seen: list[str] = []
    for audit in row.audits:
        name = f"audit_{re.sub('[^A-Za-z0-9]+', '_', audit.kind)}"
        seen.append(name)
        count = seen.count(name)
        yield (name if count == 1 else f"{name}_{count}"), audit


class _Flat:
    """Rows as flat records, all with the same columns.

    The columns of the loss attack and of LiRA are always there; further attacks, their AUC on
    outliers and audits add theirs.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        found = attacks(rows)
        self._attacks = ("loss", "lira", *(a for a in found if a not in ("loss", "lira")))
        self._on_outliers = [a for a in self._attacks if any(a in r.outlier_auc for r in rows)]
        self._audits = sorted({name for row in rows for name, _ in _named_audits(row)})
        self.columns = tuple(self.record(Row("", "", "", math.inf, "", "trained")))
        self.records = [self.record(row) for row in rows]

    def record(self, row: Row) -> dict[str, Scalar]:
        cells: dict[str, Scalar] = {
            "dataset": row.dataset,
            "model": row.model,
            "variant": row.variant,
            "target_epsilon": row.target_epsilon,
            "seed": row.seed,
            "verdict": str(row.verdict),
            "status": row.status,
            "reason": row.reason,
            "witness": row.witness,
            "members": row.members,
            **_estimate("accuracy", row.accuracy),
            "epsilon_status": epsilon_status(row),
            "epsilon": None if row.void else row.epsilon,
            "delta": row.delta,
            "noise_multiplier": row.noise_multiplier,
        }
        for attack in self._attacks:
            cells |= _estimate(f"{attack}_auc", row.auc.get(attack))
            cells |= _estimate(f"{attack}_tpr_at_1pct_fpr", row.tpr.get(attack))
        cells |= _estimate("memorized", row.memorized)
        for attack in self._on_outliers:
            cells |= _estimate(f"{attack}_auc_outliers", row.outlier_auc.get(attack))
        audits = dict(_named_audits(row))
        for name in self._audits:
            audit = audits.get(name)
            for key in ("epsilon", "ceiling"):
                cells[f"{name}_{key}"] = None if audit is None else bound_number(audit, key)
            cells[f"{name}_exceeded"] = None if audit is None else audit.exceeded
        return cells


def _text(value: Scalar) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, int) else repr(float(value))


def csv_text(header: Iterable[str], lines: Iterable[Iterable[Scalar]]) -> str:
    """Writes CSV with full precision; a value that does not exist is empty, an infinite one inf."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_text(value) for value in line] for line in lines)
    return out.getvalue()


def to_csv(result: BenchmarkResult) -> str:
    """Writes results.csv: one line a row in the run's order, full precision, no timings.

    A value that does not exist is empty; an infinite one is `inf`. `epsilon` is empty where
    `epsilon_status` is `void`; other statuses are `claimed` and `none`.
    """
    flat = _Flat(result.rows)
    floats = {c for c in flat.columns if c not in (*_WORDS, *_INTEGERS) and "_exceeded" not in c}
    return csv_text(
        flat.columns,
        (
            [float(v) if k in floats and v is not None else v for k, v in record.items()]
            for record in flat.records
        ),
    )


def to_parquet(result: BenchmarkResult) -> bytes:
    """Writes results.parquet: the columns of results.csv, typed; null where a value is missing.

    The same rows give the same bytes with the same pyarrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = _Flat(result.rows)
    types = {
        **{name: pa.string() for name in _WORDS},
        **{name: pa.int64() for name in _INTEGERS},
        **{name: pa.bool_() for name in flat.columns if name.endswith("_exceeded")},
    }
    arrays = {
        name: pa.array([record[name] for record in flat.records], types.get(name, pa.float64()))
        for name in flat.columns
    }
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), out, compression="zstd")
    return bytes(out.getvalue().to_pybytes())


def timings_csv(result: BenchmarkResult) -> str:
    """Writes timings.csv: seconds of wall clock and memory for the parts of each row."""
    header = ("dataset", "model", "variant", "target_epsilon", "seed", "training_s", "attacks_s",
              "audits_s", "peak_mib")  # fmt: skip
    return csv_text(
        header,
        (
            (
                *(t.dataset, t.model, t.variant, float(t.target_epsilon), t.seed),
                *map(float, (t.training, t.attacks, t.audits)),
                None if t.peak_bytes is None else t.peak_bytes / 2**20,
            )
            for t in result.timings
        ),
    )
