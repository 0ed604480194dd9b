"""What check returns: a verdict, its findings, and a verdict for each layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from dpnorm.detection.rules import rule
from dpnorm.gradients import Rows


class Verdict(StrEnum):
    """Proven: each record's contribution is its own. Refuted: a witness shows the opposite."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a model.

    Attributes:
        code: the rule, such as DPN101; `dpnorm rule DPN101` explains it.
        path: the module's path in the model, empty for the model itself.
        module: the module's class.
        location: file and line of the code that it concerns, or "".
        message: what was seen.
        witness: a number that refutes isolation: the largest change of what belongs to one
            record when only other records changed, relative to its size; None for a warning.
        remedy: what to do.
    """

    code: str
    path: str
    module: str
    location: str
    message: str
    witness: float | None
    remedy: str


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict on one module, with the codes of its findings."""

    path: str
    module: str
    verdict: Verdict
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The verdict on a model in the modes in which it was given.

    Attributes:
        verdict: proven, refuted or unproven.
        findings: what was found, in the order of the model's modules.
        layers: a verdict for each module that does the model's arithmetic.
        opacus: "ready" when stock Opacus yields one gradient a record; "dpnorm" when that takes an
            engine that regroups folded rows, survives in-place operations and allows constant
            buffers; "no" when there is no such gradient.
        model: the model's class.
        loss: how the loss was judged, in words.
        seed: of the random records that the probes used; the same seed gives the same witnesses.
        rows: which rows of a module belong to which record, by path, where that is known: what an
            engine needs to put a record's gradient together.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    layers: tuple[LayerVerdict, ...]
    opacus: Literal["ready", "dpnorm", "no"]
    model: str
    loss: str
    seed: int
    rows: Mapping[str, Rows] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        return self.verdict == Verdict.PROVEN

    @property
    def witness(self) -> float | None:
        """The largest witness among the findings."""
        return max((f.witness for f in self.findings if f.witness is not None), default=None)

    def summary(self) -> str:
        """The verdict in one sentence."""
        if self.verdict == Verdict.REFUTED:
            guilty = [f for f in self.findings if f.witness is not None]
            codes = ", ".join(sorted({f.code for f in guilty}))
            places = "1 place" if len(guilty) == 1 else f"{len(guilty)} places"
            return f"refuted: {places} where one record moves another ({codes})"
        if self.verdict == Verdict.PROVEN:
            return "proven: each record's contribution is its own"
        undecided = sorted({f.code for f in self.findings if f.code in ("DPN105", "DPN502")})
        undecided += sorted({f.code for f in self.findings if f.code.startswith("DPN9")})
        return (
            "unproven: no record was seen to move another, and no proof was found "
            f"({', '.join(undecided)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        plain = asdict(replace(self, rows={}))
        del plain["rows"]
        return plain | {"ok": self.ok, "summary": self.summary()}

    def render(self, form: str = "table") -> str:
        """The report as text: "table", "concise", "json", "sarif", "markdown" or "github"."""
        from dpnorm.detection.rendering import render

        return render(self, form)

    def __str__(self) -> str:
        return self.render("table")


def finding(
    code: str, path: str, module: object, location: str, message: str, witness: float | None = None
) -> Finding:
    """Builds a finding with its rule's remedy."""
    return Finding(code, path, type(module).__name__, location, message, witness, rule(code).remedy)
