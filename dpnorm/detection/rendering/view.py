"""What of a report is shown: its findings, or those of the codes that were asked for."""

import math
from dataclasses import dataclass

from dpnorm.detection.report import Finding, Report
from dpnorm.detection.rules import rules
from dpnorm.errors import InputError, unknown_name


@dataclass(frozen=True)
class View:
    """A report and those of its findings that are shown; the verdict is that of all of them.

    Attributes:
        report: the whole report.
        findings: the findings to show.
        target: the name under which the model was given on the command line, or "".
    """

    report: Report
    findings: tuple[Finding, ...]
    target: str = ""

    @property
    def hidden(self) -> int:
        return len(self.report.findings) - len(self.findings)

    @property
    def headline(self) -> str:
        """The model and the verdict in one line."""
        model = self.report.model
        named = f"{self.target} ({model})" if self.target else model
        return f"{named}: {self.report.summary()}"

    @property
    def note(self) -> str:
        """Says that findings are hidden, where some are."""
        if not self.hidden:
            return ""
        hidden = "1 finding is" if self.hidden == 1 else f"{self.hidden} findings are"
        return f"{hidden} not shown (--select, --ignore); the verdict counts all"


def view_of(
    report: Report,
    *,
    select: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    target: str = "",
) -> View:
    """The view of a report that shows the selected codes, all if none are, without the ignored.

    Codes are whole or prefixes: "DPN5" stands for every DPN5xx.
    """
    shown = tuple(
        item
        for item in report.findings
        if (not select or item.code.startswith(select)) and not item.code.startswith(ignore)
    )
    return View(report, shown, target)


def parse_codes(option: str, text: str | None) -> tuple[str, ...]:
    """The codes and prefixes of codes in a comma separated list.

    >>> parse_codes("--select", "dpn101, DPN5")
    ('DPN101', 'DPN5')

    Raises:
        InputError: the list is empty, or no rule's code begins with one of its entries.
    """
    if text is None:
        return ()
    codes = tuple(part.strip().upper() for part in text.split(",") if part.strip())
    if not codes:
        raise InputError(f"{option} is {text!r}: give codes, such as {option} DPN101,DPN5")
    for code in codes:
        if not any(known.startswith(code) for known in rules()):
            raise unknown_name(f"code in {option}", code, rules())
    return codes


def json_number(value: float | None) -> float | str | None:
    """A number that JSON can hold: infinity and NaN, which it cannot, as "inf" and "nan"."""
    return value if value is None or math.isfinite(value) else str(value)
