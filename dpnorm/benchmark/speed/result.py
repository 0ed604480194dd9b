"""What was measured: raw samples, and the estimates that follow from them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from dpnorm.benchmark.speed.interval import exponent_of, ratio_of
from dpnorm.errors import InputError
from dpnorm.leakage.estimate import Estimate

FORMAT, VERSION = "dpnorm speed", 1

Samples = tuple[float, ...]


@dataclass(frozen=True)
class SpeedRow:
    """One comparison on one network.

    Attributes:
        network: name of the subject.
        comparison: its name in `--only`.
        measured: the numerator in words.
        against: the denominator in words.
        status: "measured"; "not applicable" and "failed" have a reason in the place of samples.
        reason: why it was not measured.
        numerator: seconds, one sample a pair.
        denominator: seconds, of the same pairs.
        numerator_bytes: by how much one run of it raised the memory in use; None if not known.
        denominator_bytes: the same.
        note: what a reader must know of this row.
    """

    network: str
    comparison: str
    measured: str
    against: str
    status: Literal["measured", "not applicable", "failed"] = "measured"
    reason: str = ""
    numerator: Samples = ()
    denominator: Samples = ()
    numerator_bytes: int | None = None
    denominator_bytes: int | None = None
    note: str = ""

    @property
    def ratio(self) -> Estimate | None:
        """The median ratio of the pairs with its interval; None where nothing was measured."""
        return ratio_of(self.numerator, self.denominator) if self.numerator else None


@dataclass(frozen=True)
class Curve:
    """How times grow with a size.

    Attributes:
        name: what grows.
        subject: the network and what it is run on, in words.
        sizes: ascending.
        measured: what is timed, in words.
        numerator: seconds [size][round].
        against: what it is compared with, in words; empty where it stands alone.
        denominator: seconds [size][round]; empty where it stands alone.
        reason: why nothing was measured; empty where something was.
    """

    name: str
    subject: str
    sizes: tuple[int, ...]
    measured: str
    numerator: tuple[Samples, ...] = ()
    against: str = ""
    denominator: tuple[Samples, ...] = ()
    reason: str = ""

    def ratios(self) -> list[Estimate]:
        """Numerator over denominator at each size; none where it stands alone."""
        return [ratio_of(n, d) for n, d in zip(self.numerator, self.denominator, strict=False)]

    def exponents(self) -> dict[str, Estimate]:
        """Of the size, by what grows: what is measured, what it is compared with, their ratio."""
        if not self.numerator:
            return {}
        found = {self.measured: exponent_of(self.sizes, self.numerator)}
        if self.denominator:
            found[self.against] = exponent_of(self.sizes, self.denominator)
            pairs = zip(self.numerator, self.denominator, strict=True)
            ratios = [[a / b for a, b in zip(n, d, strict=True)] for n, d in pairs]
            found["ratio"] = exponent_of(self.sizes, ratios)
        return found


@dataclass(frozen=True)
class SpeedResult:
    """Everything that one run measured.

    Attributes:
        machine: processor, cores, system.
        versions: of what the times depend on.
        device: on which networks ran.
        threads: of torch; pools and loops say their own in a note.
        quick: whether little effort was made.
        seconds: of wall clock, in all.
        subjects: by network, what it was run on.
        rows: of comparisons.
        curves: of growth.
    """

    machine: str
    versions: Mapping[str, str]
    device: str
    threads: int
    quick: bool
    seconds: float
    subjects: Mapping[str, str]
    rows: tuple[SpeedRow, ...]
    curves: tuple[Curve, ...]

    @property
    def failed(self) -> bool:
        """Whether something broke that should not."""
        return any(row.status == "failed" for row in self.rows) or any(
            c.reason for c in self.curves
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: all samples, and what was estimated from them."""
        rows = [asdict(row) | {"estimate": _plain(row.ratio)} for row in self.rows]
        curves = [
            asdict(curve)
            | {
                "estimates": [_plain(e) for e in curve.ratios()],
                "exponents": {name: _plain(e) for name, e in curve.exponents().items()},
            }
            for curve in self.curves
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "versions": dict(self.versions),
            "subjects": dict(self.subjects),
            "rows": rows,
            "curves": curves,
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote; estimates are found again from the samples.

        Raises:
            InputError: it is something else.
        """
        try:
            data = json.loads(text)
            if (data["format"], data["version"]) != (FORMAT, VERSION):
                raise KeyError("format")
            values = {field.name: data[field.name] for field in fields(cls)}
            values["rows"] = tuple(_read(SpeedRow, row) for row in data["rows"])
            values["curves"] = tuple(_read(Curve, curve) for curve in data["curves"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"this is not what dpnorm bench speed --format json wrote (version {VERSION}): "
                f"{error!r}"
            ) from error


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else asdict(estimate)


def _read(kind: type[Any], data: Mapping[str, Any]) -> Any:
    return kind(**{field.name: _tuples(data[field.name]) for field in fields(kind)})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
